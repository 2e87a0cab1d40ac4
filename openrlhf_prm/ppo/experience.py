"""Rollouts with step records -> experiences with step-level advantages, inside the host's experience maker.

Where nothing of the plugin was asked for every method hands over to the host unchanged. With the host's own
estimators the host computes baselines, KL, returns and whitening as ever; step rewards are added to the per-token
rewards it is about to sum up. Our estimators get a `StepBatch` and return advantages.
"""

import itertools
from dataclasses import replace
from functools import partial

import torch
from openrlhf.models.utils import compute_reward
from openrlhf.trainer.ppo_utils.experience import Experience
from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker
from openrlhf.trainer.ppo_utils.length_penalty import apply_length_penalties

from openrlhf_prm.advantages.estimator import EstimatorNeed, StepBatch
from openrlhf_prm.advantages.host_baselines import apply_host_baseline
from openrlhf_prm.advantages.tensors import weigh_negative
from openrlhf_prm.ppo.credit import left_of_outcome, turn_rewards
from openrlhf_prm.ppo.mixing import MixedRewards, RewardMixer
from openrlhf_prm.ppo.own_tokens import has_observations, over_own_tokens
from openrlhf_prm.ppo.plugin_options import PluginOptions
from openrlhf_prm.ppo.rollout_columns import RolloutColumns


