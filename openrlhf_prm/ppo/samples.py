"""The host's samples generator and prompt dataset, with what steps and target lengths need."""

import ray
from openrlhf.datasets import PromptDataset
from openrlhf.trainer.ppo_utils.experience import Experience
from openrlhf.trainer.ppo_utils.samples_generator import SamplesGenerator

from openrlhf_prm.length_penalties.penalty import LengthPenalty, PenaltyNeed
from openrlhf_prm.length_penalties.targets import target_of_row, with_target
from openrlhf_prm.ppo.rollout.revival import with_revival


class StepSamplesGenerator(SamplesGenerator):
    """The host's generator, keeping the step record that the rollout actor put beside the host's fields.

    `sleeper`: PRM engines on the policy's GPUs (`ScoringPool`), awake while the policy writes and asleep otherwise.
    `revive`: set by a trainer that can bring back an engine which died; without it the death ends the run.
    """

    def __init__(self, *args, sleeper=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.sleeper = sleeper
        self.revive = None

    def _generate_vllm(self, dataloader_iter, *args, **kwargs):
        if self.revive is None:
            return super()._generate_vllm(dataloader_iter, *args, **kwargs)
        generate = super()._generate_vllm
        return with_revival(lambda prompts: generate(prompts, *args, **kwargs), dataloader_iter, self.revive)

    def generate_samples(self, **generate_kwargs):
        if self.sleeper is None:
            return super().generate_samples(**generate_kwargs)
        self.sleeper.wake_up()
        try:
            return super().generate_samples(**generate_kwargs)
        finally:
            self.sleeper.sleep()

    def generate_eval_samples(self, **generate_kwargs) -> list[Experience]:
        """Evaluation reads outcomes alone, so nothing is scored and nothing branches meanwhile."""
        self._look_at_steps(False)
        try:
            return super().generate_eval_samples(**generate_kwargs)
        finally:
            self._look_at_steps(True)

    def _look_at_steps(self, wanted: bool) -> None:
        ray.get([engine.look_at_steps.remote(wanted) for engine in self.vllm_engines])

    def _process_response_into_experience(self, response, **generate_kwargs) -> Experience:
        experience = super()._process_response_into_experience(response, **generate_kwargs)
        if response.get("steps") is not None:
            # A plain attribute: the host rebuilds experiences from its own fields, but records are taken before that.
            experience.steps = response["steps"].cut(int(experience.action_mask.sum()))
        if response.get("attempts") is not None:
            experience.attempts = response["attempts"]
        return experience


class TargetedPromptDataset(PromptDataset):
    """The host's prompts, every one with a target length where the length penalty asks for one."""

    def __init__(self, dataset, tokenizer, strategy, input_template=None, *, penalty: LengthPenalty | None):
        if penalty is not None and PenaltyNeed.TARGETS in penalty.needs:
            key, seed = strategy.args.data.input_key, strategy.args.train.seed
            targets = (target_of_row(i, seed, penalty.target_min, penalty.target_max) for i in range(len(dataset)))
            dataset = [
                row | {key: with_target(row[key], penalty.target_template, target)}
                for row, target in zip(dataset, targets, strict=True)
            ]
        super().__init__(dataset, tokenizer, strategy, input_template=input_template)
