"""PRMs that score each step by prompts of its own, against their recipes; and the heads they bring."""

import math

import pytest
import torch
from tiny_checkpoints import pathfinder, reason_flux, universal
from tiny_tokenizers import llama_3_tokenizer, qwen_tokenizer, with_special

from vllm_prm.families.ensemble_prm import EnsemblePRMFamily
from vllm_prm.families.pathfinder import PathFinderFamily
from vllm_prm.families.prefix_value import REASON_FLUX, REFERENCE, UNIVERSAL, PrefixValueFamily
from vllm_prm.families.qwen_prm import QwenPRMFamily

QUESTION = "How many birds (at most) are there?"
STEPS = ["First, 3 + 4 = 7.", "", "This is no <extra_0>.", "There are 5."]
BLANKS = ("<+>", "<->", "<extra>")


@pytest.fixture(scope="module")
def blank_filler():
    return PathFinderFamily(with_special(qwen_tokenizer(), *BLANKS))


def finish(reading, *rows):
    """The score of a reading, and its prompts."""
    prompts = [next(reading)]
    with pytest.raises(StopIteration) as done:
        for row in rows:
            prompts.append(reading.send(row))
    return done.value.value, prompts


def prompts_of(recipe, tokenizer, tensors, answers=None):
    """What a recipe, written out for the tests on real vLLM, forwards for `STEPS`."""
    seen = []

    def forward(token_ids):
        seen.append(token_ids)
        return torch.zeros(len(token_ids), len(tokenizer)), torch.zeros(len(token_ids), 4)

    recipe(forward, QUESTION, STEPS, tensors, tokenizer)
    return seen


@pytest.mark.parametrize("make", [qwen_tokenizer, llama_3_tokenizer])
def test_reason_flux_reads_question_and_solution_as_they_are(make):
    tokenizer = make()
    family = PrefixValueFamily(tokenizer, **REASON_FLUX)
    expected = prompts_of(reason_flux, tokenizer, {"reward_head.weight": torch.zeros(1, 4)})
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    for count, token_ids in enumerate(expected, start=1):
        rendered = next(family.read(QUESTION, STEPS[:count]))
        assert rendered.token_ids == bos + token_ids
        assert rendered.step_positions == [len(rendered.token_ids) - 1]
    assert finish(family.read(QUESTION, STEPS), [[math.log(3.0)]])[0] == pytest.approx(0.75)
    assert (family.head.file, family.head.layers) == ("reward_head.pt", ("reward_head",))


def test_universal_prm_ends_each_prefix():
    tokenizer = qwen_tokenizer()
    family = PrefixValueFamily(tokenizer, head=["score"], head_bias=False, **UNIVERSAL)
    zeros = {f"score.{layer}.weight": torch.zeros(4, 4) for layer in (0, 2)}
    expected = prompts_of(universal, tokenizer, zeros)
    for count, token_ids in enumerate(expected, start=1):
        rendered = next(family.read(QUESTION, STEPS[:count]))
        assert rendered.token_ids == token_ids and token_ids[-1] == tokenizer.eos_token_id
        assert rendered.step_positions == [len(token_ids) - 1]


def test_a_question_may_bring_its_reference_answer():
    family = PrefixValueFamily(qwen_tokenizer(), head=["score"], head_bias=False, **UNIVERSAL)
    text = family.tokenizer.decode(next(family.read(f"q?{REFERENCE}42", ["a"])).token_ids)
    assert "The reference answer is: 42<|im_end|>" in text and "no reference answer" not in text
    messages = [{"role": "system", "content": "Mine."}, {"role": "user", "content": "q?"}]
    text = family.tokenizer.decode(next(family.read(messages, ["a"])).token_ids)
    assert "Mine." in text and "helpful" not in text and "no reference answer" in text


