"""The heads' forward passes on the host's `Actor`, in this process: packing, gradient checkpointing and LoRA change
nothing that they should not, and what is saved is what was computed."""

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from tiny_chat_lm import save_tiny_chat_lm

from openrlhf_prm.cli.parser import nested
from openrlhf_prm.cli.train_prm import build_parser, check
from openrlhf_prm.data.formats_in import LabelledSteps
from openrlhf_prm.prm_training.dataset import DataReport, StepLabelDataset
from openrlhf_prm.prm_training.heads import PRM_HEADS
from openrlhf_prm.prm_training.model import add_lora, load_actor, merged
from openrlhf_prm.prm_training.trainer import step_losses

pytestmark = pytest.mark.stack

# Lengths and numbers of steps differ, and one step writes the head's own tag.
SOLUTIONS = [
    ("How many?", ["1 + 1 = 2.", "So 2"], [1.0, 0.0]),
    ("And then, if one of them goes?", ["2 - 1 = 1", "", "a <extra_0> inside", "Answer: 1."], [1.0, 0.5, 0.25, 1.0]),
    ("?", ["none"], [0.0]),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(save_tiny_chat_lm(tmp_path_factory.mktemp("qwen2") / "lm", "qwen2", seed=3))


class Trained:
    """A head on a model, and a batch of it; `forward` is what the trainer does."""

    def __init__(self, model: str, head: str, output: str, *flags: str):
        argv = ["--model.model_name_or_path", model, "--data.dataset", "x", "--ckpt.output_dir", output]
        argv += ["--prm.head", head, "--ds.param_dtype", "fp32", "--ds.attn_implementation", "sdpa", *flags]
        options = check(nested(build_parser().parse_args(argv)))
        self.host = options.host
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(model)
        tokenizer.pad_token = tokenizer.eos_token
        self.head = options.head(options.head_options, model, tokenizer)
        rows = [LabelledSteps(q, steps, t[-1:] if self.head.outcome else t) for q, steps, t in SOLUTIONS]
        self.data = StepLabelDataset(
            rows, DataReport(), self.head.family, tokenizer.pad_token_id, 512, outcome=self.head.outcome
        )
        torch.manual_seed(0)
        strategy = SimpleNamespace(args=self.host)
        self.actor = load_actor(self.head.load, model, strategy, self.host, vocabulary=len(tokenizer))
        torch.manual_seed(1)
        for layer in self.head.layers:  # the usual start would put every score at 0.5
            torch.nn.init.normal_(self.actor.model.get_submodule(layer).weight)
        self.reference = None
        if self.head.reference():
            self.reference = load_actor(self.head.load, model, strategy, self.host).eval()
            for parameter in self.reference.parameters():
                parameter.data.mul_(0.9)
        self.actor.eval()

    def forward(self, *rows: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        batch = self.data.collate([self.data[row] for row in rows])
        raw = self.head.raw(self.actor, self.reference, batch)
        log_odds = self.head.log_odds(raw, batch)
        return raw, log_odds, step_losses(log_odds, batch.targets).sum()

    def gradients(self) -> dict[str, torch.Tensor]:
        self.actor.zero_grad()
        self.forward(0, 1, 2)[2].backward()
        return {name: p.grad.clone() for name, p in self.actor.named_parameters() if p.grad is not None}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys() and one
    for name in one:
        assert (one[name] - other[name]).norm() <= 1e-3 * one[name].norm() + 1e-6, name


@pytest.mark.parametrize("head", PRM_HEADS)
def test_a_batch_is_its_solutions_packed_or_padded(model, tmp_path, head):
    """Neither padding nor a neighbour in the same row changes a number; one label per target."""
    padded = Trained(model, head, str(tmp_path / "prm"))
    packed = Trained(model, head, str(tmp_path / "prm"), "--ds.packing_samples")
    assert packed.actor.packing_samples and not padded.actor.packing_samples
    whole, log_odds, _ = padded.forward(0, 1, 2)
    alone = torch.cat([padded.forward(row)[0] for row in range(3)])
    assert whole.shape == (7, len(whole[0])) and log_odds.shape == (3 if padded.head.outcome else 7,)
    assert whole.std() > 0.05
    torch.testing.assert_close(whole, alone, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(packed.forward(0, 1, 2)[0], whole, rtol=1e-4, atol=1e-4)
    same(packed.gradients(), padded.gradients())


@pytest.mark.parametrize("head", PRM_HEADS)
def test_log_odds_are_those_of_the_served_score(model, tmp_path, head):
    trained = Trained(model, head, str(tmp_path / "prm"))
    raw, log_odds, _ = trained.forward(0, 1, 2)
    scores, log_odds = torch.tensor(trained.head.family.decode(raw.tolist())), log_odds.detach()
    if head == "implicit":  # per step what it adds; the sum over a solution is the value that is trained
        for row, (start, end) in enumerate([(0, 2), (2, 6), (6, 7)]):
            steps = trained.head.family.decode(raw[start:end].tolist())
            assert log_odds[row].item() == pytest.approx(sum(steps), abs=1e-4)
        return
    torch.testing.assert_close(log_odds.sigmoid(), scores, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head", ["placeholder", "qwen_prm"])
def test_gradient_checkpointing_gives_the_same_gradients(model, tmp_path, head):
    trained = Trained(model, head, str(tmp_path / "prm"))
    plain = trained.gradients()
    trained.actor.train()
    trained.actor.gradient_checkpointing_enable()
    calls = []
    layer = trained.actor.model.get_submodule("model.layers.0.self_attn")
    layer.register_forward_hook(lambda *_: calls.append(1))
    again = trained.gradients()
    assert len(calls) == 2, "the layer is to be computed again in the backward pass"
    same(plain, again)


@pytest.mark.parametrize("head", ["token_classification", "qwen_prm", "implicit"])
def test_merged_lora_is_the_model_that_was_trained(model, tmp_path, head):
    trained = Trained(model, head, str(tmp_path / "prm"))
    before = trained.forward(0, 1, 2)[0]
    lora = SimpleNamespace(rank=4, alpha=8, dropout=0.0, target_modules="all-linear")
    add_lora(trained.actor, trained.head, lora)
    torch.testing.assert_close(trained.forward(0, 1, 2)[0], before, rtol=1e-4, atol=1e-4)  # B is 0 at first
    learnt = {name for name, p in trained.actor.model.named_parameters() if p.requires_grad}
    of_head = {name for name in learnt if "lora_" not in name}
    parts = ("weight", "bias")
    assert of_head <= {f"base_model.model.{layer}.{part}" for layer in trained.head.layers for part in parts}
    assert {name.rpartition(".")[0].removeprefix("base_model.model.") for name in of_head} == set(trained.head.layers)
    assert any("lora_" in name for name in learnt)
    for name, parameter in trained.actor.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    with_updates = trained.forward(0, 1, 2)[0]
    assert (with_updates - before).abs().max() > 0.01
    peft = trained.actor.model
    peft.get_base_model().save_pretrained(tmp_path / "merged", state_dict=merged(peft, peft.state_dict()))
    names = set(load_file(tmp_path / "merged" / "model.safetensors"))
    assert not any("lora" in name or "base_layer" in name for name in names)
    again = Trained(model, head, str(tmp_path / "prm"))
    again.actor = load_actor(again.head.load, str(tmp_path / "merged"), SimpleNamespace(args=again.host), again.host)
    again.actor.eval()
    torch.testing.assert_close(again.forward(0, 1, 2)[0], with_updates, rtol=1e-3, atol=1e-3)
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert config["architectures"] == [type(peft.get_base_model()).__name__]


@torch.no_grad()
def test_a_value_head_starts_the_hosts_critic(model, tmp_path):
    from openrlhf.models import get_llm_for_sequence_regression

    trained = Trained(model, "value_head", str(tmp_path / "prm"))
    trained.actor.model.save_pretrained(tmp_path / "prm")
    critic = get_llm_for_sequence_regression(str(tmp_path / "prm"), "critic", attn_implementation="sdpa").float().eval()
    batch = trained.data.collate([trained.data[1]])
    tokens = batch.token_ids.shape[1]
    # The critic gives the values before each action; one more token makes every step's end such a place.
    ids = torch.cat([batch.token_ids, batch.token_ids[:, -1:]], dim=1)
    values = critic(ids, torch.ones(1, tokens), torch.ones_like(ids))[0, batch.step_tokens]
    expected = trained.forward(1)[0][:, 0]
    torch.testing.assert_close(values, expected, rtol=0.05, atol=0.1)  # the host loads bf16
    assert expected.std() > 0.3
