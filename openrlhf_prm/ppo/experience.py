"""Rollouts with step records -> experiences with step-level advantages, inside the host's experience maker.

Where nothing of the plugin was asked for every method hands over to the host unchanged. With the host's own
estimators the host computes baselines, KL, returns and whitening as ever; step rewards are added to the per-token
rewards it is about to sum up. Our estimators get a `StepBatch` and return advantages.
"""

import itertools
from dataclasses import replace
from functools import partial

import ray
import torch
from openrlhf.models.utils import compute_reward
from openrlhf.trainer.ppo_utils.experience import Experience
from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker
from openrlhf.trainer.ppo_utils.length_penalty import apply_length_penalties

from openrlhf_prm.advantages.estimator import EstimatorNeed, StepBatch
from openrlhf_prm.advantages.host_baselines import apply_host_baseline
from openrlhf_prm.advantages.tensors import length_adaptive_lambda, weigh_negative
from openrlhf_prm.answers.verdicts import are_right
from openrlhf_prm.ppo import empty_batches
from openrlhf_prm.ppo.booking import Booking
from openrlhf_prm.ppo.credit import TurnRewards, left_of_outcome, turn_rewards
from openrlhf_prm.ppo.finite import require_finite
from openrlhf_prm.ppo.host_feeding import fed, fed_outcomes, kept_sizes, penalties_applied
from openrlhf_prm.ppo.mixing import MixedRewards, RewardMixer
from openrlhf_prm.ppo.own_tokens import has_observations, over_own_tokens
from openrlhf_prm.ppo.plugin_options import PluginOptions
from openrlhf_prm.ppo.response_tokens import action_positions, credited, in_context, log_ratios, turns_of
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
        self.booking = Booking(self.args.ckpt.path)
        self.logged: tuple[str, ...] = ()  # the columns of the last rollout, in `info`
        self._records = []
        self._token_rewards = {}
        self._stand_empty_batches = False

    def make_experience_batch(self, rollout_samples) -> list[Experience]:
        self._records = [sample.steps for sample in rollout_samples] if self.options.looks_at_steps else []
        return super().make_experience_batch(rollout_samples)

    @torch.no_grad()
    def compute_advantages_and_returns(self, experiences: list[Experience]) -> list[Experience]:
        if not self.options.acts:
            experiences = super().compute_advantages_and_returns(experiences)
            self.booking.rollout(experiences, 0, ())
            return require_finite(experiences)
        rollout = self._rollout(experiences)
        figures = {}
        if self.online_prm is not None:
            log_ratios, figures = self.online_prm.judge(*self._rows(experiences), rollout.correct, self.mixer.rollouts)
            rollout = replace(rollout, log_ratios=log_ratios)
        mixed = self.mixer(rollout)
        mixed.columns.update(figures)
        self.logged = tuple(mixed.columns)
        self._apply(experiences, rollout, mixed)
        self._leave_out(experiences, mixed.kept)
        if self.options.estimator is not None:
            experiences = self._estimate(experiences, rollout, mixed)
        else:
            experiences = self._estimate_by_host(experiences, rollout, mixed)
        if self.options.advantages.constant_length_norm:
            self._divide_by_limit(experiences)
        for experience in experiences:
            experience.advantages = weigh_negative(experience.advantages, self.options.advantages.negative_weight)
            if not self.options.credits_separators:
                self._spare_separators(experience)
        self._prepare_for_empty_batches(experiences)
        self.booking.rollout(experiences, int((~mixed.kept).sum()), self._records)
        return require_finite(experiences)

    # The host calls these two with the rewards of one experience; `action_mask` tells which.

    def get_cumulative_returns(self, rewards, action_mask, gamma):
        rewards = self._mix(rewards, action_mask)
        recursion = partial(super().get_cumulative_returns, gamma=gamma)
        if self.options.acts and has_observations(action_mask):
            return over_own_tokens(recursion, [rewards], action_mask)
        return recursion(rewards, action_mask)

    def get_advantages_and_returns(self, values, rewards, action_mask, gamma, lambd):
        rewards = self._mix(rewards, action_mask)

        def recursion(credit):
            host = partial(super(ProcessExperienceMaker, self).get_advantages_and_returns, gamma=gamma, lambd=credit)
            if self.options.acts and has_observations(action_mask):
                return over_own_tokens(host, [values, rewards], action_mask)
            return host(values, rewards, action_mask)

        if alpha := self.options.advantages.length_alpha:
            # The critic's targets are whole returns (VAPO, decoupled GAE).
            return recursion(length_adaptive_lambda(action_mask.sum(-1), alpha))[0], recursion(1.0)[1]
        return recursion(lambd)

    def _mix(self, rewards: torch.Tensor, action_mask: torch.Tensor) -> torch.Tensor:
        """Host rewards (B, A), outcome at the end, KL everywhere -> the same with process rewards and turns'."""
        process = self._token_rewards.get(id(action_mask))
        return rewards if process is None else rewards + process

    def _rollout(self, experiences: list[Experience]) -> RolloutColumns:
        """What the mixer sees."""
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
        counts = [turns_of(e.action_mask[row]) for e, row in ordered]
        if self._records:  # between two turns an environment may have written nothing
            counts = [max(count, len(rec.turn_ends)) for count, rec in zip(counts, self._records, strict=True)]
        return RolloutColumns(
            outcomes=outcomes,
            correct=are_right(
                self._in_rollout_order(experiences, verdicts), torch.tensor(counts), self.options.outcome.right_from
            ),
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
        """Weighted outcome rewards with their penalties, and the columns to log."""
        outcomes = self.options.outcome.outcome_coef * rollout.outcomes + mixed.penalties
        came = self._in_rollout_order(experiences, [experience.rewards for experience in experiences])
        for experience in experiences:
            index = torch.tensor(experience.index)
            if not torch.equal(outcomes, came):
                experience.rewards = outcomes[index]
            experience.info |= {name: column[index].float() for name, column in mixed.columns.items()}

    def _leave_out(self, experiences: list[Experience], kept: torch.Tensor) -> None:
        """Samples that are left out lose their actions before anything is compared: neither deviations and whitening
        nor the loss's means over tokens and sequences see them.
        """
        for experience in experiences:
            experience.action_mask[~kept[torch.tensor(experience.index)]] = 0

    def _spare_separators(self, experience: Experience) -> None:
        """Tokens that only separate steps get no advantage."""
        for row, index in enumerate(experience.index):
            spared = torch.tensor(self._records[index].separators, dtype=torch.long)
            if len(spared) and experience.action_mask[row].any():
                positions = action_positions(experience, row, self._records[index])
                experience.advantages[row, positions[spared]] = 0.0

    def _prepare_for_empty_batches(self, experiences: list[Experience]) -> None:
        """Where a response has no action, micro-batches may have none."""
        empty = [~experience.action_mask.bool().any(-1) for experience in experiences]
        for experience, rows in zip(experiences, empty, strict=True):
            for name in ("kl", "logprobs_diff"):  # means over no token
                if name in experience.info:
                    experience.info[name] = experience.info[name].where(~rows, 0.0)
        if self._stand_empty_batches or not torch.cat(empty).any():
            return
        for group in (self.actor_model_group, self.critic_model_group):
            if group is not None:
                ray.get([actor.__ray_call__.remote(empty_batches.install) for actor in group._actor_handlers])
        self._stand_empty_batches = True

    def _outcomes(self, experiences: list[Experience]) -> torch.Tensor:
        """(all samples,) outcome rewards in rollout order, with the host's penalties applied."""
        for experience in experiences:
            experience.rewards = experience.rewards.to(torch.promote_types(experience.rewards.dtype, torch.float32))
        apply_length_penalties(experiences, self.args)
        return self._in_rollout_order(experiences, [experience.rewards for experience in experiences])

    def _estimate_by_host(
        self, experiences: list[Experience], rollout: RolloutColumns, mixed: MixedRewards
    ) -> list[Experience]:
        outcomes, name = self._outcomes(experiences), self.advantage_estimator
        if mixed.process:
            kept = mixed.kept.nonzero().flatten().tolist()
            # Weights come after the baseline: `group_norm` divides by the deviation, which would take them out again.
            adjusted = self._step_rewards_for_host(rollout, mixed, kept)
            self._token_rewards = {
                id(experience.action_mask): self._at_step_ends(experience, adjusted, mixed.ends)
                for experience in experiences
            }
        gamma = self.args.algo.advantage.gamma
        rewards = fed_outcomes(name, outcomes, mixed.kept, rollout.group_size, gamma)
        with penalties_applied(self.args):
            if rewards is None:
                experiences = super().compute_advantages_and_returns(experiences)
            else:
                with fed(self.args, experiences, rewards, mixed.kept, outcomes):
                    experiences = super().compute_advantages_and_returns(experiences)
        self._token_rewards = {}
        return experiences

    def _step_rewards_for_host(
        self, rollout: RolloutColumns, mixed: MixedRewards, kept: list[int]
    ) -> dict[int, torch.Tensor]:
        """Place of a kept sample in the rollout -> its step rewards (S,), weighted, less the estimator's baseline."""
        sizes = kept_sizes(mixed.kept, rollout.group_size)
        process = [mixed.process[place] for place in kept]
        compared = self.options.process_reward.baseline_of if self.options.process_reward else "steps"
        adjusted = apply_host_baseline(self.advantage_estimator, process, sizes, compared) if kept else []
        adjusted = [mixed.weight * rewards for rewards in adjusted]
        if rollout.turns is not None and kept:
            # Against other turns, not against steps that nobody paid for.
            turns = of_samples(rollout.turns, kept)
            paid = replace(turns, rewards=apply_host_baseline(self.advantage_estimator, turns.rewards, sizes))
            paid = paid.at([mixed.ends[place] for place in kept])
            adjusted = [rewards + turn for rewards, turn in zip(adjusted, paid, strict=True)]
        return dict(zip(kept, adjusted, strict=True))

    def _at_step_ends(
        self, experience: Experience, process_rewards: dict[int, torch.Tensor], ends: list[torch.Tensor]
    ) -> torch.Tensor:
        """(B, A) with each step's reward on the last token of the step; 0 for samples without rewards."""
        tokens = torch.zeros(experience.action_mask.shape, dtype=torch.float32)
        for row, index in enumerate(experience.index):
            if index not in process_rewards:
                continue
            actions = action_positions(experience, row, self._records[index])
            tokens[row, actions[ends[index] - 1]] = process_rewards[index]
        return tokens

    def _estimate(
        self, experiences: list[Experience], rollout: RolloutColumns, mixed: MixedRewards
    ) -> list[Experience]:
        """What the host does around its estimators, around ours: penalties, clipping, the KL term, logging."""
        outcomes = self._outcomes(experiences)
        if self.args.reward.clip_range:
            outcomes = outcomes.clamp(*self.args.reward.clip_range)
        kept = mixed.kept.nonzero().flatten().tolist()
        advantages, trained = self._advantages(experiences, rollout, mixed, outcomes, kept)
        returns = outcomes.clone()
        if EstimatorNeed.STEP_REWARDS in self.options.estimator.needs:
            returns += torch.stack([mixed.weight * rewards.sum() for rewards in mixed.process])
        for experience in experiences:
            nothing = torch.zeros(len(experience.index))
            penalty = compute_reward(nothing, self.kl_ctl.value, experience.kl, action_mask=experience.action_mask)
            result = super().get_cumulative_returns(penalty, experience.action_mask, 1.0)
            for row, index in enumerate(experience.index):
                if index in advantages:
                    positions = action_positions(experience, row, self._records[index])
                    result[row, positions] += advantages[index]
                    if index in trained:
                        experience.action_mask[row, positions[~trained[index]]] = 0
            experience.returns = result
            experience.advantages = result.clone()
            experience.info["return"] = returns[torch.tensor(experience.index)] + penalty.sum(-1)
            experience.kl = None
        return experiences

    def _advantages(
        self,
        experiences: list[Experience],
        rollout: RolloutColumns,
        mixed: MixedRewards,
        outcomes: torch.Tensor,
        kept: list[int],
    ) -> tuple[dict[int, torch.Tensor], dict[int, torch.Tensor]]:
        """Place of a kept sample in the rollout -> its advantages (T,), and which of its tokens the loss counts, where
        the estimator leaves some out.
        """
        if not kept:
            return {}, {}
        batch = self._step_batch(experiences, rollout, mixed, outcomes, kept)
        advantages = self.options.estimator(batch)
        # What is left of rewards that agree is rounding, which an optimizer such as Adam would make steps of.
        rounding = 1e-6 * max(1.0, float(outcomes.abs().max()))
        advantages = [tokens.where(tokens.abs() > rounding, 0.0) for tokens in advantages]
        trained = self.options.estimator.trained_tokens(batch)
        places = dict(zip(kept, trained, strict=True)) if trained is not None else {}
        return dict(zip(kept, advantages, strict=True)), places

    def _step_batch(
        self,
        experiences: list[Experience],
        rollout: RolloutColumns,
        mixed: MixedRewards,
        outcomes: torch.Tensor,
        kept: list[int],
    ) -> StepBatch:
        """What the estimator declares that it needs of the samples that are kept, and nothing else. outcomes: penalties
        included.
        """
        needs, coef = self.options.estimator.needs, self.options.outcome.outcome_coef
        there = {"group_size": kept_sizes(mixed.kept, rollout.group_size)}
        there["process_rewards"] = [mixed.weight * mixed.process[place] for place in kept]
        if rollout.turns is not None:
            turns = of_samples(rollout.turns, kept).at([mixed.ends[place] for place in kept])
            there["process_rewards"] = [a + b for a, b in zip(there["process_rewards"], turns, strict=True)]
        there["penalties"] = (outcomes - coef * rollout.outcomes)[kept]
        if EstimatorNeed.TOKENS in needs:
            tokens = self._tokens_in_context(experiences)
            there["token_ids"] = [tokens[place] for place in kept]
        if EstimatorNeed.BRANCH_VALUES in needs:
            values = [mixed.values[place] for place in kept]
            there["values"] = [None if row is None else coef * row for row in values]
        if EstimatorNeed.SEGMENTS in needs:
            there["probabilities"] = [torch.tensor(self._records[place].probabilities) for place in kept]
        there["correct"] = rollout.correct[kept]
        there["fork_ends"] = [self._records[place].fork_ends for place in kept]
        if EstimatorNeed.POLICY_LOG_RATIOS in needs:
            ratios = log_ratios(experiences)
            there["log_ratios"] = [ratios[place] for place in kept]
        fields = {field: there[field] for need in needs for field in need.value}
        if not self.options.credits_separators:
            fields["credited"] = [credited(self._records[place]) for place in kept]
        return StepBatch(step_ends=[mixed.ends[place] for place in kept], outcome_rewards=outcomes[kept], **fields)

    def _tokens_in_context(self, experiences: list[Experience]) -> dict[int, list[int | tuple[int, ...]]]:
        """Place in the rollout -> a response's tokens, one that an environment's words stand before as a tuple."""
        return {
            index: in_context(experience.sequences[row], experience.action_mask[row])
            for experience in experiences
            for row, index in enumerate(experience.index)
        }

    def _divide_by_limit(self, experiences: list[Experience]) -> None:
        """Dr. GRPO (arXiv:2503.20783): the host's loss divides each response's sum by its length T, so T / limit in the
        advantages leaves a sum over tokens divided by the length limit.
        """
        limit = self.args.rollout.max_new_tokens or self.args.data.max_len
        for experience in experiences:
            experience.advantages = experience.advantages * (experience.action_mask.sum(-1, keepdim=True) / limit)

    def _in_rollout_order(self, experiences: list[Experience], columns: list[torch.Tensor]) -> torch.Tensor:
        """One (B,) column per experience -> (all samples,), sorted by the sample's place in the rollout."""
        indices = torch.tensor(list(itertools.chain.from_iterable(experience.index for experience in experiences)))
        joined = torch.cat(columns).float()
        ordered = torch.empty_like(joined)
        ordered[indices] = joined
        return ordered


def of_samples(turns: TurnRewards, places: list[int]) -> TurnRewards:
    """The turns of some of a rollout's samples."""
    return TurnRewards(
        [turns.rewards[place] for place in places], [turns.ends[place] for place in places], turns.total[places]
    )
