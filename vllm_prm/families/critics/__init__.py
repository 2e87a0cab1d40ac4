"""Styles of critics: how a model is asked for critiques, and how they are read. One file and one line each."""

from vllm_prm.families.critics.critic import Ask, Conversation, Critique, CritiqueStyle, Verdicts
from vllm_prm.families.critics.genprm import GenPRM
from vllm_prm.families.critics.processbench import ProcessBenchCritic
from vllm_prm.families.critics.proof_grader import ProofGrader
from vllm_prm.families.critics.r_prm import RPRM
from vllm_prm.families.critics.thinkprm import ThinkPRM

CRITIQUE_STYLES: dict[str, type[CritiqueStyle]] = {
    "genprm": GenPRM,
    "processbench": ProcessBenchCritic,
    "proof": ProofGrader,
    "r_prm": RPRM,
    "thinkprm": ThinkPRM,
}
"""Name of a critique style -> class."""

__all__ = ["CRITIQUE_STYLES", "Ask", "Conversation", "Critique", "CritiqueStyle", "Verdicts"]
