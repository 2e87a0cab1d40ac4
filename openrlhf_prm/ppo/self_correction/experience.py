"""Episodes of several attempts -> experiences with SCoRe's advantages, inside the plugin's experience maker."""

from dataclasses import replace

import torch
from openrlhf.models.utils import compute_reward
from openrlhf.trainer.ppo_utils.experience import Experience

from openrlhf_prm.advantages.host_baselines import apply_host_baseline
from openrlhf_prm.answers.verdicts import are_right
from openrlhf_prm.ppo.experience import ProcessExperienceMaker
from openrlhf_prm.ppo.mixing import MixedRewards
from openrlhf_prm.ppo.rollout_columns import RolloutColumns
from openrlhf_prm.ppo.self_correction.figures import episode_columns, figures, of_the_policy, warn_of_copies
from openrlhf_prm.ppo.self_correction.objective import attempt_advantages, attempt_of_positions, kl_coefficients
from openrlhf_prm.ppo.self_correction.records import by_attempt, in_attempts


class SelfCorrectionExperienceMaker(ProcessExperienceMaker):
    """The mixer sees attempts as responses of their own; what comes of it is put on each attempt's tokens.

    Shapes: B episodes of N attempts, G episodes to a question, A positions.
    """

    def make_experience_batch(self, rollout_samples) -> list[Experience]:
        self._attempts = [sample.attempts for sample in rollout_samples]
        return super().make_experience_batch(rollout_samples)

    def _rollout(self, experiences: list[Experience]) -> RolloutColumns:
        self._stage = self.options.self_correction.stage_of(self.mixer.rollouts)
        scores = by_attempt([episode.scores for episode in self._attempts])
        correct = are_right(scores, torch.ones_like(scores), self.options.outcome.right_from)
        rollout = in_attempts(super()._rollout(experiences), self._attempts, correct)
        return replace(rollout, responses=self.tokenizer.batch_decode(rollout.token_ids, skip_special_tokens=True))

    def _apply(self, experiences: list[Experience], rollout: RolloutColumns, mixed: MixedRewards) -> None:
        """What is logged; rewards stay those of the last attempts, which the host logs."""
        offline = torch.tensor([episode.offline for episode in self._attempts])
        own = of_the_policy(figures(rollout, len(self._attempts)), offline)
        warn_of_copies(own)
        if self.options.self_correction.offline_share:
            own["self_correction/offline"] = offline.float()
        own["self_correction/stage"] = torch.full((len(self._attempts),), float(self._stage))
        columns = episode_columns(mixed.columns, len(self._attempts)) | own
        self.logged = tuple(columns)
        for experience in experiences:
            index = torch.tensor(experience.index)
            experience.info |= {name: column[index].float() for name, column in columns.items()}

    def _estimate_by_host(
        self, experiences: list[Experience], rollout: RolloutColumns, mixed: MixedRewards
    ) -> list[Experience]:
        """The host's `rloo`, attempt by attempt: its baseline, its KL term with the attempt's coefficient."""
        options, count = self.options.self_correction, len(self._attempts)
        outcomes = rollout.outcomes.reshape(-1, count)
        rewards = (self.options.outcome.outcome_coef * rollout.outcomes + mixed.penalties).reshape(-1, count)
        clip = self.args.reward.clip_range
        advantages = attempt_advantages(
            rewards, outcomes, rollout.group_size, stage=self._stage, alpha=options.alpha, clip=clip
        )
        beta1 = self.kl_ctl.value if options.beta1 is None else options.beta1
        coefficients = kl_coefficients(len(rewards), stage=self._stage, beta1=beta1, beta2=options.beta2)
        process = self._process_rewards(rollout, mixed)
        deviations = rewards[-1].reshape(-1, rollout.group_size).std(-1).repeat_interleave(rollout.group_size)
        for experience in experiences:
            index = torch.tensor(experience.index)
            experience.info["group_reward_std"] = deviations[index]
            self._spread(experience, advantages[:, index], coefficients, process)
        return experiences

    def _process_rewards(self, rollout: RolloutColumns, mixed: MixedRewards) -> dict[int, list]:
        """Place of an attempt -> its step rewards, weighted, less their baseline, and where they stand in the attempt.
        Stage 1 pays no first attempt.
        """
        if self.options.shaping is None:
            return {}
        compared = apply_host_baseline(
            "rloo", mixed.process, rollout.group_size, self.options.process_reward.baseline_of
        )
        unpaid = len(self._attempts) if self._stage == 1 else 0
        return {
            place: (mixed.weight * rewards, mixed.ends[place])
            for place, rewards in enumerate(compared)
            if place >= unpaid
        }

    def _spread(
        self, experience: Experience, advantages: torch.Tensor, coefficients: list[float], process: dict
    ) -> None:
        """(N, B) advantages of attempts and step rewards -> the experience's advantages, one attempt after the other:
        nothing is summed up beyond the end of an attempt.
        """
        mask, count = experience.action_mask, len(self._attempts)
        attempt_of = torch.stack(
            [attempt_of_positions(row, self._attempts[i].ends) for row, i in zip(mask, experience.index, strict=True)]
        )
        returns, paid = torch.zeros(mask.shape), torch.zeros(len(mask))
        for attempt, (advantage, coefficient) in enumerate(zip(advantages, coefficients, strict=True)):
            mine = attempt_of == attempt
            own = mask * mine
            rewards = compute_reward(advantage, coefficient, experience.kl, action_mask=own)
            for row, index in enumerate(experience.index):
                if attempt * count + index in process:
                    steps, ends = process[attempt * count + index]
                    rewards[row, own[row].nonzero().squeeze(-1)[ends - 1]] += steps
            returns = self.get_cumulative_returns(rewards, own, 1.0).where(mine, returns)
            paid += rewards.where(mine, 0.0).sum(-1)
        experience.returns, experience.advantages = returns, returns.clone()
        experience.info["return"] = paid
        experience.kl = None
