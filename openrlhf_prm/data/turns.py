"""Turns: what the policy wrote between two words of its environment, as `--train.agent_func_path` gives it.

A response of an agent is its turns joined. A reasoning step lies within one turn; what the environment wrote before a
turn is context for the PRM, and belongs to no step. A response without an agent is one turn.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from openrlhf_prm.data.steps import Step, split_steps


@dataclass(frozen=True)
class Turn:
    """tokens: the policy's own; before: text of the environment between the turn before and this one, "" for the first,
    before which the prompt stands. reward: what the agent pays for it, None where it pays for the response alone.
    """

    tokens: tuple[int, ...]
    before: str
    reward: float | None


def read_turns(output: Mapping, tokenizer, rewards: Sequence[float] | None = None) -> list[Turn]:
    """The turns of an executor's output, those without a token included.

    output: the host's fields; `rewards`, one number per turn, may stand beside its scalar `reward`. rewards: what was
    paid turn by turn, where the output does not say. Raises ValueError where their number is not that of the turns, or
    one is not finite.
    """
    ranges, tokens = output["action_ranges"], output["observation_tokens"]
    paid = output.get("rewards", rewards)
    if paid is not None:
        paid = [float(reward) for reward in paid]
        if len(paid) != len(ranges):
            raise ValueError(f"--train.agent_func_path: the agent gave {len(paid)} rewards for {len(ranges)} turns")
        if not all(map(math.isfinite, paid)):
            raise ValueError(f"--train.agent_func_path: rewards of turns must be finite numbers, got {paid}")
    turns: list[Turn] = []
    last_end = None
    for place, (start, end) in enumerate(ranges):
        before = "" if last_end is None else tokenizer.decode(tokens[last_end:start], skip_special_tokens=True)
        turns.append(Turn(tuple(tokens[start:end]), before, None if paid is None else paid[place]))
        last_end = end
    return turns


def steps_within(turns: Sequence[Turn], tokenizer, splitter: str | None) -> list[Step]:
    """The steps of all turns; spans count the policy's own tokens. Without a splitter each turn is one step. A turn
    without tokens has none.
    """
    steps: list[Step] = []
    offset = 0
    for turn in turns:
        tokens = list(turn.tokens)
        if splitter is not None:
            inner = split_steps(tokens, tokenizer, splitter)
        else:
            inner = [Step(tokenizer.decode(tokens, skip_special_tokens=True), 0, len(tokens), len(tokens))]
            inner = inner if tokens else []
        steps += [Step(step.text, offset + step.start, offset + step.end, offset + step.text_end) for step in inner]
        offset += len(tokens)
    return steps


def texts_for_prm(turns: Sequence[Turn], steps: Sequence[Step], observations: bool) -> list[str]:
    """What the PRM reads of each step: its text, behind what the environment wrote since the step before it where
    `observations` are shown. What stands between two turns without a step counts, too.
    """
    before: dict[int, str] = {}
    offset, pending = 0, ""
    for turn in turns:
        pending += turn.before
        if turn.tokens:
            before[offset] = pending
            pending = ""
        offset += len(turn.tokens)
    return [(before.get(step.start, "") if observations else "") + step.text.rstrip() for step in steps]


def joined_with_next(texts: Sequence[str], seen: Sequence[bool]) -> list[str]:
    """The texts of steps that show something, each behind those of the steps before it that show nothing: what the
    environment wrote before these is context still.
    """
    read, before = [], ""
    for text, shows in zip(texts, seen, strict=True):
        before += text
        if shows:
            read.append(before)
            before = ""
    return read


def paid_turns(turns: Sequence[Turn]) -> tuple[tuple[int, ...], tuple[float, ...] | None]:
    """Where turns end, in the policy's own tokens, and what each was paid; None where the agent pays for the response
    alone. Turns without a token are not there: their reward goes to the turn before them, or the first one.
    """
    ends: list[int] = []
    rewards: list[float] = []
    offset, pending = 0, 0.0
    for turn in turns:
        offset += len(turn.tokens)
        if turn.tokens:
            ends.append(offset)
            rewards.append((turn.reward or 0.0) + pending)
            pending = 0.0
        elif ends:
            rewards[-1] += turn.reward or 0.0
        else:
            pending += turn.reward or 0.0
    paid = bool(turns) and all(turn.reward is not None for turn in turns)
    return tuple(ends), tuple(rewards) if paid and ends else None


def steps_of_turns(turn_ends: Sequence[int], steps: Sequence[Step]) -> list[list[int]]:
    """The places of each turn's steps; turn_ends: where turns end, in the policy's own tokens."""
    starts = (0, *turn_ends)
    spans = zip(starts, turn_ends, strict=False)
    return [[place for place, step in enumerate(steps) if start < step.end <= end] for start, end in spans]
