"""Chains within token budgets, with a scripted policy of one token a character; $ ends a text."""

import asyncio

import pytest
from scripted_engine import EOS, sample

from openrlhf_prm.evaluation.budgets import BudgetOptions, Spent, Thinker, budget_plot, summarize_budgets


class Characters:
    def __call__(self, text, add_special_tokens):
        return {"input_ids": [ord(character) for character in text]}

    def decode(self, tokens, skip_special_tokens):
        return "".join(chr(token) for token in tokens if token != EOS)


class Policy:
    """Answers in the order of the script, cut at the limit."""

    def __init__(self, *texts):
        self.texts, self.asked = list(texts), []

    async def __call__(self, tokens, name, limit):
        self.asked.append((Characters().decode(tokens, True), limit))
        text = self.texts.pop(0)
        return sample(text[:limit], truncated=len(text) + 1 > limit)


def spent(policy, **options):
    thinker = Thinker(options=BudgetOptions(budget_wait="Hm", **options), generate=policy, tokenizer=Characters())
    rows = asyncio.run(thinker.spent("Q", lambda text: text.rstrip().endswith("7")))
    return {(row.mode, row.budget): (row.correct, row.tokens) for row in rows}


def test_one_chain_serves_all_budgets():
    policy = Policy("=8", "so =7")
    got = spent(policy, budgets=("2", "4", "9", "11"))
    # "=8" and its ending are three tokens; "=8\nHm\n" six; "=8\nHm\nso =7" eleven.
    assert policy.asked == [("Q", 11), ("Q=8\nHm\n", 5)]
    assert [got["cut", budget] for budget in (2, 4, 9, 11)] == [(False, 2), (False, 3), (False, 3), (False, 3)]
    assert [got["wait", budget] for budget in (2, 4, 9, 11)] == [(False, 2), (False, 4), (False, 9), (True, 11)]


def test_a_chain_that_is_longer_than_the_budget_ends_there():
    got = spent(Policy("12=7 or not 3"), budgets=("4", "8"))
    assert got["cut", 4] == got["wait", 4] == (True, 4) and got["cut", 8] == got["wait", 8] == (False, 8)


def test_a_chain_goes_on_as_often_as_there_is_room():
    policy = Policy("a", "", "", "")
    got = spent(policy, budgets=("12",))
    assert [asked for asked, _ in policy.asked] == ["Q", "Qa\nHm\n", "Qa\nHm\n\nHm\n"]
    assert got["cut", 12] == (False, 2) and got["wait", 12] == (False, 12), "the last line is cut"


def test_an_unfinished_chain_is_asked_for_its_answer():
    policy = Policy("=8 and", "7", "7", "7")
    got = spent(policy, budgets=("4", "7"), budget_answer="Answer ", budget_answer_tokens=3)
    assert ("Q=8 aAnswer ", 3) in policy.asked
    assert got["cut", 4] == (True, 4 + 7 + 2), "budget, question and answer with its ending"
    assert got["cut", 7] == (False, 7), "it finished by itself"
    assert got["wait", 7] == (True, 7 + 7 + 2)


def test_curves_and_gains_by_hand():
    places = [("cut", 64), ("cut", 128), ("wait", 64), ("wait", 128)]

    def question(*verdicts):
        return [Spent(mode, budget, bool(v), budget) for (mode, budget), v in zip(places, verdicts, strict=True)]

    got = summarize_budgets([question(0, 1, 0, 0), question(1, 1, 1, 0)])
    assert [(row["budget"], row["accuracy"], row["tokens"]) for row in got["cut"]["curve"]] == [
        (64, 0.5, 64),
        (128, 1, 128),
    ]
    assert got["cut"]["gain"]["gain"] == 0.5 and got["wait"]["gain"]["gain"] == -0.5
    assert got["cut"]["curve"][1]["interval"][0] < 1.0, "two questions settle nothing"
    plot = budget_plot({"policy": got})
    assert [curve.label for curve in plot.curves] == ["cut", "wait"]
    assert list(plot.curves[0].points) == [(64, 0.5), (128, 1.0)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budgets": ("64", "x")}, "budgets must be whole numbers above 0"),
        ({"budgets": ("0", "4")}, "budgets must be whole numbers above 0"),
        ({"budgets": ("64", "64")}, "budgets must rise"),
        ({"budgets": ("64", "32")}, "budgets must rise"),
        ({"budgets": ("64",), "budget_wait": " "}, "budget_wait is empty"),
    ],
)
def test_budgets_that_are_none(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        BudgetOptions(**options)


def test_a_budget_beyond_the_context_is_refused():
    options = BudgetOptions(budgets=("64",), budget_answer="A:", budget_answer_tokens=10)
    options.check_room(["Q" * 24], Characters(), 100)
    with pytest.raises(ValueError, match="^--eval.budgets 64: with a question of 25 tokens and 12 for the answer"):
        options.check_room(["", "Q" * 25], Characters(), 100)
    BudgetOptions().check_room([], None, 10)
