"""`deliberate` by script: a golden chain, what holds for every chain, and every way to come to none."""

import random

import pytest
from scripted_roles import ScriptedModel, book, cast, stumbling, written, wrong_steps

from openrlhf_prm.data.questions import Question
from openrlhf_prm.generation.chains.checks import LengthOptions, faults
from openrlhf_prm.generation.chains.critics import ExactCritic, GeneratedCritic, NoCritic, PRMCritic, read_verdict
from openrlhf_prm.generation.chains.deliberate import Deliberate, DeliberateOptions
from openrlhf_prm.generation.chains.draft import ancestors
from openrlhf_prm.generation.chains.pieces import read_plan
from openrlhf_prm.tasks.arithmetic import check_steps, questions

SUM = Question("q", "Q: 12+35+48=?\n", "95")
EXACT = ExactCritic(check_steps)


def deliberate(critic=EXACT, **options):
    return Deliberate(DeliberateOptions(**options), critic)


def script(answers: dict[str, list[str]]):
    """Each role's answers, one after the other."""
    left = {name: iter(lines) for name, lines in answers.items()}
    return lambda role, prompt, seed: next(left[prompt.partition(" ")[0]])


def kinds(draft):
    return [part.kind for part in draft.parts]


GOLDEN = {
    "PLAN": ["1. the first two (10 words)\n2. the third"],
    "STEP": ["12+35=47", "47+48=85", "47+48: 7+8=15, 4+4+1=9 > 95", "Answer: 95"],
    "CHECK": ["Counting down from the end I get the same."],
}


def test_a_golden_chain():
    model = ScriptedModel(script(GOLDEN))
    draft, row = written(deliberate(), SUM, cast(model))
    assert kinds(draft) == ["plan", "step", "failed", "reflection", "step", "check", "answer"]
    assert draft.plan == ["the first two (10 words)", "the third"]
    lines = draft.response.split("\n")
    assert lines[0].startswith("Let me first plan") and lines[1:3] == ["1. the first two (10 words)", "2. the third"]
    assert lines[3:5] == ["12+35=47", "47+48=85"] and '"12+35=47"' in lines[5]
    assert lines[6:] == ["47+48: 7+8=15, 4+4+1=9 > 95", "Counting down from the end I get the same.", "Answer: 95"]
    nodes = [(part.node, part.parent, part.target) for part in draft.parts]
    assert nodes[1:5] == [(1, 0, None), (2, 1, None), (None, None, 1), (3, 1, None)] and nodes[6] == (4, 3, None)
    assert row["correct"] and row["fault"] is None and faults(row, LengthOptions()) == []
    assert row["shortcut"] == "12+35=47\n47+48: 7+8=15, 4+4+1=9 > 95\nAnswer: 95" and row["shortcut_tokens"] == 8
    asked = [event["role"] for event in row["events"]]
    assert asked == ["planner", *["elaborator", "critic"] * 4, "verifier"] and row["calls"] == 6
    wrong = row["events"][4]
    assert (wrong["verdict"], wrong["node"], wrong["target"]) == ("wrong", 2, 1)
    tries = [(event["parent"], event["try"]) for event in row["events"] if event["role"] == "elaborator"]
    assert tries == [(0, 0), (1, 0), (1, 1), (3, 0)]
    assert "STEP Q: 12+35+48=?\n|1. the first two (10 words)\n2. the third|12+35=47\n|- 47+48=85" in model.prompts[3]
    assert len(set(model.seeds)) == 6


def test_no_prompt_shows_the_label():
    """The label is a text that nobody writes; what is right is told by another one."""
    model = ScriptedModel(script(GOLDEN))
    draft, _ = written(deliberate(), Question("q", SUM.question, "LABEL"), cast(model), answer="95")
    assert draft.correct and len(model.prompts) == 6
    assert not any("LABEL" in prompt for prompt in model.prompts)


