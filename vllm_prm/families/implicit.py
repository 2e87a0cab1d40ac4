"""Implicit PRMs: a language model trained on outcomes, whose log-ratio to a reference model is the process reward.

With y_t the tokens of the response and step k the tokens (b_(k-1), b_k]:

    C_k = beta * sum over t <= b_k of ( log pi(y_t | y_<t) - log pi_ref(y_t | y_<t) )
    s_k = C_k - C_(k-1)      or, with `cumulative`, s_k = C_k      (`sigmoid`: the logistic function of either)

C_k is the model's estimate of the value after step k, s_k what the step added to it. Scores are real numbers, not
probabilities: 0 is neutral, `min`, `last` and `mean` aggregate them, the sum of the s_k is C_S, and `prod` means
nothing. pi = pi_ref gives 0 everywhere. Source: implicit PRM (arXiv:2412.01981); PRIME (arXiv:2502.01456), which
trains pi online, uses beta 0.05; EurusPRM's card has 0.001 and cumulative sums. Two models of one vocabulary are
needed, so two engines.

`boundaries` says where a step ends.

eurus   As EurusPRM's card has it. The conversation of the first k steps, joined by blank lines and closed by the chat
        template, is stripped and, before the last step, followed by a blank line; b_k is its number of tokens less 1.
        The closing token and the blank line are counted where the whole solution already goes on, so b_k lies one
        token (two where a full stop and the blank line are one token) inside step k + 1. A template that closes with
        `<|eot_id|>` is spared, because the published code cuts that token off. The sum begins at the last or second
        to last token of the assistant's header. The last step includes the closing token, so a step's score changes
        when another follows it, and each call encodes the solution once per step.
exact   Every step, the last one too, is encoded with the blank line after it and ends there: a step's score does not
        change as the chain grows.

The checkpoint, or `--family-options`, names the reference model:

    "prm": {"family": "implicit", "reference": "Qwen/Qwen2.5-Math-7B-Instruct", "beta": 0.05}
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, ClassVar, Literal

from vllm_prm.architectures import STEP_LOG_PROBS, step_architecture
from vllm_prm.families.checkpoint_family import CheckpointFamily, as_messages, require_list
from vllm_prm.families.checkpoint_files import load_tokenizer, read_config
from vllm_prm.families.decoding import sigmoid
from vllm_prm.families.evidence import Checkpoint
from vllm_prm.families.prm_family import Question, Rendered
from vllm_prm.families.rope import rope_overrides
from vllm_prm.families.writing import chat_turns

BLANK_LINE = "\n\n"


@dataclass(frozen=True)
class RenderedSums(Rendered):
    """A solution whose steps are sums over tokens. `first`: index of the last token before the sums. `cuts`: rising
    token indices at which the sums are cut; the step positions are among them, and beside them the places up to which
    the tokens stay the same when a step is added, so that what was summed before can be used again."""

    first: int
    cuts: list[int]


@dataclass(frozen=True, kw_only=True)
class ImplicitOptions:
    """`reference`: folder or hub id of the reference model. `beta`: the coefficient. `number_steps`: write `Step i: `
    before each step that does not begin so. `reference_engine_args`: vLLM engine arguments of the reference model that
    differ from the model's. The others are explained above."""

    reference: str
    beta: float = 0.05
    cumulative: bool = False
    sigmoid: bool = False
    boundaries: Literal["eurus", "exact"] = "eurus"
    number_steps: bool = True
    reference_engine_args: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.beta) and self.beta > 0):
            raise ValueError(f"beta must be a finite number above 0, got {self.beta}")


