"""An estimator's expected gradient and its variance, exactly, on decision processes that can be enumerated."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from benchmarks.decision_processes import Parameter, Response, State, forked_groups, responses
from openrlhf_prm.advantages.estimator import AdvantageEstimator, EstimatorNeed, StepBatch

Group = tuple[Response, ...]
Advantages = Callable[[Sequence[Group]], list[list[list[float]]]]
"""Groups, each a batch of its own -> for every response its tokens' advantages."""


@dataclass(frozen=True)
class Row:
    """An estimator with options. unbiased: what the code says of it. reads_steps: whether process rewards count, with
    right_only those of right responses alone. factors: of responses that fork, which make a group of their own size.
    """

    name: str
    unbiased: bool
    reads_steps: bool
    advantages: Advantages
    right_only: bool = False
    factors: tuple[int, ...] = ()


@dataclass(frozen=True)
class Figures:
    """Of one estimator on one process. bias: largest error of the expected gradient; variance: trace."""

    bias: float
    variance: float


def ours(estimator: AdvantageEstimator) -> Advantages:
    """Advantages by one of our estimators."""
    needs = {field for need in estimator.needs for field in need.value}
    forks = EstimatorNeed.FORKS in estimator.needs

    def of_group(group: Group) -> list[list[float]]:
        def tensors(rows) -> list[torch.Tensor]:
            return [torch.tensor(row, dtype=torch.float64) for row in rows]

        there = dict(
            group_size=len(group),
            process_rewards=tensors(response.rewards for response in group),
            token_ids=[response.tokens for response in group],
            values=tensors(response.values for response in group),
            penalties=torch.zeros(len(group), dtype=torch.float64),
            probabilities=tensors(response.probabilities for response in group),
            correct=torch.tensor([response.outcome > 0.5 for response in group]),
            log_ratios=tensors(map(log_ratios, group)),
            fork_ends=[estimator.fork_ends(response.ends, ()) for response in group] if forks else None,
        )
        batch = StepBatch(
            step_ends=[torch.tensor(response.ends) for response in group],
            outcome_rewards=torch.tensor([response.outcome for response in group], dtype=torch.float64),
            **{field: value for field, value in there.items() if field in needs},
        )
        return [tokens.tolist() for tokens in estimator(batch)]

    return lambda groups: [of_group(group) for group in groups]


def leave_one_out(groups: Sequence[Group]) -> list[list[list[float]]]:
    """The host's `rloo` of outcomes, for groups too many for its experience maker."""
    rows = []
    for group in groups:
        total = sum(response.outcome for response in group)
        of = [response.outcome - (total - response.outcome) / (len(group) - 1) for response in group]
        rows.append([[value] * len(response.tokens) for value, response in zip(of, group, strict=True)])
    return rows


def log_ratios(response: Response) -> list[float]:
    """Of its tokens, to a reference that chooses evenly and writes what no choice is as the policy does."""
    ratios = [0.0] * len(response.tokens)
    for state, chosen, place in response.choices:
        ratios[place] = math.log(state.choices[chosen].probability * len(state.choices))
    return ratios


def hosts(estimator: str, *flags: str, reads_steps: bool) -> Advantages:
    """Advantages by one of the host's estimators, through its experience maker and ours; with step rewards by a PRM
    whose scores the shaping `sum` hands on.
    """
    from openrlhf.trainer.ppo_utils.kl_controller import FixedKLController
    from openrlhf.utils import get_strategy

    from benchmarks.host_arguments import arguments
    from openrlhf_prm.ppo.experience import ProcessExperienceMaker
    from openrlhf_prm.ppo.plugin_options import read_options

    common = ("--rollout.micro_batch_size", "64", "--actor.num_gpus_per_node", "1", "--algo.kl.init_coef", "0")
    prm = ("--prm.model_name_or_path", "unused", "--process_reward.shaping", "sum") if reads_steps else ()

    def of_groups(groups: Sequence[Group]) -> list[list[list[float]]]:
        size = len(groups[0])
        args = arguments(estimator, "--rollout.n_samples_per_prompt", str(size), *common, *prm, *flags)
        strategy, options = get_strategy(args), read_options(args)
        whole_batch = estimator in ("group_norm", "rloo", "dr_grpo")  # nothing is shared between questions
        batches = [[response for group in groups for response in group]] if whole_batch else groups
        rows: list[list[float]] = []
        for batch in batches:
            maker = ProcessExperienceMaker(*(None,) * 4, FixedKLController(0.0), strategy, None, options=options)
            samples = [_experience(place, response) for place, response in enumerate(batch)]
            maker._records = [_record(response) for response in batch] if reads_steps else []
            for experience in maker.compute_advantages_and_returns(samples):
                rows.append(experience.advantages[0][experience.action_mask[0].bool()].tolist())
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    return of_groups


