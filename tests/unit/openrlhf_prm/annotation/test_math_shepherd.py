"""Math-Shepherd labels from scripted rollouts, worked by hand; without the solutions' endings (`test_endings`)."""

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_engine import EOS, RIGHT, WRONG, Characters, ScriptedEngine, annotate, is_right, sample
from tiny_tokenizers import mistral_tokenizer

from openrlhf_prm.annotation.corruption import change_a_digit, corrupted_solutions
from openrlhf_prm.annotation.math_shepherd import MathShepherd, MathShepherdOptions
from openrlhf_prm.annotation.rollouts import QuestionRollouts, Rollout, Solution
from openrlhf_prm.cluster.workers import Completion


def label_with(script: dict[str, list[Completion]], **options):
    defaults = {"solutions_per_question": 1, "rollouts": 4, "max_new_tokens": 100, "count_endings": False}
    found, engine = annotate(MathShepherd, script, **{**defaults, **options})
    return found.solutions, engine, found


def test_shares_of_right_rollouts():
    script = {
        "Q?": [sample("a\nb\nc=7")],
        "Q?a\n": [RIGHT, RIGHT, RIGHT, WRONG],
        "Q?a\nb\n": [WRONG, WRONG, RIGHT, WRONG],
    }
    [solution], engine, found = label_with(script)
    assert solution.response == "a\nb\nc=7"
    assert solution.steps == ["a", "b", "c=7"]
    assert solution.mc_values == solution.soft_labels == [0.75, 0.25, 1.0]
    assert solution.hard_labels == [1, 1, 1]
    assert solution.rollouts == [4, 4, 0]
    assert solution.correct and not solution.truncated
    assert solution.right == [3, 1, 0] and solution.visits == [0, 0, 0]
    assert found.usage == {"rollouts": 8, "rollout_tokens": 32, "reused_rollouts": 0, "solution_tokens": 8}
    assert (found.root.right, found.root.rollouts) == (1, 1)


def test_a_prefix_leaves_less_room_for_its_rollouts():
    script = {"Q?": [sample("a\nc=7")], "Q?a\n": [RIGHT] * 4}
    _, engine, _ = label_with(script, max_new_tokens=10)
    assert engine.max_tokens == {"Q?": 10, "Q?a\n": 8}


def test_without_a_limit_a_response_has_what_the_question_leaves_of_the_context(monkeypatch):
    monkeypatch.setattr(ScriptedEngine, "context", 12, raising=False)
    script = {"Q?": [sample("a\nc=7")], "Q?a\n": [RIGHT] * 4}
    _, engine, _ = label_with(script, max_new_tokens=None)
    assert engine.max_tokens == {"Q?": 10, "Q?a\n": 8}


def test_all_wrong_stops_at_the_first_zero():
    script = {"Q?": [sample("a\nb\nc\nd=8")], "Q?a\n": [RIGHT, WRONG, WRONG, WRONG], "Q?a\nb\n": [WRONG] * 4}
    [solution], _, found = label_with(script)
    assert solution.mc_values == [0.25, 0.0, 0.0, 0.0]
    assert solution.hard_labels == [1, 0, 0, 0]
    assert solution.rollouts == [4, 4, 0, 0]
    assert found.usage["rollouts"] == 8


def test_without_stopping_recovery_is_measured():
    script = {
        "Q?": [sample("a\nb\nc=8")],
        "Q?a\n": [WRONG] * 4,
        "Q?a\nb\n": [RIGHT, WRONG, WRONG, WRONG],
    }
    [solution], _, _ = label_with(script, stop_at_zero=False)
    assert solution.mc_values == [0.0, 0.25, 0.0]
    assert solution.rollouts == [4, 4, 0]


def test_a_right_solution_is_never_stopped():
    script = {"Q?": [sample("a\nb\nc=7")], "Q?a\n": [WRONG] * 4, "Q?a\nb\n": [RIGHT] * 4}
    [solution], _, _ = label_with(script)
    assert solution.mc_values == [0.0, 1.0, 1.0]


