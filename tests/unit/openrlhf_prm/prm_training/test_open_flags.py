"""What is made of flags that were left open: numbers worked out by hand, and published models on usual machines."""

import json
from pathlib import Path

import pytest
from documents import ROOT, table_rows
from transformers import LlamaConfig

from examples.cluster.shapes import SHAPES
from openrlhf_prm.cli import train_prm
from openrlhf_prm.cli.parser import nested
from openrlhf_prm.cluster.memory import shown
from openrlhf_prm.prm_training import open_flags
from openrlhf_prm.prm_training.heads import PRM_HEADS
from openrlhf_prm.prm_training.memory_plan import Setup, fullest_use
from openrlhf_prm.prm_training.open_flags import fill_in, fitting_setup, learning_rate

GIB = 2**30


def parsed(model: Path, *more: str):
    """The options of a training of `model`."""
    argv = ["--model.model_name_or_path", str(model), "--data.dataset", "x"]
    argv += ["--ckpt.output_dir", str(model.parent / "new"), *more]
    return train_prm.check(nested(train_prm.build_parser().parse_args(argv)))


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


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    """1.5B, 7B, 32B -> a folder with the shape of such a model; mixture: one whose passes need contents."""
    named = {"1.5B": "Qwen/Qwen2.5-Math-1.5B", "7B": "Qwen/Qwen2.5-Math-7B", "32B": "Qwen/Qwen2.5-32B"}
    configs = {size: SHAPES[name] for size, name in named.items()}
    configs["mixture"] = {
        **SHAPES["Qwen/Qwen2.5-Math-1.5B"],
        **{"architectures": ["Qwen2MoeForCausalLM"], "model_type": "qwen2_moe", "num_experts": 4},
    }
    configs["unheard_of"] = {"model_type": "unheard_of"}
    folder = tmp_path_factory.mktemp("models")
    for size, config in configs.items():
        (folder / size).mkdir()
        (folder / size / "config.json").write_text(json.dumps(config))
    return {size: folder / size for size in configs}


def planned(model: Path, processes: int, gib: float, *more: str) -> tuple[Setup, float]:
    """What is chosen on GPUs, and what a GPU holds then, in bytes."""
    options = parsed(model, *more)
    options.host.ds.param_dtype, options.host.train.micro_batch_size = "bf16", 4
    setup = fitting_setup(options, processes, gib * GIB)
    use, _ = fullest_use(options, setup, processes)
    return setup, 0.0 if use is None else use.total


def documented() -> dict[tuple[str, int], str]:
    """Model and GPUs -> what the page says of them."""
    rows = [
        [cell.strip() for cell in row.strip("|").split("|")]
        for row in table_rows((ROOT / "docs" / "training_prms.md").read_text())
    ]
    [head] = [row for row in rows if row[:2] == ["model", "1 GPU"]]
    counts = [int(cell.split()[0]) for cell in head[1:]]
    start = rows.index(head) + 2
    return {
        (row[0], count): cell for row in rows[start : start + 3] for count, cell in zip(counts, row[1:], strict=True)
    }


@pytest.mark.parametrize(("size", "processes"), documented())
def test_what_fits_80_gib_is_what_the_page_says(models, size, processes):
    setup, total = planned(models[size], processes, 80)
    said = f"ZeRO-{setup.zero_stage}{', offload' if setup.adam_offload else ''}, {shown(total)} GiB"
    assert documented()[size, processes] == (said if total <= 80 * GIB else "does not fit")
    assert setup.checkpointing


def test_the_plan_by_hand(models):
    """7,615,616,512 parameters on 8 devices, 4 x 2048 tokens: bf16 weights, the eighth of gradients and of 12 bytes of
    Adam, 500 million gradients on their way, a process, and of activations what the passes of this micro-batch hold.
    """
    n, setup = 7_615_616_512, Setup(2, False, True)
    options = parsed(models["7B"])
    options.host.ds.param_dtype, options.host.train.micro_batch_size = "bf16", 4
    use, unknown = fullest_use(options, setup, 8)
    parts = dict(use.parts["train_prm"])
    activations = parts.pop("activations")
    assert parts == {"weights": 2 * n, "optimizer": 12 * n / 8, "gradients": 2 * n / 8, "buffers": 2 * 500_000_000}
    assert 3 * GIB < activations < 5 * GIB and unknown == []
    kept, _ = fullest_use(options, Setup(2, False, False), 8)
    assert kept.parts["train_prm"]["activations"] > 10 * activations

    options.host.ds.lora.rank = 8
    lora, _ = fullest_use(options, setup, 8)
    assert lora.parts["train_prm"]["optimizer"] < 0.01 * parts["optimizer"]


