"""Text that cannot fit is refused before it is tokenised, and nothing that fits is."""

import asyncio
import math
import threading
from types import SimpleNamespace

import pytest
from letter_prm import FakeAsyncEngine, Letters, expected
from tiny_tokenizers import qwen_tokenizer

from vllm_prm.errors import ContextLengthError
from vllm_prm.scorer import StepScorer
from vllm_prm.text_bounds import INLINE, characters, fitting, most_characters


def test_characters_but_for_what_families_take_off():
    assert characters("ab", ["c", " de\n", ""]) == 5
    assert characters([{"role": "user", "content": " ab"}], []) == 2


def test_a_solution_that_may_fit_is_left_alone():
    steps = ["a" * 5, "b" * 5]
    assert fitting("q", steps, most=11, tokens=9, truncate=False) is steps
    assert fitting("q", [*steps, " " * 9999], most=11, tokens=9, truncate=False)[2] == " " * 9999


def test_one_that_cannot_is_refused_or_cut():
    steps = ["a" * 5, "b" * 5, "c"]
    with pytest.raises(ContextLengthError, match="12 characters in 3 steps, more than the 9 tokens.*truncate=True"):
        fitting("q", steps, most=11, tokens=9, truncate=False)
    assert fitting("q", steps, most=11, tokens=9, truncate=True) == steps[:2]
    assert fitting("q", steps, most=10, tokens=9, truncate=True) == steps[:1], "steps behind a cut one have no score"
    assert fitting("q" * 50, steps, most=11, tokens=9, truncate=True) == []


def test_nothing_that_fits_is_beyond_the_bound():
    """Composed characters, and the longest tokens of a vocabulary."""
    tokenizer = qwen_tokenizer()
    for text in (" \n\n\n\n" * 50, "e\u0301\u0323" * 50, "<|endoftext|>" * 50, "Å" * 50):
        tokens = len(tokenizer(text, add_special_tokens=False)["input_ids"])
        assert len(text) <= most_characters(SimpleNamespace(tokenizer=tokenizer), tokens)
    assert most_characters(SimpleNamespace(), 1) == math.inf


class Watched(Letters):
    """Says from which thread it was asked to render."""

    def __init__(self):
        super().__init__()
        self.threads = []

    def render(self, question, steps):
        self.threads.append(threading.current_thread())
        return super().render(question, steps)


def test_a_long_text_is_tokenised_beside_the_event_loop_and_one_far_too_long_not_at_all():
    family = Watched()
    engine = FakeAsyncEngine()
    engine.max_model_len = 2 * INLINE
    scorer = StepScorer(engine, family)
    long, short = ["a" * (INLINE + 1)], ["a" * 9]
    assert asyncio.run(scorer.score_async("q", long)) == expected("q", long)
    assert family.threads != [threading.main_thread()]
    family.threads.clear()
    assert asyncio.run(scorer.score_async("q", short)) == expected("q", short)
    assert family.threads == [threading.main_thread()]
    family.threads.clear()
    far = "a" * (most_characters(family, 2 * INLINE) + 1)
    with pytest.raises(ContextLengthError, match="characters in 2 steps"):
        asyncio.run(scorer.score_async("q", ["a", far]))
    assert family.threads == []
    assert asyncio.run(scorer.score_async("q", ["a", far, "b"], truncate=True)) == [*expected("q", ["a"]), None, None]
    assert asyncio.run(scorer.score_async(far, ["a"], truncate=True)) == [None]