@pytest.mark.parametrize("tries", [0, 1, 5])
@pytest.mark.parametrize("mistakes", [0.0, 0.3, 0.6])
def test_what_holds_for_every_chain(tries, mistakes):
    kept = 0
    for index, (text, label) in enumerate(questions("train", 30, seed=1)):
        question = Question(str(index), text, label)
        draft, row = written(deliberate(tries=tries), question, cast(stumbling(mistakes), max_calls=60))
        assert row["calls"] <= 60
        steps = [part for part in draft.parts if part.kind in ("step", "failed", "answer")]
        parents = {part.node: part.parent for part in steps}
        assert len({part.text for part in steps}) == len(steps)
        for parent in {0, *parents}:
            attempts = [event for event in draft.events if event.role == "elaborator" and event.parent == parent]
            assert [event.attempt for event in attempts] == list(range(len(attempts))) and len(attempts) <= tries + 1
        texts, last = {part.node: part.text for part in steps}, 0
        for part in draft.parts:
            if part.kind == "reflection":
                line = ancestors(parents, last)
                assert part.target in line[1:]
                branch = [texts[node] for node in reversed(line[:-1])]
                wrong = wrong_steps(text, branch)
                given_up = part.text.startswith(tuple(book().phrases["dead_end"]))
                assert given_up or wrong[0] == len(branch) - 1, "a branch ends with its first wrong step"
                assert part.target == line[1] or len(line) > 2, "back to the last right step, or up"
                last = part.target
            elif part.node is not None:
                last = part.node
        if draft.fault is None:
            kept += 1
            path = [part.text for part in draft.parts if part.kind in ("step", "answer")]
            assert all(check_steps(text, path)) and faults(row, LengthOptions()) == []
    assert kept == 30 if mistakes == 0 else kept > 0 or tries < 5


def test_the_order_of_questions_changes_nothing():
    rows = [Question(str(index), *pair) for index, pair in enumerate(questions("train", 8, seed=2))]
    first = [written(deliberate(), one, cast(stumbling(0.4)))[1] for one in rows]
    random.Random(0).shuffle(rows)
    again = {one.id: written(deliberate(), one, cast(stumbling(0.4)))[1] for one in rows}
    assert [again[row["id"]] for row in first] == first
    other = [written(deliberate(), one, cast(stumbling(0.4), seed=1))[1] for one in rows]
    assert {row["id"]: row for row in other} != again


def test_where_no_try_is_left_it_goes_one_level_up():
    say = script({"STEP": ["12+35=47", "47+48=85", "47+48=75", "12+35: 2+5=7, 1+3=4 > 47", "47+48=95", "Answer: 95"]})
    draft, row = written(deliberate(tries=1, plan=False, recheck=False), SUM, cast(say))
    assert kinds(draft) == ["failed", "failed", "reflection", "failed", "reflection", "step", "step", "answer"]
    assert [part.target for part in draft.parts if part.kind == "reflection"] == [1, 0]
    assert faults(row, LengthOptions()) == [] and row["shortcut"].startswith("12+35: 2+5=7")


def test_repeated_empty_and_cut_steps_cost_a_try_and_are_no_part():
    say = script({"STEP": ["", "12+35=4<cut>", "12+35=47", "12+35=47", "47+48=95\nAnswer: 9<cut>", "Answer: 95"]})
    draft, row = written(deliberate(tries=2, plan=False, recheck=False), SUM, cast(say))
    assert kinds(draft) == ["step", "step", "answer"] and faults(row, LengthOptions()) == []
    verdicts = [event["verdict"] for event in row["events"] if event["role"] == "elaborator"]
    assert verdicts == ["empty", "cut", None, "repeated", None, None]


def test_a_wrong_answer_sends_the_chain_back():
    steps = ["12+35=47", "47+48=85", "Answer: 85", "47+48=95", "Answer: 95"]
    draft, row = written(deliberate(NoCritic(), plan=False, recheck=False), SUM, cast(script({"STEP": steps})))
    assert kinds(draft) == ["step", "failed", "failed", "reflection", "step", "answer"]
    assert [event["role"] for event in row["events"] if event["role"] not in ("critic", "elaborator")] == ["checker"]
    assert faults(row, LengthOptions()) == []
    draft, _ = written(deliberate(NoCritic(), plan=False, rounds=0), SUM, cast(script({"STEP": steps})))
    assert draft.fault == "wrong_answer"


class Scores:
    """A PRM by script: a score for each step's text."""

    def __init__(self, **scores):
        self.scores = scores

    async def score(self, question, steps):
        return [self.scores.get(step, 0.9) for step in steps]


def test_the_lowest_score_is_where_a_wrong_answer_came_from():
    critic = PRMCritic(Scores(**{"12+35=47": 0.95, "47+48=85": 0.6, "Answer: 85": 0.8}), tau=0.5)
    steps = ["12+35=47", "47+48=85", "Answer: 85", "47+48=95", "Answer: 95"]
    draft, row = written(deliberate(critic, plan=False, recheck=False), SUM, cast(script({"STEP": steps})))
    assert [part.target for part in draft.parts if part.kind == "reflection"] == [1]
    assert [part.score for part in draft.parts][:3] == [0.95, 0.6, 0.8] and faults(row, LengthOptions()) == []


def test_a_step_below_tau_is_taken_back():
    critic = PRMCritic(Scores(**{"47+48=85": 0.49}), tau=0.5)
    steps = ["12+35=47", "47+48=85", "47+48=95", "Answer: 95"]
    draft, _ = written(deliberate(critic, plan=False, recheck=False), SUM, cast(script({"STEP": steps})))
    assert kinds(draft) == ["step", "failed", "reflection", "step", "answer"]
    critic = PRMCritic(Scores(**{"12+35=47": None}), tau=0.5)
    assert written(deliberate(critic, plan=False), SUM, cast(script({"STEP": steps})))[0].fault == "unscored_step"