def test_the_frozen_model_of_a_head_counts(models):
    options = parsed(models["1.5B"], "--prm.head", "implicit")
    options.host.ds.param_dtype, options.host.train.micro_batch_size = "bf16", 4
    for stage, held in ((2, 1), (3, 1 / 8)):
        use, _ = fullest_use(options, Setup(stage, False, True), 8)
        assert use.parts["train_prm"]["reference's weights"] == 2 * 1_543_714_304 * held


def test_what_was_given_stays(models):
    given = ["--ds.zero_stage", "2", "--ds.no_adam_offload", "--model.no_gradient_checkpointing"]
    assert planned(models["32B"], 8, 80, *given)[0] == Setup(2, False, False)
    assert planned(models["32B"], 8, 80, "--ds.no_adam_offload")[0] == Setup(3, False, True)
    assert planned(models["1.5B"], 8, 80, "--ds.adam_offload")[0] == Setup(2, True, True)


def test_what_cannot_be_told_is_said_and_no_number(models):
    options = parsed(models["mixture"])
    options.host.ds.param_dtype, options.host.train.micro_batch_size = "bf16", 4
    use, [unknown] = fullest_use(options, Setup(2, False, True), 8)
    assert "activations: the passes of" in unknown
    assert use.parts["train_prm"]["weights"] > 3 * GIB and not use.parts["train_prm"].get("activations")
    options = parsed(models["unheard_of"])
    options.host.ds.param_dtype, options.host.train.micro_batch_size = "bf16", 4
    use, [unknown] = fullest_use(options, Setup(2, False, True), 8)
    assert use is None and "train_prm: " in unknown
    assert fitting_setup(options, 8, 80 * GIB) == Setup(3, False, True)
    assert fitting_setup(options, 1, 80 * GIB) == Setup(2, False, True)


@pytest.mark.parametrize("on_gpu", [False, True])
def test_open_flags_are_filled_and_given_ones_stay(tmp_path, monkeypatch, on_gpu):
    LlamaConfig(hidden_size=64, num_hidden_layers=2, architectures=["LlamaForCausalLM"]).save_pretrained(tmp_path / "m")
    monkeypatch.setattr(open_flags, "on_cpu", lambda: not on_gpu)
    monkeypatch.setattr(open_flags, "flash_attn_fault", lambda: None)
    monkeypatch.setattr(open_flags, "_device_memory", lambda: 80 * GIB)
    monkeypatch.setenv("WORLD_SIZE", "2")
    batch = ("--train.batch_size", "24")
    options = parsed(tmp_path / "m", *batch)
    filled = fill_in(options)
    expected = {"--ds.param_dtype": "bf16", "--ds.attn_implementation": "flash_attention_2", "--adam.lr": 6.4e-4}
    if not on_gpu:
        expected |= {"--ds.param_dtype": "fp32", "--ds.attn_implementation": "sdpa"}
    expected |= {"--train.micro_batch_size": 4, "--ds.zero_stage": 2, "--ds.adam_offload": False}
    assert filled == {**expected, "--model.gradient_checkpointing_enable": on_gpu}
    assert options.host.adam.lr == 6.4e-4 and options.host.model.gradient_checkpointing_enable is on_gpu

    given = ["--ds.param_dtype", "bf16", "--adam.lr", "1e-3", "--train.micro_batch_size", "2", "--ds.zero_stage", "3"]
    given += ["--ds.adam_offload", "--model.no_gradient_checkpointing", "--ds.attn_implementation", "eager"]
    options = parsed(tmp_path / "m", *batch, *given)
    assert fill_in(options) == {}
    host = options.host
    assert (host.adam.lr, host.train.micro_batch_size, host.ds.zero_stage) == (1e-3, 2, 3)
    assert host.ds.adam_offload is True and host.model.gradient_checkpointing_enable is False