class ProcessExperienceMaker(RemoteExperienceMaker):
    """Mixes process rewards, outcome rewards and penalties into the host's advantages.

    Shapes: B samples of a micro-batch, A action positions, S steps of a sample. Records are kept in rollout order,
    which is what `experience.index` counts, so batches may be split and reordered freely.
    """

    def __init__(self, *args, options: PluginOptions, **kwargs):
        super().__init__(*args, **kwargs)
        self.options = options
        self.mixer = RewardMixer(options)
        self.online_prm = None  # set by the trainer where a PRM is trained in the loop
        self.logged: tuple[str, ...] = ()  # the columns of the last rollout, in `info`
        self._records = []
        self._token_rewards = {}

    def make_experience_batch(self, rollout_samples) -> list[Experience]:
        self._records = [sample.steps for sample in rollout_samples] if self.options.looks_at_steps else []
        return super().make_experience_batch(rollout_samples)

    @torch.no_grad()
    def compute_advantages_and_returns(self, experiences: list[Experience]) -> list[Experience]:
        if not self.options.acts:
            return super().compute_advantages_and_returns(experiences)
        rollout = self._rollout(experiences)
        figures = {}
        if self.online_prm is not None:
            log_ratios, figures = self.online_prm.judge(*self._rows(experiences), rollout.correct, self.mixer.rollouts)
            rollout = replace(rollout, log_ratios=log_ratios)
        mixed = self.mixer(rollout)
        mixed.columns.update(figures)
        self.logged = tuple(mixed.columns)
        self._apply(experiences, rollout, mixed)
        if self.options.estimator is not None:
            experiences = self._estimate(experiences, rollout, mixed)
        else:
            experiences = self._estimate_by_host(experiences, rollout, mixed)
        if self.options.advantages.constant_length_norm:
            self._divide_by_limit(experiences)
        for experience in experiences:
            experience.advantages = weigh_negative(experience.advantages, self.options.advantages.negative_weight)
        self._leave_out(experiences, mixed.kept)
        return experiences

    # The host calls these two with the rewards of one experience; `action_mask` tells which.

    def get_cumulative_returns(self, rewards, action_mask, gamma):
        rewards = self._mix(rewards, action_mask)
        recursion = partial(super().get_cumulative_returns, gamma=gamma)
        if self.options.acts and has_observations(action_mask):
            return over_own_tokens(recursion, [rewards], action_mask)
        return recursion(rewards, action_mask)

    def get_advantages_and_returns(self, values, rewards, action_mask, gamma, lambd):
        rewards = self._mix(rewards, action_mask)
        recursion = partial(super().get_advantages_and_returns, gamma=gamma, lambd=lambd)
        if self.options.acts and has_observations(action_mask):
            return over_own_tokens(recursion, [values, rewards], action_mask)
        return recursion(values, rewards, action_mask)

    def _mix(self, rewards: torch.Tensor, action_mask: torch.Tensor) -> torch.Tensor:
        """Host rewards (B, A), outcome at the end, KL everywhere -> the same with process rewards and turns'."""
        process = self._token_rewards.get(id(action_mask))
        return rewards if process is None else rewards + process

    def _rollout(self, experiences: list[Experience]) -> RolloutColumns:
        """What the mixer sees. A response counts as correct with a score (else reward) above 0.5."""
        verdicts = [
            experience.rewards if experience.scores is None else experience.scores for experience in experiences
        ]
        places = {index: (e, row) for e in experiences for row, index in enumerate(e.index)}
        ordered = [places[index] for index in range(len(places))]
        reads_text = self.mixer.penalties.reads_text
        outcomes = self._in_rollout_order(experiences, [experience.rewards for experience in experiences])
        turns = None
        if self.options.credit is not None and self.options.credit.turn_rewards:
            turns = turn_rewards(self._records, self.options.credit.turn_coef)
            outcomes = left_of_outcome(outcomes, turns.total)
        token_ids = [e.sequences[row, 1:][e.action_mask[row].bool()].tolist() for e, row in ordered]
        return RolloutColumns(
            outcomes=outcomes,
            correct=self._in_rollout_order(experiences, verdicts) > 0.5,
            lengths=torch.tensor([float(len(tokens)) for tokens in token_ids]),
            truncated=self._in_rollout_order(experiences, [experience.truncated for experience in experiences]) > 0.5,
            prompts=[e.prompts[row] for e, row in ordered],
            responses=self.tokenizer.batch_decode(token_ids, skip_special_tokens=True) if reads_text else None,
            token_ids=token_ids,
            records=self._records,
            turns=turns,
            group_size=self.args.rollout.n_samples_per_prompt,
        )

    def _rows(self, experiences: list[Experience]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Tokens (L,) and action masks (L - 1,) of all responses in rollout order, without padding."""
        rows = {
            index: (
                e.sequences[row][e.attention_mask[row].bool()],
                e.action_mask[row][e.attention_mask[row, 1:].bool()],
            )
            for e in experiences
            for row, index in enumerate(e.index)
        }
        ordered = [rows[index] for index in range(len(rows))]
        return [tokens for tokens, _ in ordered], [mask.bool() for _, mask in ordered]

    def _apply(self, experiences: list[Experience], rollout: RolloutColumns, mixed: MixedRewards) -> None:
        """Weighted outcome rewards with their penalties, and the columns to log. A sample that is left out gets the
        mean of its group's others, so that it moves no baseline.
        """
        outcomes = self.options.outcome.outcome_coef * rollout.outcomes + mixed.penalties
        groups, kept = outcomes.reshape(-1, rollout.group_size), mixed.kept.reshape(-1, rollout.group_size)
        means = (groups * kept).sum(-1, keepdim=True) / kept.sum(-1, keepdim=True).clamp(min=1)
        outcomes = groups.where(kept, means).reshape(-1)
        came = self._in_rollout_order(experiences, [experience.rewards for experience in experiences])
        for experience in experiences:
            index = torch.tensor(experience.index)
            if not torch.equal(outcomes, came):
                experience.rewards = outcomes[index]
            experience.info |= {name: column[index].float() for name, column in mixed.columns.items()}

    def _estimate_by_host(
        self, experiences: list[Experience], rollout: RolloutColumns, mixed: MixedRewards
    ) -> list[Experience]:
        if mixed.process:
            group_size = self.args.rollout.n_samples_per_prompt
            # Weights come after the baseline: `group_norm` divides by the deviation, which would take them out again.
            adjusted = apply_host_baseline(self.advantage_estimator, mixed.process, group_size)
            adjusted = [mixed.weight * rewards for rewards in adjusted]
            if rollout.turns is not None:
                # Against other turns, not against steps that nobody paid for.
                paid = apply_host_baseline(self.advantage_estimator, rollout.turns.rewards, group_size)
                paid = replace(rollout.turns, rewards=paid).at(mixed.ends)
                adjusted = [rewards + turns for rewards, turns in zip(adjusted, paid, strict=True)]
            self._token_rewards = {
                id(experience.action_mask): self._at_step_ends(experience, adjusted, mixed.ends)
                for experience in experiences
            }
        experiences = super().compute_advantages_and_returns(experiences)
        self._token_rewards = {}
        return experiences

    def _at_step_ends(
        self, experience: Experience, process_rewards: list[torch.Tensor], ends: list[torch.Tensor]
    ) -> torch.Tensor:
        """(B, A) with each step's reward on the last token of the step."""
        tokens = torch.zeros(experience.action_mask.shape, dtype=torch.float32)
        for row, index in enumerate(experience.index):
            actions = _action_positions(experience, row, self._records[index])
            tokens[row, actions[ends[index] - 1]] = process_rewards[index]
        return tokens

    def _estimate(
        self, experiences: list[Experience], rollout: RolloutColumns, mixed: MixedRewards
    ) -> list[Experience]:
        """What the host does around its estimators, around ours: penalties, clipping, the KL term, logging."""
        for experience in experiences:
            experience.rewards = experience.rewards.to(torch.promote_types(experience.rewards.dtype, torch.float32))
        apply_length_penalties(experiences, self.args)
        outcomes = self._in_rollout_order(experiences, [experience.rewards for experience in experiences])
        if self.args.reward.clip_range:
            outcomes = outcomes.clamp(*self.args.reward.clip_range)
        batch = self._step_batch(rollout, mixed, outcomes)
        advantages = self.options.estimator(batch)
        returns = outcomes
        if batch.process_rewards is not None:
            returns = torch.stack([rewards.sum() for rewards in batch.process_rewards]) + outcomes
        for experience in experiences:
            nothing = torch.zeros(len(experience.index))
            penalty = compute_reward(nothing, self.kl_ctl.value, experience.kl, action_mask=experience.action_mask)
            result = super().get_cumulative_returns(penalty, experience.action_mask, 1.0)
            for row, index in enumerate(experience.index):
                result[row, _action_positions(experience, row, self._records[index])] += advantages[index]
            experience.returns = result
            experience.advantages = result.clone()
            experience.info["return"] = returns[torch.tensor(experience.index)] + penalty.sum(-1)
            experience.kl = None
        return experiences

    def _step_batch(self, rollout: RolloutColumns, mixed: MixedRewards, outcomes: torch.Tensor) -> StepBatch:
        """What the estimator declares that it needs, and nothing else. outcomes: penalties included."""
        needs, coef = self.options.estimator.needs, self.options.outcome.outcome_coef
        there = {"group_size": rollout.group_size, "token_ids": rollout.token_ids}
        there["process_rewards"] = [mixed.weight * rewards for rewards in mixed.process]
        if rollout.turns is not None:
            paid = zip(there["process_rewards"], rollout.turns.at(mixed.ends), strict=True)
            there["process_rewards"] = [rewards + turns for rewards, turns in paid]
        there["penalties"] = outcomes - coef * rollout.outcomes
        if EstimatorNeed.BRANCH_VALUES in needs:
            there["values"] = [None if values is None else coef * values for values in mixed.values]
        if EstimatorNeed.SEGMENTS in needs:
            there["probabilities"] = [torch.tensor(record.probabilities) for record in self._records]
        fields = {field: there[field] for need in needs for field in need.value}
        return StepBatch(step_ends=mixed.ends, outcome_rewards=outcomes, **fields)

    def _divide_by_limit(self, experiences: list[Experience]) -> None:
        """Dr. GRPO (arXiv:2503.20783): the host's loss divides each response's sum by its length T, so T / limit in the
        advantages leaves a sum over tokens divided by the length limit.
        """
        limit = self.args.rollout.max_new_tokens or self.args.data.max_len
        for experience in experiences:
            experience.advantages = experience.advantages * (experience.action_mask.sum(-1, keepdim=True) / limit)

    def _leave_out(self, experiences: list[Experience], kept: torch.Tensor) -> None:
        """Samples that are left out keep one token in the loss, with advantage 0 and, for a critic, what it says
        already as its target: the host divides by a micro-batch's number of tokens.
        """
        for experience in experiences:
            for row, index in enumerate(experience.index):
                if not kept[index]:
                    last = experience.action_mask[row].nonzero()[-1]
                    experience.advantages[row] = 0.0
                    if experience.values is not None:
                        experience.returns[row] = experience.values[row]
                    experience.action_mask[row] = 0
                    experience.action_mask[row, last] = 1

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
