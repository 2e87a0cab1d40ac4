"""The plugin's options that no algorithm owns, one class per group of flags.

Algorithms have theirs in their own files, in `rewards/`, `advantages/` and `length_penalties/`; `diversity.py` and
`watching.py` do so too. Nothing heavy is imported: flags are parsed and checked before anything starts.
"""

import re
from dataclasses import dataclass

from openrlhf_prm.cluster.engine_options import EngineFlags, ServerFlags
from openrlhf_prm.length_penalties import LENGTH_PENALTIES
from openrlhf_prm.options import Options, option
from openrlhf_prm.ppo.score_ranges import SCORE_RANGES
from openrlhf_prm.rewards import REWARD_SHAPINGS
from openrlhf_prm.rewards.shaping import SCORE_SCALES
from vllm_prm.splitters import STEP_SPLITTERS

ONLINE_PRM_FOLDER = "_online_prm"
"""Where checkpoints of the online PRM lie in `--ckpt.path`, beside the host's `_actor`."""


@dataclass(frozen=True, kw_only=True)
class PRMOptions(ServerFlags):
    """`--prm.<field>`: which PRM scores steps, and how it is asked."""

    model_name_or_path: str | None = option(None, "PRM checkpoint, scored by vLLM in Ray actors", kind=str)
    score_range: str = option(
        "probability",
        "the PRM's scores: in [0, 1]; in [-1, 1], as PURE's PRM; any number, as an implicit PRM or a raw value head",
        choices=SCORE_RANGES,
    )
    question_pattern: str | None = option(
        None, "regular expression whose first group is the question within a prompt; without it, the prompt", kind=str
    )

    def __post_init__(self):
        super().__post_init__()
        if self.model_name_or_path and self.url:
            raise ValueError("model_name_or_path and --prm.url exclude each other")
        if self.question_pattern is not None and _compiled("question_pattern", self.question_pattern).groups < 1:
            raise ValueError("question_pattern needs a group (...) around the question")


@dataclass(frozen=True, kw_only=True)
class PRMWorkerOptions(EngineFlags):
    """`--prm.<field>`: the vLLM engines of a PRM checkpoint."""

    family: str | None = option(None, "PRM family or FILE.py:Class, where the checkpoint does not tell", kind=str)
    kv_cache_mb: int | None = option(None, "KV cache per engine in MiB, instead of what fits", least=1, kind=int)
    colocate: bool = option(
        False, "engines live on the GPUs of --train.colocate_all; with --vllm.enable_sleep they sleep during training"
    )

    @property
    def takes_whole_gpus(self) -> bool:
        """A colocated engine shares each of its GPUs with the policy."""
        return not self.colocate


@dataclass(frozen=True, kw_only=True)
class StepOptions(Options):
    """`--steps.<field>`."""

    splitter: str = option("auto", "where a reasoning step ends", registry=STEP_SPLITTERS)


@dataclass(frozen=True, kw_only=True)
class ProcessRewardOptions(Options):
    """`--process_reward.<field>`: what becomes of step scores."""

    shaping: str = option("min_form", "how step scores become process rewards", registry=REWARD_SHAPINGS)
    coef: float = option(1.0, "weight of the process reward")
    score_scale: str = option("signed", "how a score p enters the shaping: 2p - 1, or p", choices=SCORE_SCALES)
    warmup_steps: int = option(0, "rollouts until coef is reached, linearly from 0", least=0)
    normalise: bool = option(False, "divide process rewards by their deviation in the batch")
    baseline_of: str = option(
        "steps",
        "what the host's estimators compare within a group: step rewards, as published, or whole process returns, "
        "which charges no response for its number of steps",
        choices=("steps", "returns"),
    )


@dataclass(frozen=True, kw_only=True)
class OutcomeOptions(Options):
    """`--process_reward.<field>`: what becomes of the outcome reward, with a PRM or without."""

    outcome_coef: float = option(1.0, "weight of the outcome reward, penalties apart")
    right_from: float | None = option(
        None,
        "score, else outcome reward, from which a response counts as right; without it above 0.5, and 1 for several "
        "turns, whose rewards the host sums",
        kind=float,
    )
    truncation_penalty: float = option(0.0, "taken off the outcome of a cut response", least=0)
    format_pattern: str | None = option(
        None,
        "regular expression a response must contain; without it, it gets no positive process reward",
        kind=str,
    )
    format_penalty: float = option(
        0.0, "taken off the outcome of a malformed response", least=0, read_with="format_pattern"
    )

    def __post_init__(self):
        super().__post_init__()
        if self.format_pattern is not None:
            _compiled("format_pattern", self.format_pattern)


@dataclass(frozen=True, kw_only=True)
class OnlinePRMOptions(Options):
    """`--online_prm.<field>`: the PRM that is trained in the loop."""

    model_name_or_path: str | None = option(
        None, "checkpoint that the PRM starts from; without it, the policy's", kind=str
    )
    reference: str | None = option(None, "the PRM's reference model; without it, what it starts from", kind=str)
    update: str = option(
        "before", "whether the PRM learns from a rollout before or after it rewards it", choices=("before", "after")
    )
    lr: float = option(1e-6, "the PRM's learning rate, constant", above=0)
    max_norm: float = option(10.0, "the PRM's gradient clipping; 0: none", least=0)
    batch_size: int | None = option(
        None, "responses per update of the PRM; without it, --train.batch_size", least=1, kind=int
    )
    num_nodes: int = option(1, "number of nodes for the PRM", least=1)
    num_gpus_per_node: int = option(1, "number of GPUs per node for the PRM", least=1)
    gpus_per_actor: float = option(1.0, "share of a GPU per process of the PRM", above=0, most=1)
    colocate: bool = option(
        False, "the PRM lives on the GPUs of --train.colocate_all, and with --ds.enable_sleep its states leave them"
    )
    save: bool = option(False, "save the PRM beside --ckpt.output_dir, with the suffix _online_prm")

    def unread(self, prefix: str) -> dict[str, str]:
        """In the host's group its processes share GPUs as the host's do."""
        colocated = {"gpus_per_actor": f"a run without --{prefix}.colocate"} if self.colocate else {}
        return super().unread(prefix) | colocated


@dataclass(frozen=True, kw_only=True)
class LengthOptions(Options):
    """`--length_penalty.<field>`: whether lengths are penalised, and how much that weighs."""

    kind: str | None = option(None, "the length penalty; without it, none", registry=LENGTH_PENALTIES, kind=str)
    coef: float = option(1.0, "weight of the length penalty", read_with="kind")
    warmup_steps: int = option(0, "rollouts until coef is reached, linearly from 0", least=0, read_with="kind")


@dataclass(frozen=True, kw_only=True)
class AdvantageOptions(Options):
    """`--algo.advantage.<field>`: what is done to the advantages of any estimator, the host's included."""

    constant_length_norm: bool = option(
        False, "Dr. GRPO: divide a response's loss by the length limit instead of its length"
    )
    length_alpha: float = option(
        0.0,
        "VAPO, with the host's gae: the policy's lambda is 1 - 1 / (alpha * tokens), the critic's 1; paper: 0.05",
        least=0,
    )
    negative_weight: float = option(1.0, "what negative advantages are multiplied by", least=0, most=1)
    separators: str = option(
        "auto",
        "whether tokens that only separate steps or end the response have an advantage; auto: as the estimator's paper",
        choices=("auto", "credit", "none"),
    )


def _compiled(name: str, pattern: str) -> re.Pattern:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{name} is no regular expression: {error}") from None
