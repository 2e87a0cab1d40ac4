"""What engines take of GPUs: one rule for all commands."""

import pytest

from openrlhf_prm.cluster import engine_options
from openrlhf_prm.cluster.engine_options import EngineFlags


@pytest.fixture
def on_gpus(monkeypatch):
    """A GPU build of PyTorch."""
    for module in (engine_options, engine_options.engine_dtype.__globals__):
        name = "on_cpu"
        target = module if isinstance(module, dict) else vars(module)
        monkeypatch.setitem(target, name, lambda: False)


@pytest.mark.parametrize(
    ("flags", "gpus", "memory"),
    [
        ({}, 1.0, 0.9),
        ({"gpus_per_engine": 0.5}, 0.5, 0.45),
        ({"gpus_per_engine": 0.5, "gpu_memory_utilization": 0.3}, 0.5, 0.3),
        ({"tensor_parallel_size": 4}, 4, 0.9),
    ],
)
def test_an_engine_takes_its_share_of_a_gpus_memory(on_gpus, flags, gpus, memory):
    engines = EngineFlags(**flags).engines("model", seed=0)
    args = engines.engine_args()
    assert engines.gpus == gpus and args["gpu_memory_utilization"] == pytest.approx(memory)
    assert args["tensor_parallel_size"] == flags.get("tensor_parallel_size", 1)
    assert args["distributed_executor_backend"] == ("uni" if gpus <= 1 else "mp")
    assert EngineFlags(**flags).memory == pytest.approx(memory)


def test_on_cpu_memory_is_the_machines_and_a_model_is_split_all_the_same():
    args = EngineFlags(gpus_per_engine=0.5).engines("model", seed=0).engine_args()
    assert "gpu_memory_utilization" not in args
    assert EngineFlags(tensor_parallel_size=2).engines("model", seed=0).engine_args()["tensor_parallel_size"] == 2
