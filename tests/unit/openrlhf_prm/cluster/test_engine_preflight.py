"""Whether the engines of a command find room, before they are asked for, and what a dry run says of them."""

import json
from types import SimpleNamespace

import pytest

from openrlhf_prm.cluster.engine_options import EngineOptions
from openrlhf_prm.cluster.engine_preflight import dry_run_engines, require_room
from openrlhf_prm.cluster.nodes import described
from openrlhf_prm.cluster.placement import Node

TWO_NODES = [Node("a", 2, 8.0), Node("b", 2, 8.0)]
SMALL = {
    "model_type": "qwen2",
    "hidden_size": 4096,
    "intermediate_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 4096,
    "tie_word_embeddings": True,
}
"""3.8 billion parameters, 7.0 GiB in 16 bits."""


@pytest.mark.parametrize(("engines", "gpus", "fits"), [(2, 2, True), (1, 4, False), (4, 1, True), (8, 0.5, True)])
def test_an_engine_lies_on_one_node(engines, gpus, fits):
    options = {"vllm": EngineOptions("policy", num_engines=engines, gpus=gpus, tensor_parallel_size=max(1, int(gpus)))}
    if fits:
        require_room(options, TWO_NODES)
        return
    with pytest.raises(ValueError, match="vllm 4 .--vllm.num_engines x --vllm.tensor_parallel_size. finds no room"):
        require_room(options, TWO_NODES)


def test_prm_and_policy_are_placed_together():
    both = {"prm": EngineOptions("prm", num_engines=2), "vllm": EngineOptions("policy", num_engines=2)}
    require_room(both, TWO_NODES)
    with pytest.raises(ValueError, match="needs 5 GPUs: prm 3 .* vllm 2 .* there are 4 GPUs"):
        require_room({**both, "prm": EngineOptions("prm", num_engines=3)}, TWO_NODES)


@pytest.fixture
def model(tmp_path) -> str:
    (tmp_path / "config.json").write_text(json.dumps(SMALL))
    return str(tmp_path)


def said(capsys, spec: str, **engines: EngineOptions) -> str:
    dry_run_engines(SimpleNamespace(dry_run=SimpleNamespace(gpus=described(spec))), engines)
    return capsys.readouterr().out


def test_a_dry_run_shows_places_and_memory(model, capsys):
    out = said(capsys, "2x80", vllm=EngineOptions(model, num_engines=2))
    assert "vllm  2          2       node 0: 2" in out
    assert "a GPU of vllm: 73.0 of 80 GiB" in out and "vllm: weights 7.1, cache 65.0" in out
    shared = EngineOptions(model, gpus=0.5, share=0.5)
    out = said(capsys, "1x80", prm=shared, vllm=shared)
    assert "a GPU of prm + vllm: 74.0 of 80 GiB" in out


def test_a_share_that_cannot_hold_its_model_is_refused(model, capsys):
    small = EngineOptions(model, gpus=0.25, share=0.25)
    with pytest.raises(ValueError, match=r"--prm.gpus_per_engine: .* 5.4 GiB .*\(0.23 of 24\), less than .* 7.0"):
        said(capsys, "1x24", prm=small)
    said(capsys, "2x24", prm=EngineOptions(model, gpus=2, tensor_parallel_size=2))


def test_a_run_refuses_such_a_share_before_anything_starts(model):
    nodes = [Node("a", 2, 8.0, 24.0)]
    require_room({"vllm": EngineOptions(model, num_engines=2)}, nodes)
    with pytest.raises(ValueError, match="--prm.gpus_per_engine: an engine may take 5.4 GiB .* less than .* 7.0"):
        require_room({"prm": EngineOptions(model, gpus=0.25, share=0.25)}, nodes)
    with pytest.raises(ValueError, match="--vllm.gpu_memory_utilization: an engine may take 4.8 GiB"):
        require_room({"vllm": EngineOptions(model, gpu_memory_utilization=0.2)}, nodes)
    require_room({"prm": EngineOptions(model, gpus=0.25, share=0.25)}, [Node("a", 2, 8.0)])  # not known: not judged


def test_a_prm_of_two_models_needs_room_for_both_in_its_share(model, capsys):
    def pair(**sizes) -> EngineOptions:
        return EngineOptions(model, beside=(model,), **sizes)

    out = said(capsys, "1x80", prm=pair(gpus=0.5, share=0.5))
    assert "a GPU of prm: 37.0 of 80 GiB" in out and "prm: weights 14.1, cache 22.0" in out
    one = EngineOptions(model, gpus=0.5, share=0.5)
    said(capsys, "1x24", prm=one)
    halved = r"--prm.gpus_per_engine: .* 5.4 GiB of a GPU \(0.23 of 24, for each of 2 models\), less than .* 7.0"
    with pytest.raises(ValueError, match=halved):
        said(capsys, "1x24", prm=pair(gpus=0.5, share=0.5))
    with pytest.raises(ValueError, match=halved):
        require_room({"prm": pair(gpus=0.5, share=0.5)}, [Node("a", 2, 8.0, 24.0)])
    said(capsys, "2x16", prm=pair(gpus=2, tensor_parallel_size=2))


def test_an_engine_in_the_commands_own_process_is_named_by_its_own_flags(model, capsys):
    options = EngineOptions(model, gpus=2, tensor_parallel_size=2, gpu_memory_utilization=0.1)
    args = SimpleNamespace(dry_run=SimpleNamespace(gpus=described("1x80")))
    with pytest.raises(ValueError, match=r"needs 2 GPUs: prm 2 \(--prm.tensor_parallel_size\); there are 1"):
        dry_run_engines(args, {"prm": options}, in_process=True)
    args.dry_run.gpus = described("2x24")
    with pytest.raises(ValueError, match="--prm.gpu_memory_utilization: an engine may take 2.4 GiB"):
        dry_run_engines(args, {"prm": options}, in_process=True)


def test_a_model_without_a_configuration_is_no_number(tmp_path, capsys):
    out = said(capsys, "1x80", vllm=EngineOptions(str(tmp_path / "nowhere")))
    assert "not estimated: vllm: " in out and "GiB" not in out
