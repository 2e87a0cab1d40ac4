"""Backbones beside those of `test_families` on real vLLM: scores of a random checkpoint, whole and grown step by step,
against a plain transformers forward."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_backbones import BACKBONES, CONTEXT, Backbone
from tiny_prm import worst
from transformers import AutoModel, AutoModelForCausalLM

from vllm_prm.families import load_family
from vllm_prm.scorer import StepScorer

pytestmark = pytest.mark.stack

ENGINE_ARGS = {
    "dtype": "float32",
    "max_model_len": CONTEXT,
    "enforce_eager": True,
    "kv_cache_memory_bytes": 32 << 20,
    "max_num_seqs": 16,
    "max_num_batched_tokens": 512,
}
READS = {"placeholder_token": "<extra_0>", "reward_tokens": ["+", "-"], "step_separator": "\n"}
QUESTION = "How many birds are there, if 3 + 4 come and 2 go?"
STEPS = ["First, 3 + 4 = 7.", "", "Then we take (7 - 2)\n\nwhich is 5.", "This is no <extra_0>.", "So: 5"]
WITH_HEAD = ["Qwen3 MoE", "Gemma 3"]


ITEMS = [(QUESTION, STEPS), ("Another?", ["one step"]), (QUESTION, ["a"] * 150)]
GROWN = [(QUESTION, STEPS[:count]) for count in range(1, len(STEPS) + 1)]


def by_hand(family, score):
    """Scores of whole and of grown solutions by `score(rendered)`. Asked for before an engine starts: vLLM changes the
    classes of transformers that it runs, for the rest of the process."""
    return [score(family.render(*item)) for item in (*ITEMS, *GROWN)]


def largest_difference(scorer, expected):
    """Between `scorer`, on whole and on grown solutions, and `expected`; the grown ones read the caches."""
    scores = scorer.score(ITEMS)
    assert max(scores[0]) - min(scores[0]) > 0.01, "a checkpoint that scores everything alike would prove nothing"
    scorer.reset_cache()
    before = scorer.usage.computed_tokens, scorer.usage.prompt_tokens
    scores += [scorer.score([item])[0] for item in GROWN]
    assert scorer.usage.computed_tokens - before[0] < scorer.usage.prompt_tokens - before[1]
    return max(worst(*pair) for pair in zip(scores, expected, strict=True))


@pytest.fixture
def started():
    """Starts scorers, which end with the test."""
    scorers = []

    def start(*given, **options):
        scorers.append(StepScorer.from_pretrained(*given, **options, **ENGINE_ARGS))
        return scorers[-1]

    yield start
    for scorer in scorers:
        scorer.shutdown()


def reference(kind, path):
    """The checkpoint in transformers, with plain attention: the fused one leaves Gemma 2's soft cap out."""
    return kind.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()


@torch.no_grad()
def forward(model, token_ids):
    return model(torch.tensor([token_ids]))


@pytest.mark.parametrize("name", BACKBONES)
def test_rows_of_the_language_model_head(tmp_path, started, name):
    path = str(BACKBONES[name].save(tmp_path / "lm"))
    model = reference(AutoModelForCausalLM, path)
    family = load_family(path, "placeholder", options=READS)

    def score(rendered):
        logits = forward(model, rendered.token_ids).logits[0, rendered.step_positions]
        return logits[:, family.reward_token_ids].softmax(-1)[:, 0].tolist()

    expected = by_hand(family, score)
    figure = largest_difference(started(path, "placeholder", family_options=READS), expected)
    print(f"parity {name}: {figure:.1e}")
    assert figure < 1e-4


def with_head(backbone: Backbone, path):
    """What `train-prm` saves: the backbone of the checkpoint, `score` beside it, and the architecture called so."""
    backbone.save(path)
    tensors = load_file(path / "model.safetensors")
    tensors.pop("lm_head.weight", None)
    tensors |= {"score.weight": torch.randn(2, 64) / 4, "score.bias": torch.randn(2)}
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((path / "config.json").read_text())
    model = reference(AutoModel, path)
    config["architectures"] = [type(model).__name__.removesuffix("Model") + "ForTokenClassification"]
    (path / "config.json").write_text(json.dumps(config))
    return model, tensors


@pytest.mark.parametrize("name", WITH_HEAD)
def test_a_head_of_its_own(tmp_path, started, name):
    model, tensors = with_head(BACKBONES[name], tmp_path / "head")
    family = load_family(str(tmp_path / "head"))
    assert family.name == "token_classification"

    def score(rendered):
        hidden = forward(model, rendered.token_ids).last_hidden_state[0, rendered.step_positions]
        logits = torch.nn.functional.linear(hidden, tensors["score.weight"], tensors["score.bias"])
        return logits.softmax(-1)[:, 1].tolist()

    expected = by_hand(family, score)
    figure = largest_difference(started(str(tmp_path / "head")), expected)
    print(f"parity of a head on {name}: {figure:.1e}")
    assert figure < 1e-4


@pytest.mark.parametrize("name", ["Gemma 2"])
def test_sums_of_log_probabilities(tmp_path, started, name):
    """Under the whole vocabulary, after Gemma's soft cap."""
    paths = [BACKBONES[name].save(tmp_path / f"{seed}", seed=seed) for seed in (0, 1)]
    options = {"reference": str(paths[1]), "beta": 0.05, "boundaries": "exact"}
    family = load_family(str(paths[0]), "implicit", options=options)
    models = [reference(AutoModelForCausalLM, path) for path in paths]

    def score(rendered):
        tokens = torch.tensor(rendered.token_ids)
        policy, reference = (
            forward(model, rendered.token_ids).logits[0, :-1].log_softmax(-1).gather(1, tokens[1:, None])[:, 0].double()
            for model in models
        )
        totals = (0.05 * (policy - reference)).cumsum(0)  # entry t is of token t + 1
        ends = [rendered.first, *rendered.step_positions]
        return [(totals[end - 1] - totals[begin - 1]).item() for begin, end in zip(ends, ends[1:], strict=False)]

    expected = by_hand(family, score)
    figure = largest_difference(started(str(paths[0]), "implicit", family_options=options), expected)
    print(f"parity of sums on {name}: {figure:.1e}")
    assert figure < 1e-4
