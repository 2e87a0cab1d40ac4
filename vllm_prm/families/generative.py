r"""Generative PRMs: a model that writes critiques; each is read for a verdict per step, and n samples are averaged.

    s_k = (1/|V_k|) sum over samples i in V_k of c_ik

with c_ik the probability, or the verdict, 1 or 0, of critique i that step k is correct, and V_k the samples that gave a
verdict on it. A critique that is empty, cut off or malformed may give none: it is counted, and left out of the mean
unless `malformed_score` says what it counts as (GenPRM's published scorer: 0.5). A step on which no critique gave a
verdict has no score. How critics are asked and read is the `style`, see `vllm_prm.families.critics`:

    "prm": {"family": "generative", "style": "thinkprm", "samples": 8}

Generated code is never executed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from vllm_prm.families.checkpoint_family import CheckpointFamily, as_json, only_question, require_list
from vllm_prm.families.critics import CRITIQUE_STYLES, Ask, Conversation
from vllm_prm.families.prm_family import Question, Rendered
from vllm_prm.families.rope import rope_overrides
from vllm_prm.families.writing import chat_turns


@dataclass(frozen=True, kw_only=True)
class GenerativeOptions:
    """`samples`: critiques per solution (the papers scale to 8). `seed`: of the first sample; others follow from it.

    `temperature`, `top_p`, `top_k`, `max_tokens` (per critique; fewer where the context ends sooner): by default those
    the style was published with. `malformed_score`: what a critique without a verdict counts as; by default nothing.
    Of the style `genprm` only: `probabilities`, "raw" or "sampling", the kind of the scores; `first_turn`, how question
    and first step are joined (the authors' evaluation script: "{question}\\n{step}"). Of `thinkprm`: `scores`, "boxes"
    or "prefixes".
    """

    style: str
    samples: int = 8
    seed: int = 0
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_tokens: int | None = None
    malformed_score: float | None = None
    probabilities: Literal["raw", "sampling"] | None = None
    first_turn: str | None = None
    scores: Literal["boxes", "prefixes"] | None = None

    def __post_init__(self) -> None:
        if self.style not in CRITIQUE_STYLES:
            raise ValueError(f"style is {self.style!r}, known: {sorted(CRITIQUE_STYLES)}")
        if self.samples < 1:
            raise ValueError(f"samples must be 1 or more, got {self.samples}")
        if self.temperature == 0 and self.samples > 1:
            raise ValueError(f"at temperature 0 all {self.samples} samples are the same; set samples to 1")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ValueError(f"max_tokens must be 1 or more, got {self.max_tokens}")
        if self.malformed_score is not None and not 0 <= self.malformed_score <= 1:
            raise ValueError(f"malformed_score must lie in [0, 1], got {self.malformed_score}")
        read = CRITIQUE_STYLES[self.style].own_options
        for name in ("probabilities", "first_turn", "scores"):
            if getattr(self, name) is not None and name not in read:
                raise ValueError(f"{name} means nothing to the style {self.style!r}")


class GenerativeFamily(CheckpointFamily):
    """Critiques, parsed and averaged; see the module's formula."""

    name = "generative"
    Options = GenerativeOptions
    published: ClassVar = {
        **{f"ThinkPRM-{size}": {"style": "thinkprm"} for size in ("1.5B", "7B", "14B")},
        **{f"GenPRM-{size}": {"style": "genprm"} for size in ("1.5B", "7B", "32B")},
        "R-PRM-7B-DPO": {"style": "r_prm"},
        "DeepSeek-Math-V2": {"style": "proof"},
    }
    scorer = "vllm_prm.generative_scorer:GenerativeScorer"
    runner = "generate"
    response_splitter = "\n\n"

    def __init__(
        self, tokenizer: Any, *, architecture: str | None = None, path: str = "the checkpoint", **options: Any
    ) -> None:
        """As every family; `ValueError` also if there is no chat template, or the verdicts cannot be expressed."""
        super().__init__(tokenizer, architecture=architecture, path=path, **options)
        if not tokenizer.chat_template:
            raise ValueError(f"the tokenizer of {path} has no chat template; critics are asked in a chat")
        style = CRITIQUE_STYLES[self.options.style]
        self._published = style.published_sampling(path, self.options.samples)
        own = {name: getattr(self.options, name) for name in style.own_options}
        own = {name: style.own_options[name] if value is None else value for name, value in own.items()}
        self.style = style.for_tokenizer(tokenizer, path, self.sampling(), **own)

    def hf_overrides(self) -> dict[str, Any]:
        """The model is loaded as it is, see `rope_overrides`; the family and its options are for the server's
        endpoint."""
        return {**rope_overrides(self.config or {}), "prm": {"family": self.name, "options": as_json(self.options)}}

    def sampling(self) -> dict[str, Any]:
        """vLLM's sampling parameters: the style's, and over them the options that are set."""
        chosen = {name: getattr(self.options, name) for name in ("temperature", "top_p", "top_k", "max_tokens")}
        return {**self._published, **{name: value for name, value in chosen.items() if value is not None}}

    def conversation(self, question: Question, steps: Sequence[str]) -> Conversation:
        """One critic's conversation about `steps`, at least one. `ValueError` for messages that are no single question,
        which the published prompts cannot hold."""
        require_list(steps)
        return self.style.judge(only_question(question), steps)

    def write(self, ask: Ask) -> list[int]:
        """Tokens of the prompt. A special token spelled out in the solution, or in a critique, stays ordinary text."""
        writer = self.writer()
        roles = [message["role"] for message in ask.messages]
        turns, after = chat_turns(self.tokenizer, roles, self.path, add_generation_prompt=not ask.in_turn)
        for turn, message in zip(turns, ask.messages, strict=True):
            writer.recipe(turn.before)
            writer.content(turn.stripped(message["content"]))
        writer.recipe(self._open_turn(after) if ask.in_turn else after)
        writer.content(ask.prefix)
        return writer.rendered().token_ids

    def _open_turn(self, after: str) -> str:
        """What the template writes after the last content, without the token that ends the turn."""
        end = self.tokenizer.eos_token
        if end is None or not (ended := after.removesuffix("\n")).endswith(end):
            return after
        return ended.removesuffix(end)

    def render(self, question: Question, steps: Sequence[str]) -> Rendered:
        """The first prompt. There are no step positions: verdicts are read from what the model writes."""
        return Rendered(self.write(next(self.conversation(question, steps))), [])

    def decode(self, raw: Sequence[Sequence[float]]) -> list[float]:
        """Mean over the samples of each step: (S, n) -> S. NaN, in and out, is a judgement that was malformed."""
        scores = []
        for row in raw:
            if self.options.malformed_score is None:
                row = [value for value in row if not math.isnan(value)]
            else:
                row = [self.options.malformed_score if math.isnan(value) else value for value in row]
            scores.append(math.fsum(row) / len(row) if row else math.nan)
        return scores
