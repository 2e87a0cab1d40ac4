"""What is made of flags that were left open: numbers worked out by hand, and published models on usual machines."""

from types import SimpleNamespace

import pytest
from transformers import LlamaConfig, Qwen2Config

from openrlhf_prm.cli import train_prm
from openrlhf_prm.cli.parser import nested
from openrlhf_prm.prm_training import open_flags
from openrlhf_prm.prm_training.heads import PRM_HEADS
from openrlhf_prm.prm_training.open_flags import ModelSize, Setup, device_bytes, fill_in, fitting_setup, learning_rate

PLACEHOLDER, IMPLICIT = PRM_HEADS["placeholder"], PRM_HEADS["implicit"]
GIB = 2**30


def flags(*, lora: int = 0, stage=None, offload=None, checkpointing=None, dtype="bf16", micro=4) -> SimpleNamespace:
    return SimpleNamespace(
        ds=SimpleNamespace(
            param_dtype=dtype, zero_stage=stage, adam_offload=offload, tensor_parallel_size=1,
            lora=SimpleNamespace(rank=lora),
        ),
        train=SimpleNamespace(micro_batch_size=micro),
        model=SimpleNamespace(gradient_checkpointing_enable=checkpointing),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("head", "hidden", "lora", "rate"),
    [
        ("placeholder", 4096, False, 1e-5),
        ("placeholder", 3584, False, 1.1e-5),  # Qwen2.5-7B
        ("placeholder", 576, False, 7.1e-5),  # SmolLM2-135M
        ("placeholder", 4096, True, 1e-4),
        ("qwen_prm", 4096, False, 2e-5),
        ("implicit", 4096, False, 1e-6),
    ],
)
def test_the_rate_falls_with_the_width(head, hidden, lora, rate):
    assert learning_rate(PRM_HEADS[head], hidden, lora=lora) == rate


@pytest.mark.parametrize(
    ("batch", "devices", "on", "size"), [(128, 1, "cpu", 8), (12, 1, "cpu", 4), (128, 8, "gpu", 4), (24, 8, "gpu", 1)]
)
def test_a_micro_batch_divides_the_batch(batch, devices, on, size):
    assert open_flags.usual_micro_batch(batch, devices, on) == size


def test_memory_by_hand():
    size = ModelSize(parameters=1000, hidden=10, layers=2, words=50)
    of = lambda setup, head=PLACEHOLDER, **given: device_bytes(  # noqa: E731
        size, setup, flags(micro=1, **given), head, devices=4, max_len=3
    )
    kept, recomputed = 3 * 10 * 34 * 2, 3 * 10 * 2 * (2 + 30)
    assert of(Setup(2, False, False)) == 2000 + 18 * 1000 / 4 + kept
    assert of(Setup(0, False, True)) == 2000 + 18 * 1000 + recomputed
    assert of(Setup(2, True, True)) == 2000 + 2 * 1000 / 4 + recomputed
    assert of(Setup(3, False, True)) == (2000 + 18 * 1000) / 4 + 4e9 + recomputed
    assert of(Setup(2, False, False), dtype="fp32") == 4000 + 20 * 1000 / 4 + kept
    assert of(Setup(2, False, False), lora=8) == 2000 + kept
    assert of(Setup(2, False, True), IMPLICIT) == 2 * 2000 + 18 * 1000 / 4 + recomputed + 10 * 3 * 50


QWEN_7B = ModelSize(7_615_616_512, 3584, 28, 152_064)
QWEN_32B = ModelSize(32_763_876_352, 5120, 64, 152_064)


@pytest.mark.parametrize(
    ("size", "devices", "setup"),
    [
        (QWEN_7B, 8, Setup(2, False, True)),
        (QWEN_7B, 2, Setup(2, True, True)),
        (QWEN_7B, 1, Setup(2, True, True)),
        (QWEN_32B, 32, Setup(3, False, True)),
        (QWEN_32B, 8, Setup(3, True, True)),
    ],
)
def test_defaults_fit_80_gib(size, devices, setup):
    host, limits = flags(), {"devices": devices, "max_len": 2048}
    assert fitting_setup(size, host, PLACEHOLDER, memory=80 * GIB, **limits) == setup
    assert device_bytes(size, setup, host, PLACEHOLDER, **limits) < 0.9 * 80 * GIB


def test_without_recomputation_a_7b_model_does_not_fit_8_devices():
    """8 solutions of 2048 tokens, as the defaults once were."""
    limits = {"devices": 8, "max_len": 2048}
    assert device_bytes(QWEN_7B, Setup(2, False, False), flags(micro=8), PLACEHOLDER, **limits) > 80 * GIB


def test_what_was_given_stays():
    given = flags(stage=2, offload=False, checkpointing=False)
    assert fitting_setup(QWEN_32B, given, PLACEHOLDER, devices=8, max_len=2048, memory=80 * GIB) == Setup(
        2, False, False
    )
    assert fitting_setup(
        QWEN_32B, flags(offload=False), PLACEHOLDER, devices=8, max_len=2048, memory=80 * GIB
    ) == Setup(3, False, True)


def test_the_size_of_a_model_is_counted_without_its_weights():
    config = Qwen2Config(
        vocab_size=152_064, hidden_size=3584, intermediate_size=18_944, num_hidden_layers=28, num_attention_heads=28,
        num_key_value_heads=4, tie_word_embeddings=False,
    )  # fmt: skip
    assert ModelSize.of(config) == QWEN_7B


@pytest.mark.parametrize("on_gpu", [False, True])
def test_open_flags_are_filled_and_given_ones_stay(tmp_path, monkeypatch, on_gpu):
    LlamaConfig(hidden_size=64, num_hidden_layers=2, architectures=["LlamaForCausalLM"]).save_pretrained(tmp_path / "m")
    monkeypatch.setattr(open_flags, "on_cpu", lambda: not on_gpu)
    monkeypatch.setattr(open_flags, "flash_attn_fault", lambda: None)
    monkeypatch.setattr(open_flags, "_device_memory", lambda: 80 * GIB)
    monkeypatch.setenv("WORLD_SIZE", "2")
    argv = ["--model.model_name_or_path", str(tmp_path / "m"), "--data.dataset", "x", "--train.batch_size", "24"]
    parsed = lambda *more: train_prm.check(  # noqa: E731
        nested(train_prm.build_parser().parse_args([*argv, *more, "--ckpt.output_dir", str(tmp_path / "new")]))
    )
    options = parsed()
    filled = fill_in(options)
    expected = {"--ds.param_dtype": "bf16", "--ds.attn_implementation": "flash_attention_2", "--adam.lr": 6.4e-4}
    if not on_gpu:
        expected |= {"--ds.param_dtype": "fp32", "--ds.attn_implementation": "sdpa"}
    expected |= {"--train.micro_batch_size": 4, "--ds.zero_stage": 2, "--ds.adam_offload": False}
    assert filled == {**expected, "--model.gradient_checkpointing_enable": on_gpu}
    assert options.host.adam.lr == 6.4e-4 and options.host.model.gradient_checkpointing_enable is on_gpu

    given = ["--ds.param_dtype", "bf16", "--adam.lr", "1e-3", "--train.micro_batch_size", "2", "--ds.zero_stage", "3"]
    given += ["--ds.adam_offload", "--model.no_gradient_checkpointing", "--ds.attn_implementation", "eager"]
    options = parsed(*given)
    assert fill_in(options) == {}
    host = options.host
    assert (host.adam.lr, host.train.micro_batch_size, host.ds.zero_stage) == (1e-3, 2, 3)
    assert host.ds.adam_offload is True and host.model.gradient_checkpointing_enable is False
