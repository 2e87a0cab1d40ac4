"""Skywork-o1-Open-PRM: a Qwen2 backbone with TRL's value head, read where each line of the solution ends.

    [BOS] + encode(question + "\\n") + sum over steps of ( encode(step) + [id of "\\n"] ),    s = sigmoid(v_head(h))

Source: the authors' inference code (`skywork-o1-prm-inference`). It splits a response at newlines; here a step may have
more than one line and is scored at its end only.
"""

from dataclasses import dataclass

from vllm_prm.families.evidence import Checkpoint, Evidence
from vllm_prm.families.value_head import ValueHeadFamily, ValueHeadOptions


@dataclass(frozen=True, kw_only=True)
class SkyworkOptions(ValueHeadOptions):
    """The published recipe."""

    question_suffix: str = "\n"
    bos: bool | None = True
    head: str = "v_head.summary"
    head_bias: bool = True


class SkyworkFamily(ValueHeadFamily):
    """Value head at newlines; see the module's formula."""

    name = "skywork"
    Options = SkyworkOptions
    unseen = ()
    published = {"Skywork-o1-Open-PRM-Qwen-2.5-1.5B": {}, "Skywork-o1-Open-PRM-Qwen-2.5-7B": {}}

    @classmethod
    def seen_options(cls, checkpoint, given):
        """None: the recipe fixes the head."""
        return {}

    @classmethod
    def evidence(cls, checkpoint: Checkpoint) -> Evidence | None:
        if "Qwen2ForPrmModel" in checkpoint.architectures:
            return Evidence("architectures is ['Qwen2ForPrmModel']", decisive=True)
        if by_name := super(ValueHeadFamily, cls).evidence(checkpoint):
            return by_name
        if "Qwen2ForCausalLM" in checkpoint.architectures and "v_head.summary.weight" in checkpoint.weights:
            return Evidence("a Qwen2 whose weights have v_head.summary")
        return None
