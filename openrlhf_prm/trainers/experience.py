"""Rollouts with step scores -> experiences with step-level advantages, inside the host's experience maker.

Without a PRM and without a length penalty every method hands over to the host unchanged. With the host's own
estimators the host computes baselines, KL, returns and whitening as ever; step rewards are added to the per-token
rewards it is about to sum up. Our estimators get a `StepBatch` and return advantages.
"""

import itertools

import torch
from openrlhf.models.utils import compute_reward
from openrlhf.trainer.ppo_utils.experience import Experience
from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker
from openrlhf.trainer.ppo_utils.length_penalty import apply_length_penalties
from openrlhf.trainer.ppo_utils.samples_generator import SamplesGenerator

from openrlhf_prm.advantages import ADVANTAGE_ESTIMATORS
from openrlhf_prm.advantages.batch import StepBatch
from openrlhf_prm.advantages.host_baselines import apply_host_baseline
from openrlhf_prm.flags import build, uses_prm
from openrlhf_prm.length_penalties import LENGTH_PENALTIES
from openrlhf_prm.rewards import REWARD_SHAPINGS, SCORE_SCALES


class StepSamplesGenerator(SamplesGenerator):
    """The host's generator, keeping the step record that the rollout actor put beside the host's fields."""

    def _process_response_into_experience(self, response, **generate_kwargs) -> Experience:
        experience = super()._process_response_into_experience(response, **generate_kwargs)
        if response.get("steps") is not None:
            # A plain attribute: the host rebuilds experiences from its own fields, but records are taken before that.
            experience.steps = response["steps"].cut(int(experience.action_mask.sum()))
        return experience


