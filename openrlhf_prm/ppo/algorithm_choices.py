"""The flags that choose an algorithm: a registry's key, or a class of a user's file."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import SimpleNamespace
from typing import Any

from openrlhf_prm.advantages import ADVANTAGE_ESTIMATORS
from openrlhf_prm.advantages.estimator import AdvantageEstimator
from openrlhf_prm.length_penalties import LENGTH_PENALTIES
from openrlhf_prm.length_penalties.penalty import LengthPenalty
from openrlhf_prm.options import build
from openrlhf_prm.rewards import REWARD_SHAPINGS
from openrlhf_prm.rewards.shaping import RewardShaping
from vllm_prm.extension_files import resolve


@dataclass(frozen=True)
class AlgorithmChoice:
    """`--PREFIX.OPTION NAME`; the algorithm's options are flags `--PREFIX.*` too."""

    prefix: str
    option: str
    registry: Mapping[str, type]
    base: type

    @property
    def flag(self) -> str:
        return f"--{self.prefix}.{self.option}"

    def named(self, name: str) -> type:
        """The class of that name. Raises ValueError for an unknown one and for a class that cannot be built."""
        try:
            algorithm: Any = resolve(self.registry, name, "name")
        except ValueError as error:
            raise ValueError(f"{self.flag}: {error}") from None
        wanted = (
            f"{self.flag} {name} must be a frozen dataclass derived from {self.base.__module__}.{self.base.__name__}"
        )
        is_class = isinstance(algorithm, type) and issubclass(algorithm, self.base)
        if not is_class or "__dataclass_fields__" not in vars(algorithm):
            raise ValueError(wanted)
        if bare := [field.name for field in fields(algorithm) if "text" not in field.metadata]:
            raise ValueError(
                f"{wanted}, whose fields are made by openrlhf_prm.options.option; not so: {', '.join(bare)}"
            )
        return algorithm

    def built(self, name: str, namespace: SimpleNamespace) -> Any:
        """The algorithm of that name with the options that were given."""
        return build(self.named(name), namespace, self.prefix)


SHAPING = AlgorithmChoice("process_reward", "shaping", REWARD_SHAPINGS, RewardShaping)
PENALTY = AlgorithmChoice("length_penalty", "kind", LENGTH_PENALTIES, LengthPenalty)
ESTIMATOR = AlgorithmChoice("algo.advantage", "estimator", ADVANTAGE_ESTIMATORS, AdvantageEstimator)
