"""Nothing that these tests start outlives them, however they end: engines and servers hold memory and cores.

A run marks its environment, which every process it starts inherits. `reaper.py` waits beside it until the run is over,
or was killed, and then ends what still carries the mark.
"""

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

# One thread and no core pinning: several small engines share the machine. PyTorch and vLLM read these when imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")

MARK = "OPENRLHF_PRM_TEST_RUN"

# Ray takes a process that is slow to answer for a dead one. Here none is too slow; what hangs, pytest ends.
PATIENCE = {
    "RAY_worker_register_timeout_seconds": "1800",
    "RAY_agent_register_timeout_ms": "1800000",
    "RAY_gcs_server_request_timeout_seconds": "1800",
    "RAY_py_gcs_connect_timeout_s": "1800",
    "RAY_health_check_timeout_ms": "1800000",
}


def pytest_sessionstart(session):
    """Start the reaper; let SIGTERM, as `timeout` sends it, end the run through the fixtures."""
    os.environ[MARK] = uuid.uuid4().hex
    os.environ.update(PATIENCE)
    os.environ["SPT_NOENV"] = "1"  # vLLM renames its processes, which would wipe out the environment they show
    reading, writing = os.pipe()
    # The reaper sees the end of the pipe when this process, which alone can write to it, is gone.
    subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("reaper.py")), MARK, os.environ[MARK]],
        stdin=reading,
        start_new_session=True,
        env={name: value for name, value in os.environ.items() if name != MARK},
    )
    os.close(reading)
    session.config.reaper_pipe = writing
    signal.signal(signal.SIGTERM, _interrupt)


@pytest.fixture(autouse=True, scope="module")
def engines_in_this_process():
    """`vllm.LLM` starts no process of its own: that takes seconds, and tests look into the engine."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        yield


def _interrupt(signum, frame):
    signal.signal(signum, signal.SIG_IGN)  # a second one must not break off the cleaning up
    raise KeyboardInterrupt("terminated")


LONGEST = (
    *("online_prm", "evaluate", "rejection_sample", "ppo_modes", "annotate_train_prm", "ppo"),
    *("annotation_engines", "extensions", "evaluate_benchmark", "train_prm_heads"),
)
"""Files in the order of the CPU time that they take, two PPO runs with a critic apart, which want the most memory."""


def pytest_collection_modifyitems(items):
    """The longest files first, so that none is left to one worker at the end while the other has nothing to do."""

    def place(item) -> int:
        name = item.path.stem.removeprefix("test_")
        return LONGEST.index(name) if item.path.parent == Path(__file__).parent and name in LONGEST else len(LONGEST)

    items.sort(key=place)