def test_all_right():
    script = {"Q?": [sample("a\nb=7")], "Q?a\n": [RIGHT] * 4}
    [solution], _, _ = label_with(script)
    assert solution.mc_values == [1.0, 1.0]


class FixedChoices:
    """Random choices that are known: always the last."""

    def __init__(self, seed):
        pass

    def choice(self, options):
        return options[-1]


def test_a_changed_digit_is_labelled_by_what_follows_it(monkeypatch):
    monkeypatch.setattr("openrlhf_prm.annotation.corruption.random.Random", FixedChoices)
    script = {
        "Q?": [sample("a1\nb23\nc=7")],
        "Q?a1\n": [RIGHT, RIGHT, RIGHT, WRONG],
        "Q?a1\nb23\n": [RIGHT] * 4,
        # The last digit of the last step before the end, 3, becomes the last other digit, 9; then the policy goes on.
        "Q?a1\nb29\n": [sample("d\nc=7"), WRONG, WRONG, WRONG],
        "Q?a1\nb29\nd\n": [WRONG, RIGHT, WRONG, WRONG],
    }
    [own, corrupted], engine, found = label_with(script, corrupted_per_question=1)
    assert own.mc_values == [0.75, 1.0, 1.0]
    assert corrupted.steps == ["a1", "b29", "d", "c=7"] and corrupted.correct
    # What followed the change is the first of its four rollouts; the first step's are those of the other solution.
    assert corrupted.mc_values == [0.75, 0.25, 0.25, 1.0]
    assert sum(engine.requests["Q?a1\n"]) == sum(engine.requests["Q?a1\nb29\n"]) == 4
    assert (found.root.right, found.root.rollouts) == (1, 1), "a corrupted solution says nothing about the question"


@pytest.mark.parametrize("text", ["c=7", "a\nb\nc=7"])
def test_without_a_digit_before_the_last_step_nothing_is_corrupted(text):
    script = {"Q?": [sample(text)], "Q?a\n": [RIGHT] * 4, "Q?a\nb\n": [RIGHT] * 4}
    [own], _, _ = label_with(script, corrupted_per_question=3)
    assert own.steps == text.split("\n")


def test_equal_corruptions_are_labelled_once(monkeypatch):
    monkeypatch.setattr("openrlhf_prm.annotation.corruption.random.Random", FixedChoices)
    script = {"Q?": [sample("1\nc=7")], "Q?1\n": [RIGHT] * 4, "Q?9\n": [WRONG] * 4}
    solutions, _, _ = label_with(script, corrupted_per_question=2)
    assert [solution.steps for solution in solutions] == [["1", "c=7"], ["9", "x=8"]]
    assert solutions[1].mc_values == [0.0, 0.0]


def corrupted_of(tokenizer, text, step_ends, max_new_tokens):
    """The corrupted solution of one solution, with an engine that ends at once."""

    class Ending:
        async def generate(self, prompt, **sampling):
            assert sampling["max_tokens"] >= 1
            return [Completion("", [EOS], False)]

    options = MathShepherdOptions(max_new_tokens=max_new_tokens)
    state = QuestionRollouts(Ending(), tokenizer, is_right, options, "Q?", "7")
    token_ids = tuple(state.tokens(text))
    solution = Solution(Rollout(token_ids, True, False), text, text.splitlines(), step_ends(token_ids))
    return state, asyncio.run(corrupted_solutions(state, [solution], 1))


def test_a_changed_step_is_written_as_within_a_text():
    """A SentencePiece tokenizer begins every text with a space."""
    tokenizer = mistral_tokenizer()
    newline = tokenizer("a\n", add_special_tokens=False)["input_ids"][-1]

    def ends(ids):
        return [index + 1 for index, token in enumerate(ids) if token == newline] + [len(ids)]

    state, [corrupted] = corrupted_of(tokenizer, "a\nb2\nc=7", ends, 100)
    prefix = list(corrupted.rollout.token_ids[:-1])
    text = state.text(prefix)
    assert text.startswith("a\nb") and text != "a\nb2\n" and prefix == state.tokens(text)


