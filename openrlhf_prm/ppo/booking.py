"""The ledger of a PPO run, in `--ckpt.path`: what became of prompts, responses and steps in every update."""

from collections.abc import Sequence
from pathlib import Path

from openrlhf.trainer.ppo_utils.experience import Experience

from openrlhf_prm.data.ledger import Ledger
from openrlhf_prm.ppo.rollout.records import StepRecord

RUN = "ppo"


class Booking:
    """One process keeps it, that which trains. `prompts`: how many there are in all, None where nobody said."""

    def __init__(self, folder: str | Path):
        self.ledger = Ledger(folder, RUN)
        self.prompts: int | None = None
        self._consumed = 0
        self._parts: dict[str, tuple[int, dict[str, int], dict[str, int]]] = {}

    def began(self, update: int, consumed: int) -> None:
        """After how many updates, and how many prompts drawn, the run begins: 0 and 0, or those of its checkpoint."""
        self._consumed = consumed
        self.ledger.began(kept=update)

    def rollout(self, experiences: Sequence[Experience], left: int, records: Sequence[StepRecord]) -> None:
        """The rollout of the next update. `left`: responses that a reward shaping leaves out."""
        came = sum(len(experience.action_mask) for experience in experiences)
        trained = sum(int(experience.action_mask.bool().any(-1).sum()) for experience in experiences)
        left = min(left, came - trained)  # of several attempts in a response any may be left out
        reasons = {"left out by the shaping": left, "without a token to train": came - left - trained}
        self._parts = {"responses": (came, {"trained": trained}, reasons)}
        if any(record.scores is not None for record in records):
            steps = sum(len(record.ends) for record in records)
            scored = sum(len(record.known_scores) for record in records)
            self._parts["steps"] = (steps, {"scored": scored}, {"without text": steps - scored})

    def update(self, number: int, consumed: int, group_size: int, filtered: bool) -> None:
        """Writes update `number` down. `consumed`: prompts drawn since the run's first; `filtered`: whether the host
        leaves groups out before it trains.
        """
        if "responses" in self._parts:
            used = self._parts["responses"][0] // group_size
            left = max(consumed - self._consumed - used, 0) if filtered else 0
            self.ledger.part(number, "prompts", used + left, {"sampled": used}, {"filtered by the host": left})
        self._consumed = consumed
        for unit, (came, out, left_out) in self._parts.items():
            self.ledger.part(number, unit, came, out, left_out)
        self._parts = {}

    def ended(self) -> None:
        """The run is over."""
        self.ledger.ended({} if self.prompts is None else {"prompts": self.prompts})
