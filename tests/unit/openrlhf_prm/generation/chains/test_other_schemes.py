"""`plan_then_write` and `tree_to_chain` by script, and critics that roll out."""

import asyncio
import itertools
import random

import pytest
from scripted_roles import ScriptedModel, cast, stumbling, written, wrong_steps

from openrlhf_prm.data.questions import Question
from openrlhf_prm.generation.chains.asking import Answer
from openrlhf_prm.generation.chains.checks import LengthOptions, faults
from openrlhf_prm.generation.chains.critics import ExactCritic, GeneratedCritic, NoCritic, PRMCritic, RolloutCritic
from openrlhf_prm.generation.chains.deliberate import Deliberate, DeliberateOptions
from openrlhf_prm.generation.chains.draft import ancestors
from openrlhf_prm.generation.chains.plan_then_write import PlanThenWrite, PlanThenWriteOptions, read_outline
from openrlhf_prm.generation.chains.rows import label_records
from openrlhf_prm.generation.chains.tree_to_chain import TreeToChain, TreeToChainOptions
from openrlhf_prm.tasks.arithmetic import check_steps, questions

SUM = Question("q", "Q: 12+35+48=?\n", "95")
ESSAY = Question("e", "Write about rivers", "")
EXACT = ExactCritic(check_steps)


def kinds(draft):
    return [part.kind for part in draft.parts]


# -- plan_then_write -------------------------------------------------------------------------------------------------


def essay(*said, question=ESSAY, **options):
    answers = iter(said)
    model = ScriptedModel(lambda role, prompt, seed: next(answers))
    scheme = PlanThenWrite(PlanThenWriteOptions(**{"check_answer": False, **options}), NoCritic())
    return (*written(scheme, question, cast(model, separator="\n\n")), model)


OUTLINE = "1. Sources (200 words)\n2. Mouths (about 300 words)"


def test_parts_are_written_in_view_of_what_stands():
    draft, row, model = essay(OUTLINE, "Springs rise.\n\nThey do.", "The sea waits.")
    assert draft.response == "Springs rise.\n\nThey do.\n\nThe sea waits." and draft.correct is None
    assert faults(row, LengthOptions()) == [] and kinds(draft) == ["step", "answer"]
    numbered = "1. Sources (200 words)\n2. Mouths (about 300 words)"
    assert model.prompts[1].endswith(f"WRITE Write about rivers|{numbered}||Sources|200")
    assert model.prompts[2].endswith(f"|{numbered}|Springs rise.\n\nThey do.|Mouths|300")
    assert label_records(row) == [] and row["shortcut"] == row["response"]


def test_a_part_that_is_empty_cut_or_a_repetition_is_asked_for_again():
    draft, row, model = essay(OUTLINE, "", "a<cut>", "a b", "a  b", "c")
    assert draft.response == "a b\n\nc" and len(set(model.seeds)) == 6
    said = [(event["verdict"], event["node"]) for event in row["events"][1:]]
    assert said == [("empty", None), ("cut", None), (None, 1), ("repeated", None), (None, 2)]
    assert essay(OUTLINE, "", "", "")[0].fault == "empty_part"
    assert essay(OUTLINE, "a", "a", "a", "a")[0].fault == "repeated_part"
    assert essay(OUTLINE, "a<cut>", tries=0)[0].fault == "cut_part"


def test_an_answer_is_judged_where_one_is_asked_for():
    right = essay(OUTLINE, "Adding.", "Answer: 95", question=SUM, check_answer=True)
    assert faults(right[1], LengthOptions()) == [] and right[0].correct is True
    assert [record["hard_labels"] for record in label_records(right[1])] == [[1, 1]]
    wrong = essay(OUTLINE, "Adding.", "Answer: 94", question=SUM, check_answer=True)
    assert faults(wrong[1], LengthOptions()) == ["wrong_answer"]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("1. a (200 words)\n2. b [1 word].", 2),
        ("1. a (200 words)\n2. b", 0),
        ("1. a (0 words)", 0),
        ("1. (200 words)", 0),
        ("a (200 words)", 0),
        ("", 0),
    ],
)
def test_outlines(text, count):
    assert len(read_outline(text)) == count