class ImplicitFamily(CheckpointFamily):
    """Log-ratios of two language models, summed per step; see the module's formula."""

    name = "implicit"
    Options = ImplicitOptions
    published: ClassVar = {
        name: {"beta": 0.001, "cumulative": True} for name in ("EurusPRM-Stage1", "EurusPRM-Stage2", "ImplicitPRM_DPO")
    }
    scorer = "vllm_prm.implicit_scorer:ImplicitScorer"
    served_as = STEP_LOG_PROBS
    engines = 2
    response_splitter = BLANK_LINE

    @property
    def score_range(self) -> tuple[float, float]:
        """Unbounded, but for the logistic function."""
        return (0.0, 1.0) if self.options.sigmoid else (-math.inf, math.inf)

    @classmethod
    def from_checkpoint(
        cls, path: str, tokenizer: Any = None, options: Mapping[str, Any] | None = None
    ) -> "ImplicitFamily":
        """As every family, and `ValueError` unless the reference model reads the same tokens."""
        family = super().from_checkpoint(path, tokenizer, options)
        vocabulary = family.tokenizer.get_vocab()
        _require_room(path, vocabulary)
        _require_room(family.options.reference, vocabulary)
        other = load_tokenizer(family.options.reference).get_vocab()
        for token, index in vocabulary.items():
            if other.get(token, index) != index:
                raise ValueError(
                    f"the reference model must share the vocabulary of {path}, but the token {token!r} is {index} "
                    f"there and {other[token]} in {family.options.reference}"
                )
        return family

    @classmethod
    def models_beside(cls, checkpoint: Checkpoint, options: Mapping[str, Any] | None = None) -> tuple[str, ...]:
        """The reference model."""
        reference = cls.said_options(checkpoint, options).get("reference")
        if not isinstance(reference, str):
            raise ValueError(f"{checkpoint.path}: family {cls.name} needs the option reference, a folder or hub id")
        return (reference,)

    def reference_overrides(self) -> dict[str, Any]:
        """`hf_overrides` of the reference model."""
        reference = self.options.reference
        config = read_config(reference)
        return {
            **rope_overrides(config),
            "architectures": [step_architecture(reference, config, STEP_LOG_PROBS)],
            "prm": self.hf_overrides()["prm"],
        }

    def render(self, question: Question, steps: Sequence[str]) -> RenderedSums:
        """Tokens and step ends. They rise, but a step that adds no token ends where the one before it does."""
        require_list(steps)
        texts = [self._numbered(number, step) for number, step in enumerate(steps, start=1)]
        return (self._exact if self.options.boundaries == "exact" else self._eurus)(question, texts)

    def _numbered(self, number: int, step: str) -> str:
        if not self.options.number_steps or step.startswith(f"Step {number}:"):
            return step
        return f"Step {number}: {step}"

    def _exact(self, question: Question, texts: Sequence[str]) -> RenderedSums:
        writer = self.writer()
        self.write_question(writer, question, chat=True)
        writer.separate()
        writer.mark()
        for text in texts:
            writer.content(text + BLANK_LINE)
            writer.separate()
            writer.mark()
        written = writer.rendered()
        first, *ends = written.step_positions
        return RenderedSums(written.token_ids, ends, first, ends)

    def _eurus(self, question: Question, texts: Sequence[str]) -> RenderedSums:
        messages = as_messages(question)
        roles = [*(message["role"] for message in messages), "assistant"]
        (*turns, answer), after = chat_turns(self.tokenizer, roles, self.path)
        closing = after.rstrip()
        between = closing.removesuffix("<|eot_id|>") + BLANK_LINE

        def encode(count: int, end: str) -> list[int]:
            """The conversation of the first `count` steps, ended by `end` instead of what the template writes."""
            writer = self.writer()
            for turn, message in zip(turns, messages, strict=True):
                writer.recipe(turn.before)
                writer.content(turn.stripped(message["content"]))
            body, header = answer.stripped(BLANK_LINE.join(texts[:count])), answer.before
            if end != after and not closing:
                # The published code strips the conversation; where the template closes with nothing, that reaches into
                # the last step, or into the header.
                body = body.rstrip()
                header = header if body else header.rstrip()
            writer.recipe(header)
            writer.content(body)
            writer.recipe(end)
            return writer.rendered().token_ids

        count = len(texts)
        start = len(encode(0, between.removesuffix(BLANK_LINE) if texts else closing)) - 2
        lengths = [len(encode(done, between if done < count else closing)) for done in range(1, count + 1)]
        last = lengths[-1] - 1 if texts else start - 1
        ends = [min(end, last) for end in accumulate((length - 1 for length in lengths), max)]
        # Adding a step changes what stands after the text of the last one, and may change its last token by a merge.
        added = [len(self._encode(between))] * (count - 1) + [len(self._encode(closing))]
        stable = {length - more - 2 for length, more in zip(lengths, added, strict=False)}
        first = max(start - 1, 0)
        cuts = sorted(cut for cut in {*ends, *stable} if first < cut <= last)
        return RenderedSums(encode(count, after)[: last + 1], ends, first, cuts)

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def decode(self, raw: Sequence[Sequence[float]]) -> list[float]:
        """(S, 2) -> S: the two models' log-probabilities of the response up to each step's end, to scores."""
        values = [self.options.beta * (policy - reference) for policy, reference in raw]
        if not self.options.cumulative:
            values = [after - before for before, after in zip([0.0, *values], values, strict=False)]
        return [sigmoid(value) for value in values] if self.options.sigmoid else values


def _require_room(path: str, vocabulary: Mapping[str, int]) -> None:
    # A target beyond the head would be read out of bounds, which on a GPU ends the engine.
    config = read_config(path)
    size = (config.get("text_config") or config).get("vocab_size")
    if size is None or max(vocabulary.values()) >= size:
        raise ValueError(f"{path} has vocab_size {size}, too few for the tokenizer's {len(vocabulary)} tokens")