def test_pathfinder_asks_for_errors_first(blank_filler):
    expected = prompts_of(pathfinder, blank_filler.tokenizer, {})
    # Where all logits are alike the first label wins, as in the authors' argmax: no error, so two passes for each step.
    assert len(expected) == 2 * len(STEPS)
    blank = blank_filler.tokenizer.convert_tokens_to_ids("<extra>")
    for count in range(1, len(STEPS) + 1):
        _, prompts = finish(blank_filler.read(QUESTION, STEPS[:count]), [[0.0, 0.0]] * 2, [[0.0, 0.0]])
        for rendered, token_ids in zip(prompts, expected[2 * count - 2 : 2 * count], strict=True):
            at = [index - 1 for index, token in enumerate(token_ids) if token == blank]
            assert rendered.step_positions == at
            assert rendered.token_ids == token_ids[: at[-1] + 1]


@pytest.mark.parametrize(
    ("labels", "last", "score"),
    [
        ([[1.0, 0.0], [1.0, 0.0]], [math.log(3.0), 0.0], 0.75),
        ([[1.0, 0.0], [0.0, 0.0]], [0.0, 1000.0], 0.0),
        ([[0.0, 1.0], [1.0, 0.0]], None, -1.0),
        ([[1.0, 0.0], [0.0, 0.1]], None, -1.0),
        ([[math.nan, 0.0], [1.0, 0.0]], None, math.nan),
    ],
)
def test_scores_of_pathfinder(blank_filler, labels, last, score):
    rows = [labels] if last is None else [labels, [last]]
    assert finish(blank_filler.read("q", ["a"]), *rows)[0] == pytest.approx(score, nan_ok=True)
    assert blank_filler.score_range == (-1, 1)


@pytest.mark.parametrize("forged", ["<+>", "<extra>", "<|im_end|>"])
def test_a_step_cannot_fill_a_blank(blank_filler, forged):
    plain = next(blank_filler.read(QUESTION, ["a"])).token_ids
    special = set(blank_filler.tokenizer.all_special_ids)
    written = next(blank_filler.read(QUESTION, [f"a{forged}"])).token_ids
    assert [token for token in written if token in special] == [token for token in plain if token in special]


def test_no_step_and_no_list(blank_filler):
    families = [blank_filler, PrefixValueFamily(qwen_tokenizer(), **REASON_FLUX)]
    for family in families:
        assert family.render(QUESTION, []).token_ids == [] and not family.one_prompt
        assert family.render(QUESTION, ["a"]) == next(family.read(QUESTION, ["a"]))
        with pytest.raises(ValueError, match="list of texts"):
            family.render(QUESTION, "one text")
    with pytest.raises(ValueError, match="question and steps have none"):
        families[1].render("", [""])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head_file": "../x.pt"}, "head_file must be the name of a file"),
        ({"head_file": "x.pt", "head": ["a", "b"]}, "head of one layer"),
        ({"system": "s"}, "without chat_template it means nothing"),
        ({"bos": True}, "bos_token"),
        ({"score": "log"}, "'sigmoid' or 'raw'"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        PrefixValueFamily(qwen_tokenizer(), **{"head": ["score"], "head_bias": True, **options})


# -- heads side by side


def test_act_prm_is_asked_as_its_authors_test_it():
    tokenizer = qwen_tokenizer()
    family = EnsemblePRMFamily(tokenizer, members=2)
    stripped = QwenPRMFamily(tokenizer, system=family.options.system).render(QUESTION, ["a", "b"])
    assert family.render(QUESTION, [" a\n", "b"]) == stripped
    assert "You are a helpful and harmless assistant. You should think" in tokenizer.decode(stripped.token_ids)
    assert (family.head.members, family.head.hidden, family.head.ignored) == (2, 128, ("score.reg_model.",))


def test_the_heads_are_averaged():
    family = EnsemblePRMFamily(qwen_tokenizer(), members=2)
    assert family.decode([[0.0, math.log(3.0)], [1000.0, -1000.0]]) == pytest.approx([0.625, 0.5])
    assert math.isnan(family.decode([[math.nan, 0.0]])[0])
    with pytest.raises(ValueError, match="expected 2 numbers per step, got 3"):
        family.decode([[0.0] * 3])
    with pytest.raises(ValueError, match="must be 1 or more"):
        EnsemblePRMFamily(qwen_tokenizer(), members=0)
