"""Turns of an agent's response, by hand. Tokens are letters: upper case by the policy, lower by the environment."""

import pytest

from openrlhf_prm.data.turns import (
    Turn,
    paid_turns,
    read_turns,
    steps_within,
    texts_for_prm,
)


class Letters:
    """Each token is a character's code; 0 is special and decodes to nothing."""

    def decode(self, ids, **_):
        return "".join(chr(token) for token in ids if token)


def output(text: str, **more) -> dict:
    """action_ranges: the runs of upper case letters and line breaks; "|" begins a turn without tokens."""
    tokens, ranges, inside = [], [], False
    for letter in text:
        if letter == "|":
            ranges.append((len(tokens), len(tokens)))
            inside = False
            continue
        own = letter.isupper() or letter in "\n#"
        if own and not inside:
            ranges.append((len(tokens), len(tokens)))
        inside = own
        tokens.append(0 if letter == "#" else ord(letter))
        if own:
            ranges[-1] = (ranges[-1][0], len(tokens))
    return {"observation_tokens": tokens, "action_ranges": ranges, **more}


def turns(text: str, **more) -> list[Turn]:
    return read_turns(output(text, **more), Letters())


def codes(text: str) -> tuple[int, ...]:
    return tuple(map(ord, text))


def test_turns_are_the_policys_and_what_stood_between_them():
    assert turns("promptABobsCend") == [Turn(codes("AB"), "", None), Turn(codes("C"), "obs", None)]
    assert turns("prompt") == []
    assert turns("AB", rewards=[0.5]) == [Turn(codes("AB"), "", 0.5)]


@pytest.mark.parametrize(
    ("rewards", "message"),
    [([1.0], "1 rewards for 2 turns"), ([1.0, float("nan")], "finite"), ([1.0, float("inf")], "finite")],
)
def test_rewards_must_be_numbers_one_per_turn(rewards, message):
    with pytest.raises(ValueError, match=f"--train.agent_func_path.*{message}"):
        turns("AobsB", rewards=rewards)


def test_a_step_never_straddles_two_turns():
    own = turns("qA\nBoCD\n\nEo\nF")  # the environment wrote "o" twice; a line of the policy goes on behind it
    steps = steps_within(own, Letters(), "newline")
    assert [(step.text, step.start, step.end) for step in steps] == [
        ("A\n", 0, 2),
        ("B", 2, 3),
        ("CD\n\n", 3, 7),
        ("E", 7, 8),
        ("\nF", 8, 10),
    ]


def test_turns_as_units():
    steps = steps_within(turns("A\nB\noCo|D#"), Letters(), None)
    assert [(step.text, step.start, step.end) for step in steps] == [("A\nB\n", 0, 4), ("C", 4, 5), ("D", 5, 7)]
    assert steps_within([], Letters(), None) == steps_within([], Letters(), "newline") == []
    assert steps_within([Turn((), "", None)], Letters(), None) == []


def test_the_prm_reads_what_the_environment_wrote_before_the_next_step():
    own = turns("A\nBseenC\nD")
    steps = steps_within(own, Letters(), "newline")
    assert texts_for_prm(own, steps, True) == ["A", "B", "seenC", "D"]
    assert texts_for_prm(own, steps, False) == ["A", "B", "C", "D"]


def test_an_observation_with_separators_stays_one_context():
    """Line breaks of the environment cut no step: turns are split one by one."""
    own = [Turn(codes("A"), "", None), Turn(codes("B"), "x\ny\n\nStep 3:\n", None)]
    assert texts_for_prm(own, steps_within(own, Letters(), "newline"), True) == ["A", "x\ny\n\nStep 3:\nB"]


def test_special_tokens_of_an_environment_are_no_text():
    """Such as the end of its message, or a tag that a PRM's family would take for the end of a step."""
    seen = {"observation_tokens": [*codes("A"), 0, *codes("x"), 0, 0, *codes("B")], "action_ranges": [(0, 1), (5, 6)]}
    assert read_turns(seen, Letters()) == [Turn(codes("A"), "", None), Turn(codes("B"), "x", None)]


def test_observations_around_a_turn_without_tokens_are_kept():
    own = [Turn(codes("A"), "", None), Turn((), "x", None), Turn(codes("B"), "y", None)]
    assert texts_for_prm(own, steps_within(own, Letters(), "newline"), True) == ["A", "xyB"]


def test_where_turns_end_and_what_they_were_paid():
    assert paid_turns(turns("ABoC", rewards=[0.25, 1.0])) == ((2, 3), (0.25, 1.0))
    assert paid_turns(turns("ABoC")) == ((2, 3), None)
    assert paid_turns([]) == ((), None)
    # Without a token there is no place for a reward: it goes to the turn before, or the first that has one.
    assert paid_turns(turns("|oAo|", rewards=[0.5, 0.25, 0.125])) == ((1,), (0.875,))
    assert paid_turns(turns("|", rewards=[0.5])) == ((), None)


def test_fifty_turns():
    own = turns("o".join("A" * 50), rewards=[0.02] * 50)
    assert paid_turns(own) == (tuple(range(1, 51)), (0.02,) * 50)
    assert len(steps_within(own, Letters(), "newline")) == 50