def _experience(place: int, response: Response):
    """A response behind one token of prompt; what an environment wrote stands between actions."""
    from openrlhf.trainer.ppo_utils.experience import Experience

    tokens, actions = [5], []
    for token in response.tokens:
        *words, own = token if isinstance(token, tuple) else (token,)
        tokens += [*words, own]
        actions += [0] * len(words) + [1]
    reward = torch.tensor([response.outcome])
    mask = torch.tensor([actions])
    return Experience(
        index=[place],
        sequences=torch.tensor([tokens]),
        attention_mask=torch.ones(1, len(tokens), dtype=torch.long),
        action_mask=mask,
        prompts=["p"],
        labels=["l"],
        rewards=reward,
        scores=reward,
        kl=torch.zeros(mask.shape),
        values=torch.full(mask.shape, 0.25),
        response_length=torch.tensor([len(actions)]),
        truncated=torch.tensor([False]),
        total_length=torch.tensor([float(len(tokens))]),
        info={"reward": reward},
    )


def _record(response: Response):
    from openrlhf_prm.ppo.rollout.records import StepRecord

    # Signed scores 2p - 1 are the rewards.
    return StepRecord(tuple(response.ends), tuple((reward + 1) / 2 for reward in response.rewards), 0.0, 0.0)


def true_gradient(process: State, reads_steps: bool, right_only: bool = False) -> dict[Parameter, float]:
    """Of the expected reward: sum over responses of probability * reward * d log probability."""
    gradient: dict[Parameter, float] = {}
    for response in responses(process):
        paid = reads_steps and (response.outcome > 0.5 or not right_only)
        reward = response.outcome + sum(response.rewards) * paid
        for parameter, derivatives in response.score().items():
            share = response.probability * reward * sum(derivatives.values())
            gradient[parameter] = gradient.get(parameter, 0.0) + share
    return gradient


def figures(row: Row, process: State, group_size: int = 2) -> Figures:
    """Bias and variance."""
    true = true_gradient(process, row.reads_steps, row.right_only)
    mean, square = _moments(row, process, group_size)
    bias = max(abs(mean[parameter] - value) for parameter, value in true.items())
    return Figures(bias, square - sum(value**2 for value in mean.values()))


def expected_gradient(row: Row, process: State, group_size: int = 2) -> dict[Parameter, float]:
    return _moments(row, process, group_size)[0]


def _moments(row: Row, process: State, group_size: int) -> tuple[dict[Parameter, float], float]:
    """The expected gradient and the expected square of its length, by enumeration of all groups."""
    every = responses(process)
    parameters = [parameter for response in every for parameter in response.score()]
    if row.factors:
        weights, groups = zip(*forked_groups(process, row.factors), strict=True)
    else:
        groups = list(itertools.product(every, repeat=group_size))
        weights = [math.prod(response.probability for response in group) for group in groups]
    mean = dict.fromkeys(parameters, 0.0)
    square = 0.0
    for weight, group, advantages in zip(weights, groups, row.advantages(groups), strict=True):
        gradient = dict.fromkeys(parameters, 0.0)
        for response, tokens in zip(group, advantages, strict=True):
            for parameter, derivatives in response.score().items():
                gradient[parameter] += sum(tokens[place] * d for place, d in derivatives.items()) / len(group)
        for parameter, value in gradient.items():
            mean[parameter] += weight * value
        square += weight * sum(value**2 for value in gradient.values())
    return mean, square
