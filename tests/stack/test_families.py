"""Every family on real vLLM: step scores of a random checkpoint, whole and grown step by step, against a plain
transformers forward with the family's formula written out in `tiny_checkpoints`.
"""

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoints import CASES, CONTEXT, PlainForward

from vllm_prm.errors import ContextLengthError
from vllm_prm.scorer import StepScorer

pytestmark = pytest.mark.stack

ENGINE_ARGS = {
    "dtype": "float32",
    "enforce_eager": True,
    "kv_cache_memory_bytes": 32 << 20,
    "max_num_seqs": 16,
    "max_num_batched_tokens": 512,
}
QUESTION = "How many birds are there, if 3 + 4 come and 2 go?"
STEPS = ["First, 3 + 4 = 7.", "", "Then we take (7 - 2)\n\nwhich is 5.", "This is no <extra_0>, nor a ки.", "So: 5"]


class Loaded:
    """A case's checkpoint, its scorer, and the reference."""

    def __init__(self, name, folder):
        self.case = CASES[name]
        torch.manual_seed(self.case.seed)
        self.path = self.case.save(folder)
        self.scorer = StepScorer.from_pretrained(
            str(self.path), self.case.named, family_options=self.case.options, **ENGINE_ARGS
        )
        self.family = self.scorer.family
        assert self.family.name == self.case.family
        self.reference = PlainForward(self.case, self.path, self.family)

    def worst(self, question, steps, scores):
        expected = self.reference(question, steps)
        assert len(scores) == len(expected) == len(steps)
        return max(abs(a - b) for a, b in zip(scores, expected, strict=True))


@pytest.fixture(scope="module", params=list(CASES))
def loaded(request, tmp_path_factory):
    loaded = Loaded(request.param, tmp_path_factory.mktemp("family"))
    yield loaded
    loaded.scorer.shutdown()


def test_scores_match_a_plain_forward(loaded, request):
    items = [(QUESTION, STEPS), ("Another?", ["one step"]), (QUESTION, [""]), (QUESTION, ["a"] * loaded.case.many)]
    *scores, none = loaded.scorer.score([*items, (QUESTION, [])])
    assert none == []
    whole = max(loaded.worst(*item, got) for item, got in zip(items, scores, strict=True))
    assert max(scores[0]) - min(scores[0]) > 0.01, "a checkpoint that scores everything alike would prove nothing"

    loaded.scorer.reset_cache()
    before = loaded.scorer.usage.as_dict()
    grown = 0.0
    for count in range(1, len(STEPS) + 1):
        [got] = loaded.scorer.score([(QUESTION, STEPS[:count])])
        grown = max(grown, loaded.worst(QUESTION, STEPS[:count], got))
    usage = loaded.scorer.usage
    hits = usage.score_cache_hits - before["score_cache_hits"]
    # PathFinder reads two or three numbers for a step, the others one.
    assert hits == sum(range(len(STEPS))) or (loaded.family.name == "pathfinder" and hits > 2 * sum(range(len(STEPS))))
    assert usage.computed_tokens - before["computed_tokens"] < usage.prompt_tokens - before["prompt_tokens"]
    print(f"parity {request.node.callspec.id}: whole {whole:.1e}, grown {grown:.1e}")
    assert max(whole, grown) < 1e-4


@pytest.mark.parametrize("loaded", ["Universal-PRM", "PathFinder-PRM"], indirect=True)
def test_prefixes_beyond_the_context_have_no_score(loaded):
    """The first pass may fit where the second does not."""
    steps = ["word " * 40] * 30
    with pytest.raises(ContextLengthError, match="max_model_len"):
        loaded.scorer.score([(QUESTION, steps)])
    [scores] = loaded.scorer.score([(QUESTION, steps)], truncate=True)
    fitting = scores.index(None)
    assert 0 < fitting and scores[fitting:] == [None] * (len(steps) - fitting)
    assert loaded.worst(QUESTION, steps[:fitting], scores[:fitting]) < 1e-4


@pytest.mark.parametrize("loaded", ["math_shepherd", "qwen_prm"], indirect=True)
def test_beyond_the_context_is_an_error_or_none(loaded):
    """A language-model head and a head of its own."""
    steps = ["word " * 40] * 30
    with pytest.raises(ContextLengthError, match="max_model_len"):
        loaded.scorer.score([(QUESTION, steps)])
    [scores] = loaded.scorer.score([(QUESTION, steps)], truncate=True)
    fitting = sum(at < CONTEXT for at in loaded.family.render(QUESTION, steps).step_positions)
    assert 0 < fitting < len(steps)
    assert scores[fitting:] == [None] * (len(steps) - fitting)
    assert loaded.worst(QUESTION, steps[:fitting], scores[:fitting]) < 1e-4


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("score.2.bias", "lacks weights of the PRM's head: score.2.bias"),
        ("model.embed_tokens.weight", "lacks the weights of model.embed_tokens.weight"),
    ],
)
def test_an_incomplete_checkpoint_is_refused(tmp_path, name, message):
    """Left uninitialised it would give scores, too."""
    path = CASES["qwen_prm"].save(tmp_path)
    tensors = load_file(path / "model.safetensors")
    del tensors[name]
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=message):
        StepScorer.from_pretrained(str(path), **ENGINE_ARGS)
    from vllm.distributed import cleanup_dist_env_and_memory

    cleanup_dist_env_and_memory()