def test_an_outline_that_cannot_be_read_ends_it():
    assert essay("no", "1. a", "1. (2 words)")[0].fault == "malformed_plan"
    assert essay(OUTLINE, OUTLINE, OUTLINE, max_parts=1)[0].fault == "malformed_plan"


# -- tree_to_chain ---------------------------------------------------------------------------------------------------


def tree(critic=EXACT, **options):
    return TreeToChain(TreeToChainOptions(**{"recheck": False, **options}), critic)


def steps_by_try(**at):
    """The elaborator's steps by what was accepted so far, in the order of the tries."""
    given = {place: iter(lines) for place, lines in at.items()}

    def say(role, prompt, seed):
        done = prompt.split("|")[2].strip().split("\n")[-1]
        return next(given[{"": "start", "12+35=47": "second", "47+48=95": "third"}[done]])

    return say


GOLDEN = {
    "start": ["12+35=37", "12+35=47", "12+35=57"],
    "second": ["47+48=95", "47+48=85", "47+48=95"],
    "third": ["Answer: 94", "Answer: 95", ""],
}


def test_a_golden_tree():
    draft, row = written(tree(width=3, beam=1, detours=9), SUM, cast(steps_by_try(**GOLDEN)))
    failed = [part.text for part in draft.parts if part.kind == "failed"]
    assert failed == ["12+35=37", "12+35=57", "47+48=85", "Answer: 94"]
    assert [part.target for part in draft.parts if part.kind == "reflection"] == [0, 0, 2, 4]
    assert kinds(draft)[-4:] == ["step", "failed", "reflection", "answer"] and faults(row, LengthOptions()) == []
    assert row["shortcut"] == "12+35=47\n47+48=95\nAnswer: 95" and row["calls"] == 9
    verdicts = [event["verdict"] for event in row["events"] if event["role"] == "elaborator"]
    assert verdicts[-4:] == ["repeated", None, None, "empty"]
    assert [record["hard_labels"] for record in label_records(row)][1:] == [[0], [0], [1, 0], [1, 1, 0]]


def test_detours_are_limited_and_the_most_tempting_come_first():
    class Scores:
        async def score(self, question, steps):
            return [{"12+35=37": 0.1, "12+35=57": 0.4, "47+48=85": 0.3}.get(step, 0.9) for step in steps]

    for detours, expected in ((0, []), (1, ["Answer: 94"]), (2, ["12+35=57", "Answer: 94"])):
        scheme = tree(PRMCritic(Scores(), 0.5), width=3, beam=1, detours=detours)
        draft, row = written(scheme, SUM, cast(steps_by_try(**GOLDEN)))
        assert [part.text for part in draft.parts if part.kind == "failed"] == expected
        assert faults(row, LengthOptions()) == [] and draft.parts[-1].score == 0.9


def test_a_branch_of_several_steps_is_told_whole():
    """A critic that sees nothing: the wrong answer at the end of a branch is what shows it."""
    at = {
        "": ["12+35=37", "12+35=47"],
        "12+35=37": ["37+48=85"] * 2,
        "12+35=47": ["47+48=95"] * 2,
        "37+48=85": ["Answer: 85"] * 2,
        "47+48=95": ["Answer: 95"] * 2,
    }
    given = {place: iter(lines) for place, lines in at.items()}
    say = lambda role, prompt, seed: next(given[prompt.split("|")[2].strip().split("\n")[-1]])  # noqa: E731
    draft, row = written(tree(ExactCritic(lambda q, steps: [True] * len(steps)), width=2), SUM, cast(say))
    assert kinds(draft) == ["failed"] * 3 + ["reflection", "step", "step", "answer"]
    assert draft.parts[3].target == 0 and faults(row, LengthOptions()) == []
    assert [record["hard_labels"] for record in label_records(row)][1] == [1, 1, 0]


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("critic", [EXACT, RolloutCritic(8)], ids=["exact", "rollouts"])
def test_what_holds_for_every_chain(width, critic):
    kept = 0
    for index, (text, label) in enumerate(questions("train", 15, seed=4)):
        scheme = tree(critic, width=width, recheck=True)
        draft, row = written(scheme, Question(str(index), text, label), cast(stumbling(0.4)))
        if draft.fault is not None:
            assert draft.fault == "no_try_left"
            continue
        kept += 1
        assert faults(row, LengthOptions()) == []
        steps = [part for part in draft.parts if part.kind in ("step", "failed", "answer")]
        assert sum(part.kind == "failed" for part in steps) <= 3
        texts, parents = (
            {part.node: value(part) for part in steps} for value in (lambda p: p.text, lambda p: p.parent)
        )
        assert all(check_steps(text, [part.text for part in steps if part.kind != "failed"]))
        for before, part in itertools.pairwise(draft.parts):
            if part.kind == "reflection":
                branch = [texts[node] for node in reversed(ancestors(parents, before.node)[:-1])]
                assert wrong_steps(text, branch)[:1] == [len(branch) - 1] and part.target == before.parent
    assert kept > 3 or width == 1


