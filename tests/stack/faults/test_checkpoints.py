"""Real DeepSpeed: killed in a save, a run goes on from what was whole; NaN stops it; nothing planted is run."""

import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.stack
HERE = Path(__file__).parent


def started(*arguments: object) -> subprocess.Popen:
    path = f"{HERE.parents[2]}:{HERE.parents[1]}"
    environment = {**os.environ, "PYTHONPATH": path, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    environment |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    command = [sys.executable, str(HERE / "checkpoint_run.py"), *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen) -> object:
    output, errors = process.communicate()
    assert process.returncode == 0, errors[-3000:]
    return json.loads(output.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> dict[str, Path]:
    """Folders of runs with `--ckpt.max_num 1` that were killed in their third save, and one in its first."""
    folder = tmp_path_factory.mktemp("killed")
    runs = {name: (name[-1], 3, 3) for name in ("stage0", "stage2")} | {"first": ("0", 1, 1)}
    processes = [started("save", folder / name, *run) for name, run in runs.items()]
    for process in processes:
        process.communicate()
    assert [process.returncode for process in processes] == [-signal.SIGKILL] * 3
    return {name: folder / name for name in runs}


class Planted:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_run_killed_in_a_save_goes_on_from_the_one_before(killed):
    names = ("stage0", "stage2", "first")
    loading = [started("load", killed[name], 2 if name == "stage2" else 0) for name in names]
    *whole, first = map(finished, loading)
    for name, loaded in zip(names, whole, strict=False):
        assert loaded["states"]["update"] == 2 and loaded["states"]["data"] == {"seed": 7}
        assert loaded["weight"] == pytest.approx([0.8] * 4), "two updates of 0.1"
        assert sorted(path.name for path in killed[name].iterdir() if path.is_dir()) == ["s2", "s3"]
    assert first == {"path": None, "states": {}, "weight": [1.0] * 4}, "nothing was whole: afresh"


def test_a_broken_and_a_planted_checkpoint_are_one_line(killed, tmp_path):
    broken, planted, made = killed["stage0"], killed["stage2"], tmp_path / "made"
    [file] = broken.glob("s2/*model_states.pt")
    os.truncate(file, file.stat().st_size // 2)
    [file] = planted.glob("s2/*model_states.pt")
    file.write_bytes(pickle.dumps(Planted(made)))
    for process, folder in [(started("load", path, path.name[-1]), path) for path in (broken, planted)]:
        error = finished(process)["error"]
        assert (
            error.startswith(f"--ckpt.load_enable: the checkpoint {folder / 's2'} cannot be read (")
            and "\n" not in error
        )
        assert error.endswith("no other is there; leave --ckpt.load_enable out to start afresh")
    assert not made.exists()


def test_a_loss_and_a_gradient_that_are_no_numbers_stop_it_and_a_full_disk_is_one_line(tmp_path):
    running = {stage: started("bad", tmp_path / stage, stage) for stage in ("0", "2")}
    for stage, process in running.items():
        said = finished(process)
        assert len(said) == 3, (stage, said)
        (loss, unchanged), (gradient, _), full = said
        assert "the loss is nan" in loss and unchanged, "no weight was touched"
        assert "weights of the model are NaN or infinite" in gradient
        assert full.startswith(f"the checkpoint {tmp_path / stage / 's2'} cannot be written (") and "\n" not in full
        assert full.endswith("the same command with --ckpt.load_enable goes on from s1")