def test_a_generated_verdict_is_read_asked_for_again_and_given_up():
    said = {
        "STEP": ["12+35=37", "12+35=47", "47+48=95", "Answer: 95"],
        "JUDGE": ["Hm.", "The tens add up to 4.\nVERDICT: wrong at step 1", *["Fine.\nVERDICT: right"] * 3],
    }
    draft, row = written(deliberate(GeneratedCritic(1), plan=False, recheck=False), SUM, cast(script(said)))
    assert kinds(draft) == ["failed", "reflection", "step", "step", "answer"]
    assert "The tens add up to 4." in draft.parts[1].text
    verdicts = [(event["verdict"], event["target"]) for event in row["events"] if event["role"] == "critic"]
    assert verdicts == [("malformed", None), ("wrong", 0), ("right", None), ("right", None), ("right", None)]
    said = {"STEP": ["12+35=47"], "JUDGE": ["Hm."] * 2}
    draft, _ = written(deliberate(GeneratedCritic(1), plan=False), SUM, cast(script(said)))
    assert draft.fault == "malformed_verdict"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Sums fit.\nVERDICT: right", (None, "")),
        ("a\nIt is 15.\n**VERDICT: wrong at step 2**\n", (1, "It is 15.")),
        ("verdict: Wrong at step 1.", (0, "")),
        ("VERDICT: wrong at step 3", None),
        ("VERDICT: wrong at step 0", None),
        ("VERDICT: right\nVERDICT: wrong at step 2", (1, "VERDICT: right")),
        ("VERDICT: right\nor so", None),
        ("It is right", None),
        ("", None),
    ],
)
def test_verdicts(text, expected):
    verdict = read_verdict(text, 2)
    assert (verdict and (verdict.wrong, verdict.reason)) == expected


@pytest.mark.parametrize(
    ("text", "lines"),
    [("1. a (3 words)\n2) b\n", ["a (3 words)", "b"]), ("- a\n * b", ["a", "b"]), ("Sure!\n1: a", ["a"]), ("a", [])],
)
def test_plans(text, lines):
    assert read_plan(text) == lines


@pytest.mark.parametrize(
    ("said", "options", "fault"),
    [
        ({"PLAN": ["no list"] * 3}, {}, "malformed_plan"),
        ({"PLAN": ["- a<cut>"] * 3}, {}, "malformed_plan"),
        ({"PLAN": ["- a\n- b"] * 3}, {"max_parts": 1}, "malformed_plan"),
        ({"STEP": [""] * 3}, {"plan": False}, "no_try_left"),
        ({"STEP": ["12+35=46", "12+35=48", "12+35=49"]}, {"plan": False}, "no_try_left"),
        ({"STEP": ["12+35=47", "so 47"]}, {"plan": False, "max_steps": 2}, "no_answer"),
    ],
)
def test_ways_to_no_chain(said, options, fault):
    draft, row = written(deliberate(**options), SUM, cast(script(said)))
    assert (draft.fault, draft.response, draft.correct) == (fault, "", False)
    assert faults(row, LengthOptions()) == [fault] and row["events"]


def test_calls_are_limited():
    draft, row = written(deliberate(), SUM, cast(script(GOLDEN), max_calls=3))
    assert draft.fault == "too_many_calls" and row["calls"] == 3


def test_an_editor_joins_and_may_lose_nothing():
    def say(edited):
        left = script(GOLDEN)
        return lambda role, prompt, seed: edited(prompt[5:]) if prompt.startswith("EDIT ") else left(role, prompt, seed)

    draft, row = written(deliberate(edit=True), SUM, cast(say(lambda text: text.replace("Answer", "So:\nAnswer"))))
    assert "So:\nAnswer: 95" in draft.response and faults(row, LengthOptions()) == []
    _, row = written(deliberate(edit=True), SUM, cast(say(lambda text: text.replace("47+48=85", "47+48=86"))))
    assert faults(row, LengthOptions()) == ["unwritten_step"]
    _, row = written(deliberate(edit=True), SUM, cast(say(lambda text: "")))
    assert faults(row, LengthOptions()) == ["wrong_answer", "unwritten_step"]


def test_roles_that_are_asked():
    assert Deliberate.roles(DeliberateOptions()) == {"planner", "elaborator", "verifier"}
    only = DeliberateOptions(plan=False, recheck=False, edit=True)
    assert Deliberate.roles(only) == {"elaborator", "editor"}
