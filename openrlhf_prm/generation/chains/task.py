"""What is to be generated: who writes, who judges, what it costs, where to."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from openrlhf_prm.annotation.policy_run import PolicyRun
from openrlhf_prm.cluster.engine_options import EngineOptions
from openrlhf_prm.generation.chains import SCHEMES
from openrlhf_prm.generation.chains.checks import LengthOptions
from openrlhf_prm.generation.chains.critics import (
    Critic,
    CriticOptions,
    ExactCritic,
    GeneratedCritic,
    NoCritic,
    PRMCritic,
    RolloutCritic,
)
from openrlhf_prm.generation.chains.roles import POLICY, RoleBook
from openrlhf_prm.generation.chains.work_file import WorkFile, beside
from openrlhf_prm.generation.rejection_sampling import RankingPRM
from openrlhf_prm.options import Options, option
from vllm_prm.durable_file import checkpoint_state


@dataclass(frozen=True, kw_only=True)
class PriceOptions(Options):
    """What tokens cost, in any currency, per million."""

    input: float = option(0.0, "price of a million prompt tokens", least=0)
    output: float = option(0.0, "price of a million tokens that are written", least=0)

    def of(self, counts: Mapping[str, int]) -> float:
        """The cost of what was counted."""
        return (self.input * counts["prompt_tokens"] + self.output * counts["completion_tokens"]) / 1e6


@dataclass(frozen=True, kw_only=True)
class Judges:
    """Who judges without being a model: the answer checker, what finds a final answer in a text, and with an exact
    critic the checker of steps and its task.
    """

    is_correct: Callable[[str, str], bool]
    final_answer: Callable[[str], str | None]
    check_steps: Callable[[str, Sequence[str]], list[bool]] | None = None
    task: str | None = None


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What is to be written, by whom, and where to. `scheme`: a key of `SCHEMES`; `options` are of its class."""

    run: PolicyRun
    book: RoleBook
    scheme: str
    options: Options
    critic: CriticOptions
    prm: RankingPRM
    judges: Judges
    length: LengthOptions
    price: PriceOptions
    max_calls: int
    patience_s: float
    output: Path

    @property
    def roles(self) -> list[str]:
        """Who is asked."""
        asked = SCHEMES[self.scheme].roles(self.options)
        return sorted(asked | {"generated": {"critic"}, "rollouts": {"finisher"}}.get(self.critic.kind, set()))

    @property
    def models(self) -> list[str]:
        """The names of the models behind them."""
        return sorted({self.book.roles[role].model for role in self.roles})

    @property
    def own_engines(self) -> dict[str, EngineOptions]:
        """Those that Ray places, in the order in which they start."""
        own = dict(self.prm.own_engines)
        if POLICY in self.models:
            own |= self.run.own_engines
        return own | {f"roles.{name}": options for name, options in self.further_engines().items()}

    def further_engines(self) -> dict[str, EngineOptions]:
        """Engines of the roles' own checkpoints."""
        specs = {name: self.book.models[name] for name in self.models if name != POLICY}
        seed = self.run.engines.seed
        return {name: spec.engines.engines(spec.checkpoint, seed) for name, spec in specs.items() if spec.checkpoint}

    @property
    def paths(self) -> list[tuple[str, str]]:
        """What engines read, by flag."""
        further = [("--roles", options.model) for options in self.further_engines().values()]
        return [*self.run.paths, *self.prm.paths, *further]

    def settings(self) -> dict:
        """What chains depend on, besides the question; not how a row of SFT data is written."""
        return {
            **{name: value for name, value in self.run.settings().items() if not name.startswith("--data.")},
            **self.prm.settings(),
            "--scheme": self.scheme,
            **{f"--chain.{name}": value for name, value in asdict(self.options).items()},
            **{f"--critic.{name}": value for name, value in asdict(self.critic).items()},
            "--critic.task": self.judges.task,
            "--chain.max_calls": self.max_calls,
            "--rollout.urls": " ".join(self.run.urls) or None,
            "--roles": self.book.raw,
            "state of the roles' models": [checkpoint_state(one.model) for one in self.further_engines().values()],
        }

    def open_work(self) -> WorkFile:
        """The file of finished questions, beside the output. Raises ValueError where it cannot be continued."""
        return WorkFile(beside(self.output, "work"), self.settings())

    def critic_of(self, prm: Any) -> Critic:
        """The critic that the options name."""
        if self.critic.kind == "prm":
            return PRMCritic(prm, self.critic.tau)
        if self.critic.kind == "exact":
            return ExactCritic(self.judges.check_steps)
        if self.critic.kind == "rollouts":
            return RolloutCritic(self.critic.rollouts)
        return GeneratedCritic(self.critic.retries) if self.critic.kind == "generated" else NoCritic()
