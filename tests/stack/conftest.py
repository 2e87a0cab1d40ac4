"""What holds for every test on the real stack."""

import os
import sys
from pathlib import Path

import pytest
import reaper
from own_process import make_ready
from patience import PATIENCE
from ray._private import ray_constants

HERE = Path(__file__).parent

# One thread and no core pinning: several small engines share the machine. Nothing is compiled that runs for seconds.
# PyTorch and vLLM read these when they are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")


def pytest_sessionstart(session):
    os.environ.update(PATIENCE)
    session.config.reaper_pipe = reaper.start()


@pytest.fixture(autouse=True, scope="module")
def engines_in_this_process():
    """`vllm.LLM` starts no process of its own: that takes seconds, and tests look into the engine."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        yield


@pytest.fixture(autouse=True, scope="module")
def engines_start_and_end_at_once():
    if "vllm_prm.scorer" in sys.modules:  # engines are started in this process
        make_ready()


# fmt: off
LONGEST = (
    "self_correction", "ppo_modes", "served_families", "online_prm", "rollout_engine", "prm_workers",
    "annotation_engines", "agents", "ppo", "evaluate_benchmark", "generate", "rejection_sample", "evaluate",
    "train_prm_heads", "step_rewards_api", "checkpoints", "tensor_parallel", "doctor", "host_parity", "memory",
    "generative", "implicit", "scoring_schedules", "weight_sync", "placement", "doors",
)
# fmt: on
"""Files in the order of the CPU time that they take, but no two with a critic one after the other: those want the most
memory.
"""


def pytest_collection_modifyitems(items):
    """The longest files first, so that none is left to one worker at the end while the other has nothing to do."""

    def place(item) -> int:
        name = item.path.stem.removeprefix("test_")
        return LONGEST.index(name) if item.path.is_relative_to(HERE) and name in LONGEST else len(LONGEST)

    items.sort(key=place)


@pytest.fixture(autouse=True, scope="module")
def environment_of_its_own():
    """What commands set in the environment when they are called in this process ends with the file: a Ray of the next
    one would have other resources, or another address, its engines other caches.
    """
    before, of_clusters = dict(os.environ), ray_constants.ENABLE_RAY_CLUSTER
    yield
    ray_constants.ENABLE_RAY_CLUSTER = of_clusters
    for name in {*before, *os.environ}:
        if name.startswith("PYTEST_"):
            continue
        if name in before:
            os.environ[name] = before[name]
        else:
            del os.environ[name]
