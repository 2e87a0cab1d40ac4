"""The flags of self-correction. Nothing heavy is imported."""

from dataclasses import dataclass

from openrlhf_prm.data.attempts import AttemptOptions
from openrlhf_prm.options import option


@dataclass(frozen=True, kw_only=True)
class SelfCorrectionOptions(AttemptOptions):
    """`--self_correction.<field>`: SCoRe (arXiv:2409.12917), on where `stage` is given."""

    stage: int | None = option(
        None,
        "the stage that the run begins in: 1 teaches corrections and holds the first attempt, 2 trains all attempts",
        least=1,
        most=2,
        kind=int,
    )
    stage1_steps: int = option(0, "rollouts of stage 1, after which stage 2 begins; 0: stage 1 goes on", least=0)
    alpha: float = option(10.0, "stage 2: weight of what an attempt's reward has over that of the one before", least=0)
    beta1: float | None = option(
        None, "stage 2: KL coefficient of all attempts; without it, --algo.kl.init_coef", least=0, kind=float
    )
    beta2: float = option(0.1, "stage 1: KL coefficient of the first attempt", least=0)
    offline_share: float = option(
        0.0, "stage 2: share of questions whose first attempts are those of `offline_file`", least=0, most=1
    )
    offline_file: str | None = option(
        None,
        "JSONL of another policy's first attempts, rows with question and response",
        kind=str,
        read_with="offline_share",
    )

    def stage_of(self, rollouts: int) -> int:
        """The stage of the rollout before which there were so many."""
        if self.stage == 1 and self.stage1_steps and rollouts >= self.stage1_steps:
            return 2
        return self.stage or 2

    @property
    def reaches_stage_2(self) -> bool:
        return self.stage == 2 or self.stage1_steps > 0

    def unread(self, prefix: str) -> dict[str, str]:
        others = {}
        if self.stage == 2:
            others = dict.fromkeys(("stage1_steps", "beta2"), f"--{prefix}.stage 1")
        elif not self.reaches_stage_2:
            others = dict.fromkeys(
                ("alpha", "beta1", "offline_share"), f"--{prefix}.stage 2, or --{prefix}.stage1_steps"
            )
        if self.attempts == 1:
            others["offline_share"] = f"--{prefix}.attempts above 1"
        return super().unread(prefix) | others