class ProcessExperienceMaker(RemoteExperienceMaker):
    """Mixes process rewards, outcome rewards and a length penalty into the host's advantages.

    Shapes: B samples of a micro-batch, A action positions, S steps of a sample. Records are kept in rollout order,
    which is what `experience.index` counts, so batches may be split and reordered freely.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        options = self.args.process_reward
        self.shaping = build(REWARD_SHAPINGS, options.shaping, options)
        self.score_scale = SCORE_SCALES[options.score_scale]
        kind = self.args.length_penalty.kind
        self.length_penalty = build(LENGTH_PENALTIES, kind, self.args.length_penalty) if kind else None
        self.step_estimator = None
        if self.advantage_estimator in ADVANTAGE_ESTIMATORS:
            advantage_options = self.args.algo.advantage
            advantage_options.std_norm = not advantage_options.no_std_norm
            self.step_estimator = build(ADVANTAGE_ESTIMATORS, self.advantage_estimator, advantage_options)
        self._records = []
        self._token_rewards = {}

    def make_experience_batch(self, rollout_samples) -> list[Experience]:
        self._records = [sample.steps for sample in rollout_samples] if uses_prm(self.args) else []
        return super().make_experience_batch(rollout_samples)

    @torch.no_grad()
    def compute_advantages_and_returns(self, experiences: list[Experience]) -> list[Experience]:
        rewards = [self._process_rewards(record) for record in self._records]
        if rewards:
            self._log_process(experiences, rewards)
        if self.length_penalty is not None:
            self._apply_length_penalty(experiences)
        if not rewards:
            return super().compute_advantages_and_returns(experiences)
        if self.step_estimator is not None:
            return self._estimate(experiences, rewards)
        adjusted = apply_host_baseline(self.advantage_estimator, rewards, self.args.rollout.n_samples_per_prompt)
        self._token_rewards = {
            id(experience.action_mask): (experience, self._at_step_ends(experience, adjusted))
            for experience in experiences
        }
        experiences = super().compute_advantages_and_returns(experiences)
        self._token_rewards = {}
        return experiences

    # The host calls these two with the rewards of one experience; `action_mask` tells which.

    def get_cumulative_returns(self, rewards, action_mask, gamma):
        return super().get_cumulative_returns(self._mix(rewards, action_mask), action_mask, gamma)

    def get_advantages_and_returns(self, values, rewards, action_mask, gamma, lambd):
        return super().get_advantages_and_returns(values, self._mix(rewards, action_mask), action_mask, gamma, lambd)

    def _mix(self, rewards: torch.Tensor, action_mask: torch.Tensor) -> torch.Tensor:
        """Host rewards (B, A), outcome at the end, KL everywhere -> outcome_coef * outcome - KL + process rewards."""
        if id(action_mask) not in self._token_rewards:
            return rewards
        experience, process = self._token_rewards[id(action_mask)]
        coef = self.args.process_reward.outcome_coef
        if coef != 1.0:
            penalty = -max(self.kl_ctl.value, 0.0) * experience.kl
            rewards = coef * (rewards - penalty) + penalty
        return rewards + process

    def _process_rewards(self, record) -> torch.Tensor:
        scores = self.score_scale(torch.tensor(record.scores, dtype=torch.float32))
        return self.args.process_reward.coef * self.shaping(scores)

    def _at_step_ends(self, experience: Experience, process_rewards: list[torch.Tensor]) -> torch.Tensor:
        """(B, A) with each step's reward on the last token of the step."""
        tokens = torch.zeros(experience.action_mask.shape, dtype=torch.float32)
        for row, index in enumerate(experience.index):
            actions = _action_positions(experience, row, self._records[index])
            ends = torch.tensor(self._records[index].ends)
            tokens[row, actions[ends - 1]] = process_rewards[index]
        return tokens

    def _apply_length_penalty(self, experiences: list[Experience]) -> None:
        """Adds coef * penalty to the outcome rewards. A response counts as correct with a score (else reward) above
        0.5.
        """
        lengths = self._in_rollout_order(experiences, [experience.response_length for experience in experiences])
        verdicts = [e.rewards if e.scores is None else e.scores for e in experiences]
        correct = self._in_rollout_order(experiences, verdicts) > 0.5
        penalties = self.length_penalty(lengths, correct, self.args.rollout.n_samples_per_prompt)
        for experience in experiences:
            own = self.args.length_penalty.coef * penalties[torch.tensor(experience.index)]
            experience.rewards = experience.rewards.float() + own
            experience.info["length_penalty"] = own

    def _estimate(self, experiences: list[Experience], process_rewards: list[torch.Tensor]) -> list[Experience]:
        """What the host does around its estimators, around ours: penalties, clipping, the KL term, logging."""
        args = self.args
        for experience in experiences:
            experience.rewards = experience.rewards.to(torch.promote_types(experience.rewards.dtype, torch.float32))
        apply_length_penalties(experiences, args)
        outcomes = self._in_rollout_order(experiences, [experience.rewards for experience in experiences])
        outcomes = args.process_reward.outcome_coef * outcomes
        if args.reward.clip_range:
            outcomes = outcomes.clamp(*args.reward.clip_range)
        advantages = self.step_estimator(
            StepBatch(
                process_rewards=process_rewards,
                step_ends=[torch.tensor(record.ends) for record in self._records],
                outcome_rewards=outcomes,
                group_size=args.rollout.n_samples_per_prompt,
            )
        )
        for experience in experiences:
            nothing = torch.zeros(len(experience.index))
            penalty = compute_reward(nothing, self.kl_ctl.value, experience.kl, action_mask=experience.action_mask)
            result = super().get_cumulative_returns(penalty, experience.action_mask, 1.0)
            for row, index in enumerate(experience.index):
                result[row, _action_positions(experience, row, self._records[index])] += advantages[index]
            experience.returns = result
            experience.advantages = result.clone()
            totals = [float(process_rewards[index].sum() + outcomes[index]) for index in experience.index]
            experience.info["return"] = torch.tensor(totals) + penalty.sum(-1)
            experience.kl = None
        return experiences

    def _log_process(self, experiences: list[Experience], process_rewards: list[torch.Tensor]) -> None:
        """Per-sample figures in `info`, which the host averages and sends to its loggers."""
        for experience in experiences:
            records = [self._records[index] for index in experience.index]
            columns = {
                "outcome": experience.rewards.tolist(),
                "reward": [float(process_rewards[index].sum()) for index in experience.index],
                "step_score": [sum(record.scores) / len(record.scores) for record in records],
                "min_step_score": [min(record.scores) for record in records],
                "steps": [len(record.ends) for record in records],
                "repetition": [record.repetition for record in records],
                "scoring_s": [record.scoring_s for record in records],
            }
            experience.info |= {
                f"process/{key}": torch.tensor(values, dtype=torch.float32) for key, values in columns.items()
            }

    def _in_rollout_order(self, experiences: list[Experience], columns: list[torch.Tensor]) -> torch.Tensor:
        """One (B,) column per experience -> (all samples,), sorted by the sample's place in the rollout."""
        indices = torch.tensor(list(itertools.chain.from_iterable(experience.index for experience in experiences)))
        joined = torch.cat(columns).float()
        ordered = torch.empty_like(joined)
        ordered[indices] = joined
        return ordered


def _action_positions(experience: Experience, row: int, record) -> torch.Tensor:
    """The action positions (T,) of one sample's response tokens, checked against its step record."""
    positions = experience.action_mask[row].nonzero().squeeze(-1)
    if len(positions) != record.ends[-1]:
        raise ValueError(f"step spans must align with actions: got {record.ends[-1]} tokens, expected {len(positions)}")
    return positions
