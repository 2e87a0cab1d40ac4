"""Whether the engines of a policy find room, before they are asked for."""

import pytest

from openrlhf_prm.annotation.policy_run import PolicyRun
from openrlhf_prm.cluster.checks import TooFewGPUs
from openrlhf_prm.cluster.engine_options import EngineOptions
from openrlhf_prm.cluster.placement import Node
from openrlhf_prm.data.prompts import PromptOptions


def run_of(engines: int, gpus: float) -> PolicyRun:
    options = EngineOptions("policy", num_engines=engines, gpus=gpus)
    return PolicyRun(questions=(), prompts=PromptOptions(), answer_checker="math", engines=options)


@pytest.mark.parametrize(("engines", "gpus", "fits"), [(2, 2, True), (1, 4, False), (4, 1, True), (8, 0.5, True)])
def test_an_engine_must_lie_on_one_node(monkeypatch, engines, gpus, fits):
    monkeypatch.setattr("openrlhf_prm.cluster.nodes.of_ray", lambda memory: [Node("a", 2, 8.0), Node("b", 2, 8.0)])
    if fits:
        run_of(engines, gpus)._require_room()
        return
    with pytest.raises(TooFewGPUs, match="engines 4 .--vllm.num_engines, --vllm.tensor_parallel_size .* finds no room"):
        run_of(engines, gpus)._require_room()
