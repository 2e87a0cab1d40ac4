"""Families that end each step with a mark and read it there: a separator, or a placeholder token.

    [BOS] + encode(question_prefix + question + question_suffix)
          + sum over steps of ( encode(step_joint + step) + mark )

A suffix of the question belongs to the text that it goes over into: it is encoded with the first step. With `together`
the mark is text like the rest, and all of it is encoded at once:

    [BOS] + encode(question_prefix + question + question_suffix + step_1 + mark + step_joint + step_2 + mark + ...)

With `user_turn` all of it stands in the user's message of a chat, where no assistant answers.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vllm_prm.families.checkpoint_family import CheckpointFamily, only_question, require_list
from vllm_prm.families.prm_family import Question, Rendered
from vllm_prm.families.writing import Writer, chat_turns, require_fields

_NUMBER = re.compile(r"^\s*Step \d+:")


@dataclass(frozen=True, kw_only=True)
class MarkedStepsOptions:
    """What stands where is in the module's formulas. `chat_template`: the question goes through the tokenizer's
    template.

    Steps: `strip` drops white space around them; `one_line` makes spaces of their newlines; `number_steps` strips them
    and writes "Step i: " before each, whatever number it gives itself. `user_turn`: how the user's message begins, with
    `{question}` in it; the steps follow. `system`: the system message of that chat.
    """

    question_prefix: str = ""
    question_suffix: str = ""
    step_joint: str = ""
    together: bool = False
    strip: bool = False
    one_line: bool = False
    number_steps: bool = False
    chat_template: bool = False
    user_turn: str | None = None
    system: str | None = None

    def __post_init__(self) -> None:
        if self.user_turn is None:
            if self.system is not None:
                raise ValueError("system is the system message of a chat with user_turn; without that it means nothing")
            return
        require_fields("user_turn", self.user_turn, ("question",))
        if self.question_prefix or self.question_suffix or self.chat_template:
            raise ValueError("user_turn says what stands around the question; leave the options for that out")


class MarkedStepsFamily(CheckpointFamily):
    """Rendering shared by PRMs that read a mark after each step; see the module's formulas."""

    Options = MarkedStepsOptions
    bos: Sequence[int] = ()
    before_mark: str = ""
    """Text between a step and its mark."""
    mark_text: str
    mark_ids: Sequence[int]
    mark_id: int | None = None
    """The token that the mark must end with, None for any."""

    def __init__(self, tokenizer: Any, **arguments: Any) -> None:
        """`ValueError` for a chat template that is wanted and not there."""
        super().__init__(tokenizer, **arguments)
        if self.options.user_turn is not None:
            chat_turns(tokenizer, self._roles(), self.path)

    def tags(self) -> Sequence[str]:
        return (self.mark_text,)

    def render(self, question: Question, steps: Sequence[str]) -> Rendered:
        """Tokens and the positions where marks end, see the module's formulas. No step: no position. A step of no
        characters still gets its mark, so positions and steps always pair up. A mark inside a step is text like any
        other and gets no position."""
        require_list(steps)
        options = self.options
        writer = self._begun(question)
        for number, step in enumerate(steps, start=1):
            if not options.together and (number > 1 or not (options.question_suffix or options.user_turn)):
                writer.separate()
            writer.recipe(options.step_joint if number > 1 else "")
            writer.content(self._text(number, step))
            writer.recipe(self.before_mark)
            if options.together:
                writer.recipe(self.mark_text)
                writer.mark(self.mark_id)
            else:
                writer.ids(self.mark_ids)
                writer.mark()
        return writer.rendered()

    def _text(self, number: int, step: str) -> str:
        if self.options.one_line:
            step = step.replace("\n", " ")
        if self.options.number_steps:
            return f"Step {number}: {_NUMBER.sub('', step).strip()}"
        return step.strip() if self.options.strip else step

    def _roles(self) -> list[str]:
        return ["user"] if self.options.system is None else ["system", "user"]

    def _begun(self, question: Question) -> Writer:
        writer, options = self.writer(), self.options
        writer.ids(self.bos)
        if options.user_turn is None:
            writer.recipe(options.question_prefix)
            self.write_question(writer, question, chat=options.chat_template)
            writer.recipe(options.question_suffix)
            return writer
        turns, _ = chat_turns(self.tokenizer, self._roles(), self.path)
        if options.system is not None:
            writer.turn(turns[0], options.system)
        before, _, after = options.user_turn.partition("{question}")
        asked = only_question(question)
        writer.recipe(turns[-1].before + before)
        writer.content(asked if before else asked.lstrip(turns[-1].left))
        writer.recipe(after)
        return writer
