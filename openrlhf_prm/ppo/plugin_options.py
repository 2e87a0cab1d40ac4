"""What of the plugin a run reads: built once per process from the host's arguments, then handed on."""

from dataclasses import dataclass
from types import SimpleNamespace

from openrlhf_prm.advantages.branch_values import VineOptions
from openrlhf_prm.advantages.estimator import AdvantageEstimator, EstimatorNeed
from openrlhf_prm.length_penalties.penalty import LengthPenalty
from openrlhf_prm.options import build
from openrlhf_prm.ppo.algorithm_choices import ESTIMATOR, PENALTY, SHAPING
from openrlhf_prm.ppo.credit import CreditOptions
from openrlhf_prm.ppo.diversity import DiversityOptions
from openrlhf_prm.ppo.option_groups import (
    AdvantageOptions,
    LengthOptions,
    OnlinePRMOptions,
    OutcomeOptions,
    PRMOptions,
    PRMWorkerOptions,
    ProcessRewardOptions,
    StepOptions,
)
from openrlhf_prm.ppo.rollout.reward_patience import RewardOptions
from openrlhf_prm.ppo.self_correction.options import SelfCorrectionOptions
from openrlhf_prm.ppo.watching import WatchOptions
from openrlhf_prm.rewards.shaping import RewardShaping, ShapingNeed
from vllm_prm.extension_files import names_file


@dataclass(frozen=True, kw_only=True)
class PluginOptions:
    """Options by what they are for; None where nothing in the run reads them.

    prm: a PRM that scores steps, workers: its engines here. online_prm: a PRM that learns in the loop. process_reward,
    shaping and watch: with one or the other. reward: how outcome rewards are waited for. steps: how text is split.
    credit: turns of an agent. self_correction: several attempts in an episode. vine: how states are valued. estimator:
    ours, None for one of the host's.
    """

    prm: PRMOptions | None
    workers: PRMWorkerOptions | None
    online_prm: OnlinePRMOptions | None
    process_reward: ProcessRewardOptions | None
    shaping: RewardShaping | None
    outcome: OutcomeOptions
    reward: RewardOptions | None
    watch: WatchOptions | None
    steps: StepOptions | None
    vine: VineOptions | None
    diversity: DiversityOptions
    credit: CreditOptions | None
    self_correction: SelfCorrectionOptions | None
    length: LengthOptions
    penalty: LengthPenalty | None
    advantages: AdvantageOptions
    estimator: AdvantageEstimator | None

    @property
    def estimator_needs(self) -> frozenset[EstimatorNeed]:
        """The host's estimators read step rewards and nothing else of ours."""
        return self.estimator.needs if self.estimator else frozenset({EstimatorNeed.STEP_REWARDS})

    @property
    def looks_at_steps(self) -> bool:
        """Whether responses are split: for a PRM, for an estimator of the plugin, or for turns."""
        of_turns = self.credit is not None and self.credit.turn_rewards
        return self.shaping is not None or self.estimator is not None or of_turns

    @property
    def reads_probabilities(self) -> bool:
        """Whether rollouts must say how likely their tokens were when they were drawn."""
        return self.estimator is not None and self.estimator.reads_probabilities

    @property
    def credits_separators(self) -> bool:
        """Whether tokens that only separate steps have an advantage."""
        wanted = self.advantages.separators
        return wanted == "credit" or (wanted == "auto" and (self.estimator is None or self.estimator.separator_credit))

    @property
    def acts(self) -> bool:
        """Whether anything of the plugin was asked for; else the host runs as if it were absent, bit for bit."""
        changes_outcome = (
            self.penalty is not None,
            self.diversity.coef,
            self.outcome.truncation_penalty,
            self.outcome.format_pattern,
            self.outcome.outcome_coef != 1.0,
            self.outcome.right_from is not None,
            self.advantages.constant_length_norm,
            self.advantages.negative_weight != 1.0,
            self.advantages.length_alpha,
        )
        return self.looks_at_steps or self.self_correction is not None or any(changes_outcome)


def read_options(args: SimpleNamespace) -> PluginOptions:
    """The options of a run. `args`: the host's hierarchized namespace.

    Raises ValueError, naming the flag, for a value that is not allowed, be it read or not.
    """
    prm = build(PRMOptions, args.prm, "prm")
    workers = build(PRMWorkerOptions, args.prm, "prm")
    process_reward = build(ProcessRewardOptions, args.process_reward, "process_reward")
    shaping = SHAPING.built(process_reward.shaping, args.process_reward)
    online_prm = build(OnlinePRMOptions, args.online_prm, "online_prm")
    reward = build(RewardOptions, args.reward, "reward")
    watch = build(WatchOptions, args.watch, "watch")
    steps = build(StepOptions, args.steps, "steps")
    vine = build(VineOptions, args.vine, "vine")
    estimator = _estimator(args)
    needs = estimator.needs if estimator else frozenset()
    scored, learns = bool(prm.model_name_or_path or prm.url), ShapingNeed.LOG_RATIOS in shaping.needs
    rewarded = scored or learns
    split_by_text = (rewarded or estimator is not None) and EstimatorNeed.SEGMENTS not in needs
    credit = build(CreditOptions, args.credit, "credit")
    split_by_text &= not (args.train.agent_func_path and credit.unit == "turn")
    self_correction = build(SelfCorrectionOptions, args.self_correction, "self_correction")
    length = build(LengthOptions, args.length_penalty, "length_penalty")
    return PluginOptions(
        prm=prm if scored else None,
        workers=workers if prm.model_name_or_path else None,
        online_prm=online_prm if learns else None,
        process_reward=process_reward if rewarded else None,
        shaping=shaping if rewarded else None,
        outcome=build(OutcomeOptions, args.process_reward, "process_reward"),
        reward=reward if args.reward.remote_url or args.train.agent_func_path else None,
        watch=watch if rewarded else None,
        steps=steps if split_by_text else None,
        vine=vine if EstimatorNeed.BRANCH_VALUES in needs else None,
        credit=credit if args.train.agent_func_path else None,
        self_correction=self_correction if self_correction.stage else None,
        diversity=build(DiversityOptions, args.diversity, "diversity"),
        length=length,
        penalty=_penalty(args, length.kind) if length.kind else None,
        advantages=build(AdvantageOptions, args.algo.advantage, "algo.advantage"),
        estimator=estimator,
    )


def generation_limit(args: SimpleNamespace) -> int:
    """How many tokens a response may have, where there are several attempts each of them."""
    return args.self_correction.attempt_tokens or args.rollout.max_new_tokens or args.data.max_len


def _penalty(args: SimpleNamespace, name: str) -> LengthPenalty:
    """With the scale of lengths that fits the run, where none was given."""
    fitted = PENALTY.named(name).fitted(generation_limit(args))
    given = {option: value for option, value in vars(args.length_penalty).items() if value is not None}
    return PENALTY.built(name, SimpleNamespace(**{**fitted, **given}))


def _estimator(args: SimpleNamespace) -> AdvantageEstimator | None:
    name = args.algo.advantage.estimator
    if name not in ESTIMATOR.registry and not names_file(name):
        return None
    # The host's flag says the opposite.
    flags = SimpleNamespace(**vars(args.algo.advantage), std_norm=not args.algo.advantage.no_std_norm)
    return ESTIMATOR.built(name, flags)