def test_ways_to_no_chain():
    assert written(tree(width=1), SUM, cast(lambda *_: ""))[0].fault == "no_try_left"
    assert written(tree(width=1), SUM, cast(lambda *_: "12+35=46"))[0].fault == "no_try_left"
    endless = itertools.count()
    say = lambda role, prompt, seed: f"hm {next(endless)}"  # noqa: E731
    accepts = ExactCritic(lambda question, steps: [True] * len(steps))
    assert written(tree(accepts, max_steps=3), SUM, cast(say))[0].fault == "no_answer"
    draft, row = written(tree(accepts), SUM, cast(say, max_calls=9))
    assert draft.fault == "too_many_calls" and row["calls"] == 9


class Unsteady(ScriptedModel):
    """Takes a while for each answer, another one each time."""

    async def answer(self, role, system, prompt, seed) -> Answer:
        for _ in range(random.randint(0, 7)):
            await asyncio.sleep(0)
        return await super().answer(role, system, prompt, seed)


@pytest.mark.parametrize(
    "scheme",
    [
        tree(RolloutCritic(3)),
        tree(GeneratedCritic(2)),
        Deliberate(DeliberateOptions(), RolloutCritic(3)),
        tree(RolloutCritic(3), width=6, beam=5),
    ],
    ids=["tree", "tree with verdicts", "deliberate", "wide"],
)
@pytest.mark.parametrize("max_calls", [20, 200])
def test_who_answers_first_changes_nothing(scheme, max_calls):
    say = stumbling(0.3)

    def judging(role, prompt, seed):
        if not prompt.startswith("JUDGE"):
            return say(role, prompt, seed)
        return ("Hm", "VERDICT: right", "VERDICT: wrong at step 1")[seed % 3]

    for index, (text, label) in enumerate(questions("train", 4, seed=5)):
        question = Question(str(index), text, label)
        rows = [written(scheme, question, cast(Unsteady(judging), max_calls=max_calls))[1] for _ in range(3)]
        assert rows[0] == rows[1] == rows[2]


def test_rollouts_score_a_step():
    said = iter(["12+35=37", "12+35=47", "47+48=95", "Answer: 95"])
    rollouts = iter(["Answer: 85"] * 2 + ["47+48=95\nAnswer: 95", "Answer: 94"] + ["Answer: 95<cut>", "Answer: 95"])
    say = lambda role, prompt, seed: next(said if prompt.startswith("STEP") else rollouts)  # noqa: E731
    model = ScriptedModel(say)
    scheme = Deliberate(DeliberateOptions(plan=False, recheck=False), RolloutCritic(2))
    draft, row = written(scheme, SUM, cast(model))
    assert kinds(draft) == ["failed", "reflection", "step", "step", "answer"]
    assert [part.score for part in draft.parts] == [0.0, None, 0.5, 0.5, 1.0]
    finishers = [event["verdict"] for event in row["events"] if event["role"] == "finisher"]
    assert finishers == ["wrong", "wrong", "right", "wrong", "wrong", "right"]
    assert faults(row, LengthOptions()) == [] and "FINISH Q: 12+35+48=?\n|12+35=37\n" in model.prompts[1]