def test_a_change_that_leaves_no_room_is_left_out():
    class LongNumbers(Characters):
        """A number takes two tokens a digit once it was changed."""

        def __call__(self, text, add_special_tokens):
            ids = super().__call__(text, add_special_tokens)["input_ids"]
            return {"input_ids": [token for i in ids for token in ((i, i) if chr(i) in "013456789" else (i,))]}

    _, found = corrupted_of(LongNumbers(), "2\nc", lambda ids: [2, 3], 3)
    assert found == []
    _, [roomy] = corrupted_of(LongNumbers(), "2\nc", lambda ids: [2, 3], 4)
    assert len(roomy.rollout.token_ids) == 4


@given(text=st.text("ab12 \n", max_size=8), seed=st.integers(0, 99))
def test_one_digit_changes(text, seed):
    changed = change_a_digit(text, random.Random(seed))
    different = [(a, b) for a, b in zip(text, changed, strict=True) if a != b]
    assert len(different) == any(character.isdigit() for character in text)
    assert all(a.isdigit() and b.isdigit() for a, b in different)


@pytest.mark.parametrize(("text", "value"), [("x=7", 1.0), ("x=8", 0.0)])
def test_one_step_needs_no_rollout(text, value):
    [solution], _, found = label_with({"Q?": [sample(text)]})
    assert (solution.steps, solution.mc_values, solution.rollouts) == ([text], [value], [0])
    assert found.usage["rollouts"] == 0


def test_truncated_rollouts_and_solutions_are_unfinished():
    script = {"Q?": [sample("a\nb=7", truncated=True)], "Q?a\n": [RIGHT, sample("x=7", truncated=True), WRONG, WRONG]}
    [solution], _, _ = label_with(script)
    assert solution.mc_values == [0.25, 0.0]
    assert solution.truncated and not solution.correct


def test_equal_prefixes_share_their_rollouts():
    script = {
        "Q?": [sample("a\nb\nc=7"), sample("a\nd\nc=7"), sample("a\nb=7")],
        "Q?a\n": [RIGHT, RIGHT, WRONG, WRONG],
        "Q?a\nb\n": [RIGHT] * 4,
        "Q?a\nd\n": [RIGHT, WRONG, WRONG, WRONG],
    }
    solutions, engine, found = label_with(script, solutions_per_question=3)
    assert [solution.mc_values for solution in solutions] == [[0.5, 1.0, 1.0], [0.5, 0.25, 1.0], [0.5, 1.0]]
    assert set(map(len, engine.requests.values())) == {1}
    assert found.usage["rollouts"] == 12


@pytest.mark.parametrize("empty", [Completion("", [EOS], False), Completion("\n", [10, EOS], False)])
def test_a_response_without_text_has_no_steps(empty):
    [solution], _, _ = label_with({"Q?": [empty]})
    assert solution.steps == solution.mc_values == solution.rollouts == []
    assert not solution.correct


def test_errors_of_the_engine_are_raised():
    with pytest.raises(RuntimeError, match="unexpected prompt"):
        label_with({"Q?": [sample("a\nb=7"), sample("c\nd=7")]}, solutions_per_question=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rollouts": 0}, "rollouts must be at least 1, got 0"),
        ({"solutions_per_question": 0}, "solutions_per_question must be"),
        ({"corrupted_per_question": -1}, "corrupted_per_question must be at least 0, got -1"),
        ({"max_new_tokens": 0}, "max_new_tokens must be"),
        ({"temperature": -1.0}, "temperature must be at least 0"),
        ({"temperature": 0.0}, "all samples equal"),
        ({"top_p": 0.0}, "top_p must lie in 0..1, 0 excluded"),
        ({"splitter": "nothing"}, "splitter must be one of auto"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        MathShepherdOptions(**options)
