"""Tests that need a CUDA device; without one they are skipped. They share the small checkpoints of `tests/stack`.

They run as users do: each engine has a process of its own, which pytest's process starts without having touched CUDA.
"""

import os
from pathlib import Path

import pytest

import vllm_prm  # noqa: F401 (before PyTorch is asked for a GPU: a process that has touched CUDA can fork no engine)

# A bare CUDA machine may have a PyTorch for which no newer vLLM was built.
os.environ.setdefault("STEP_REWARDS_ANY_VLLM", "1")


def pytest_collection_modifyitems(items):
    import torch

    if not torch.cuda.is_available():
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device; torch.cuda.is_available() is False"))


@pytest.fixture(autouse=True, scope="module")
def engines_in_processes_of_their_own():
    """Whatever other tests of this run have set."""
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("VLLM_ENABLE_V1_MULTIPROCESSING", raising=False)
        yield
