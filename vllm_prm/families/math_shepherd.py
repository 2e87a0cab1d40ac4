"""Math-Shepherd's Mistral PRM (arXiv:2312.08935): `+` against `-` at the tag `ки`.

    BOS + encode("{question} Step 1: ... ки\\nStep 2: ... ки")

    s = exp(z_+) / (exp(z_+) + exp(z_-)),   z the language-model logits at the tag

The text is encoded as one, as on the model card. The tag needs the space before it: glued to a word it is another
token. So white space around a step is dropped, and every tag is checked to be the token the model knows. The two
candidates are the tokens of "+ -" in the tokenizer's own way; an RLHFlow PRM writes the same characters with other ids.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vllm_prm.families.checkpoint_family import CheckpointFamily, bos_ids, require_list
from vllm_prm.families.decoding import Rows, class_probabilities
from vllm_prm.families.evidence import Checkpoint, Evidence
from vllm_prm.families.prm_family import Question, Rendered, single_token_id

TAG = "ки"
_NUMBERED = re.compile(r"Step \d+:")


@dataclass(frozen=True, kw_only=True)
class MathShepherdOptions:
    """`number_steps`: write "Step i: " before a step that does not begin so itself, as the model was trained."""

    number_steps: bool = True


class MathShepherdFamily(CheckpointFamily):
    """`+` against `-` at the tag; see the module's formula."""

    name = "math_shepherd"
    Options = MathShepherdOptions
    published = {"math-shepherd-mistral-7b-prm": {}}

    def __init__(self, tokenizer: Any, **arguments: Any) -> None:
        """`ValueError` for tokens the vocabulary lacks, or a tokenizer that needs more than one for a candidate."""
        super().__init__(tokenizer, **arguments)
        self.tag_id = single_token_id(tokenizer, TAG, self.path)
        candidates = tokenizer.encode("+ -", add_special_tokens=False)
        if len(candidates) != 2 or tokenizer.unk_token_id in candidates or candidates[0] == candidates[1]:
            raise ValueError(f"the tokenizer of {self.path} writes '+ -' as {candidates}, not as two known tokens")
        self.reward_token_ids = tuple(candidates)
        self.bos = bos_ids(tokenizer, True, self.path)

    @classmethod
    def evidence(cls, checkpoint: Checkpoint) -> Evidence | None:
        if by_name := super().evidence(checkpoint):
            return by_name
        if "MistralForCausalLM" in checkpoint.architectures and f"▁{TAG}" in checkpoint.tokenizer.get_vocab():
            return Evidence(f"a Mistral causal LM whose vocabulary has {TAG!r}, as every Mistral's has")
        return None

    def render(self, question: Question, steps: Sequence[str]) -> Rendered:
        """Tokens and the positions of the tags, up to the last of them. `ValueError` if a tag did not become its token.

        A `ки` that a step itself contains is text like any other and gets no position.
        """
        require_list(steps)
        writer = self.begun(question, bos=self.bos, suffix="", chat=False)
        for number, step in enumerate(steps, start=1):
            writer.recipe(" " if number == 1 else "\n")
            text = step.strip()
            if self.options.number_steps and not _NUMBERED.match(text):
                text = f"Step {number}: {text}".rstrip()
            writer.content(text)
            # An unnumbered step of no characters: the space that is there already is the tag's.
            writer.recipe(TAG if number == 1 and not text else f" {TAG}")
            writer.mark(self.tag_id)
        return writer.rendered()

    def decode(self, raw: Rows) -> list[float]:
        """Softmax over the two candidates, the first: (S, 2) -> S."""
        return [good for good, _ in class_probabilities(raw, 2)]
