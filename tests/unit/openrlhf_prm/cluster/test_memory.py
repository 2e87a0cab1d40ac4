"""Memory of small models, worked out by hand. Against DeepSpeed's and PyTorch's own tensors: tests/stack."""

import json
from types import SimpleNamespace

import pytest

from openrlhf_prm.cluster.memory import (
    GIB,
    LIVE_PARAMETERS,
    PER_PROCESS,
    REDUCE_BUCKET,
    engine,
    frozen,
    fullest,
    require_share,
    trained,
)

N = 4_000_000_000


def states(stage: int, dtype: str = "bf16", ranks: int = 4, **more) -> dict[str, float]:
    """Bytes per parameter at rest and, of gradients, at work."""
    use = trained(N, dtype, ranks, stage, **more)
    parts = {**use.resting, "gradients": use.working["gradients"]}
    return {name: parts[name] / N for name in ("weights", "optimizer", "gradients")}


def test_states_by_zero_stage():
    assert states(0) == {"weights": 2, "optimizer": 12, "gradients": 2}
    assert states(1) == {"weights": 2, "optimizer": 3, "gradients": 2}
    assert states(1, accumulates=False) == {"weights": 2, "optimizer": 3, "gradients": 0.5}
    assert states(2) == {"weights": 2, "optimizer": 3, "gradients": 0.5}
    assert states(3) == {"weights": 0.5, "optimizer": 3, "gradients": 0.5}
    assert states(0, "fp32") == {"weights": 4, "optimizer": 8, "gradients": 4}
    assert states(2, "fp32") == {"weights": 4, "optimizer": 3, "gradients": 1}
    assert states(2, offload=True) == {"weights": 2, "optimizer": 0, "gradients": 0}
    assert states(2, trainable=N // 100) == {"weights": 2, "optimizer": 0.03, "gradients": 0.005}


def test_the_peak_is_the_backward_pass_or_the_update():
    long = trained(N, "bf16", 4, 2, activations=50e9).working
    assert long["activations"] == 50e9 and long["buffers"] == 2 * REDUCE_BUCKET
    short = trained(N, "bf16", 4, 2, activations=1e9).working
    assert "activations" not in short and short["buffers"] == N  # 4 bytes of float32 gradients over 4 ranks
    gathered = trained(N, "bf16", 4, 3, activations=50e9).working["buffers"]
    assert gathered == 2 * REDUCE_BUCKET + 2 * LIVE_PARAMETERS


def test_models_that_judge_are_shared_out_and_offloaded_by_zero_3_alone():
    def weights(stage, offload):
        return frozen(N, "bf16", 4, stage, offload=offload, activations=0).resting["weights"] / N

    assert [weights(2, False), weights(2, True), weights(3, False), weights(3, True)] == [2, 2, 0.5, 0]


def test_the_fullest_moment_depends_on_who_sleeps():
    def gpu(sleeps: bool, together: bool = False):
        actor = trained(N, "bf16", 4, 2, activations=20e9, sleeps=sleeps)
        critic = trained(N, "bf16", 4, 2, activations=20e9, sleeps=sleeps)
        judge = frozen(N, "bf16", 4, 2, offload=False, activations=1e9)
        rollout = engine([2.0 * N], 40e9, sleeps)
        return fullest({"actor": actor, "critic": critic, "ref": judge, "vllm": rollout}, together)

    learning = 4 * PER_PROCESS + N * (2 + 3 + 0.5) + 1e9 + 20e9
    asleep = gpu(True)
    assert asleep.moment == "responses are written" and asleep.total == 4 * PER_PROCESS + 3 * 2 * N + 40e9
    assert asleep.parts["critic"] == {"weights": 2 * N}
    assert asleep.certain().total == 3 * 2 * N + 40e9
    awake = gpu(False)
    assert awake.certain().total == awake.total - 4 * PER_PROCESS - 1e9 - 20e9
    assert awake.moment == "actor learns"
    assert awake.total == learning + N * 5 + N * 2 + 40e9
    both = gpu(False, together=True)
    assert both.moment == "actor and critic learn" and both.total == awake.total + N * 0.5 + 1e9 + 20e9


def test_an_engine_has_the_rest_of_its_share_for_its_cache():
    assert engine([10e9], 40e9).working == {"weights": 10e9, "cache": 30e9}
    assert engine([10e9], None).working == {"weights": 10e9}
    assert fullest({"prm": engine([10e9], 40e9)}, False).total == 40e9 + PER_PROCESS


def test_two_models_have_half_of_a_share_each():
    assert engine([12e9, 4e9], 40e9).working == {"weights": 16e9, "cache": 8e9 + 16e9}
    crowded = engine([25e9, 4e9], 40e9)  # one is larger than its half, which is no room for the other's cache
    assert crowded.working == {"weights": 29e9, "cache": 16e9}
    sizes = SimpleNamespace(tensor_parallel_size=1)
    require_share("prm", "--prm.gpus_per_engine", engine([4 * GIB, 9 * GIB], None), 0.25, 80, sizes)
    with pytest.raises(
        ValueError, match="may take 10.0 GiB of a GPU .0.12 of 80, for each of 2 models., less than .* 10.0;"
    ):
        require_share("prm", "--prm.gpus_per_engine", engine([4 * GIB, 10 * GIB], None), 0.25, 80, sizes)
    require_share("prm", "--prm.gpus_per_engine", engine([10 * GIB], None), 0.25, 80, sizes)


QWEN = {
    "model_type": "qwen2",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "tie_word_embeddings": False,
}
LAYER = 64 * 64 + 64 + 2 * (64 * 32 + 32) + 64 * 64 + 3 * 64 * 128 + 2 * 64


def checkpoint(folder, **changes) -> str:
    (folder / "config.json").write_text(json.dumps({**QWEN, **changes}))
    return str(folder)


def test_parameters_are_counted_without_weights(tmp_path):
    from openrlhf_prm.cluster.rehearsal import CannotTell, kv_bytes_per_token, model_size

    model = checkpoint(tmp_path)
    assert model_size(model).parameters == 2 * LAYER + 64 + 2 * 1000 * 64
    assert model_size(model, critic=True).parameters == 2 * LAYER + 64 + 1000 * 64 + 64
    assert kv_bytes_per_token(model, 2, 1) == 2 * 2 * 2 * 16 * 2
    assert kv_bytes_per_token(model, 2, 4) == 2 * 2 * 1 * 16 * 2  # a head is not split
    with pytest.raises(CannotTell, match="nowhere has no configuration that can be read"):
        model_size(str(tmp_path / "nowhere"))


def test_checkpointing_keeps_a_layers_input_alone(tmp_path):
    """What a further layer adds: its input in bfloat16 with checkpointing, many times that without."""
    from openrlhf_prm.cluster.rehearsal import passes

    def per_layer(checkpointing: bool) -> float:
        held = []
        for layers in (8, 16):
            folder = tmp_path / f"{layers}"
            folder.mkdir(exist_ok=True)
            held.append(passes(checkpoint(folder, num_hidden_layers=layers), "bf16", 2, 128, checkpointing).training)
        return (held[1] - held[0]) / 8 / (2 * 128)

    assert per_layer(True) == 64 * 2
    # Two norms, q k v, attention, its projection, three of the MLP, residuals: at least 10 x 64 values of 2 bytes.
    assert per_layer(False) > 10 * 64 * 2


def test_logits_weigh_most_where_the_vocabulary_is_large(tmp_path):
    from openrlhf_prm.cluster.rehearsal import passes

    held = passes(checkpoint(tmp_path, vocab_size=50_000), "bf16", 1, 64)
    logits = 64 * 50_000 * 4
    assert held.forward > 1.5 * logits and held.training > 2 * logits
    assert held.training < 2 * GIB
