"""A scalar at the end of each prefix of a solution: one pass per prefix, with nothing in it that marks a step.

    [BOS] + encode(question + question_suffix + step_1 + step_separator + ... + step_k + end) + [EOS]

    score="sigmoid"   s_k = 1 / (1 + exp(-v)),  v the head at the last token       score="raw"   s_k = v

With `chat_template` the question stands in the tokenizer's template, and the solution is encoded apart from it.

ReasonFlux-PRM-1.5B (arXiv:2506.18896): question and solution as they are, a linear layer that lies beside the weights
as `reward_head.pt` (read with `weights_only`: a pickle could run code). Its authors score whole solutions.

Universal-PRM-7B (AURORA, arXiv:2502.11520): one pass per prefix, ended by EOS; the question names a reference answer,
or says that there is none. A question that holds `REFERENCE` itself is left as it is.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vllm_prm.families.checkpoint_family import bos_ids
from vllm_prm.families.decoding import Rows, scalars, sigmoid
from vllm_prm.families.evidence import Checkpoint, Evidence
from vllm_prm.families.prefix_family import PrefixFamily, Reading
from vllm_prm.families.prm_family import Head, Question
from vllm_prm.families.value_head import scalar_heads
from vllm_prm.families.writing import Writer, chat_turns

HEAD_FILE = "reward_head.pt"
REASON_FLUX = {"head": ("reward_head",), "head_bias": True, "head_file": HEAD_FILE}
REFERENCE = "\n\n###\n\nThe reference answer is: "
UNIVERSAL = {
    "chat_template": True,
    "system": "You are a helpful assistant.",
    "question_suffix": f"{REFERENCE}There is no reference answer for this question.",
    "end": "\n\n",
    "eos": True,
}


@dataclass(frozen=True, kw_only=True)
class PrefixValueOptions:
    """`head`: the checkpoint's names of its linear layers, a ReLU between them; `head_bias`: whether they have a bias;
    both are read from the weights when left out. `head_file`: the file beside the weights that holds the one layer.

    `system`: the system message of the template. `bos`: begin with BOS; None: if the tokenizer has one and no template
    is written. The others stand in the module's formulas.
    """

    head: tuple[str, ...]
    head_bias: bool
    head_file: str | None = None
    question_suffix: str = ""
    step_separator: str = "\n\n"
    end: str = ""
    eos: bool = False
    bos: bool | None = None
    chat_template: bool = False
    system: str | None = None
    score: Literal["sigmoid", "raw"] = "sigmoid"

    def __post_init__(self) -> None:
        if self.head_file is not None and (len(self.head) != 1 or Path(self.head_file).name != self.head_file):
            raise ValueError(
                "head_file must be the name of a file in the checkpoint's folder, with a head of one layer"
            )
        if self.system is not None and not self.chat_template:
            raise ValueError("system is a message of the chat template; without chat_template it means nothing")


class PrefixValueFamily(PrefixFamily):
    """A scalar at the last token of each prefix; see the module's formulas."""

    name = "prefix_value"
    Options = PrefixValueOptions
    published = {
        "ReasonFlux-PRM-1.5B": REASON_FLUX,
        "Universal-PRM-7B": UNIVERSAL,
        "Universal-PRM": UNIVERSAL,
    }

    def __init__(self, tokenizer: Any, **arguments: Any) -> None:
        """`ValueError` for a BOS, an EOS or a chat template that is wanted and not there."""
        super().__init__(tokenizer, **arguments)
        options = self.options
        self.head = Head(options.head, outputs=1, bias=options.head_bias, file=options.head_file)
        self.bos = bos_ids(
            tokenizer, False if options.bos is None and options.chat_template else options.bos, self.path
        )
        if options.eos and tokenizer.eos_token_id is None:
            raise ValueError(f"the tokenizer of {self.path} has no token that ends a text (eos_token)")
        if options.chat_template:
            chat_turns(tokenizer, ["user"], self.path, add_generation_prompt=True)

    @classmethod
    def evidence(cls, checkpoint: Checkpoint) -> Evidence | None:
        if by_name := super().evidence(checkpoint):
            return by_name
        if (Path(checkpoint.path) / HEAD_FILE).is_file():
            return Evidence(f"{HEAD_FILE} lies beside the weights; how it reads a solution does not show")
        return None

    @classmethod
    def seen_options(cls, checkpoint: Checkpoint, given: Mapping[str, Any]) -> dict[str, Any]:
        """What the repository's name tells, and the head: a file, two layers `score.0` and `score.2`, or one layer.
        `ValueError` if the weights show none."""
        seen = super().seen_options(checkpoint, given)
        if {"head", "head_bias"} <= {*seen, *given}:
            return seen
        if (Path(checkpoint.path) / HEAD_FILE).is_file():
            return {**seen, **REASON_FLUX}
        if checkpoint.rows("score.2.weight") == 1 and "score.0.weight" in checkpoint.weights:
            head: tuple[str, ...] = ("score.0", "score.2")
        elif len(heads := scalar_heads(checkpoint)) == 1:
            head = (heads[0],)
        else:
            raise ValueError(
                f"family {cls.name} needs the options head and head_bias: the weights of {checkpoint.path} do not show "
                f"one scalar head ({heads or 'none'}), nor is there a {HEAD_FILE}"
            )
        return {**seen, "head": head, "head_bias": f"{head[0]}.bias" in checkpoint.weights}

    @property
    def score_range(self) -> tuple[float, float]:
        """Unbounded for a raw value."""
        return (-math.inf, math.inf) if self.options.score == "raw" else (0.0, 1.0)

    def read(self, question: Question, steps: Sequence[str]) -> Reading:
        """One prompt, read at its last token."""
        options = self.options
        writer = self._begun(question)
        for number, step in enumerate(steps):
            writer.recipe(options.step_separator if number else "")
            writer.content(step)
        writer.recipe(options.end)
        writer.ids([self.tokenizer.eos_token_id] if options.eos else [])
        if not (rendered := writer.rendered()).token_ids:
            raise ValueError(f"family {self.name} reads at the last token, and question and steps have none")
        rendered.step_positions.append(len(rendered.token_ids) - 1)
        [score] = self.decode((yield rendered))
        return score

    def _begun(self, question: Question) -> Writer:
        """Up to where the first step begins."""
        options = self.options
        writer = self.writer()
        writer.ids(self.bos)
        if not options.chat_template:
            self.write_question(writer, question, chat=False)
            writer.recipe(self._suffix(question))
            return writer
        messages = [{"role": "user", "content": question}] if isinstance(question, str) else list(question)
        if options.system is not None and not any(message["role"] == "system" for message in messages):
            messages = [{"role": "system", "content": options.system}, *messages]
        messages[-1] = {**messages[-1], "content": messages[-1]["content"] + self._suffix(question)}
        self.write_question(writer, messages, chat=True)
        writer.separate()
        return writer

    def _suffix(self, question: Question) -> str:
        asked = question if isinstance(question, str) else question[-1]["content"]
        return "" if REFERENCE in asked else self.options.question_suffix

    def decode(self, raw: Rows) -> list[float]:
        """(S, 1) -> S; the module's table says which number and in which range."""
        values = scalars(raw)
        return values if self.options.score == "raw" else [sigmoid(value) for value in values]
