"""Which rollout actor a run gets, and what it asks its engine for."""

import asyncio

import openrlhf.trainer.ppo_trainer as sync_trainer
import openrlhf.trainer.ppo_trainer_async as async_trainer
import openrlhf.trainer.ray.vllm_engine as vllm_engine
import pytest
from openrlhf.utils.agent import AgentInstanceBase, MultiTurnAgentExecutor, SingleTurnAgentExecutor

from benchmarks.host_arguments import arguments
from openrlhf_prm import plugin
from openrlhf_prm.ppo.rollout.actor import ProbabilityRolloutActor, StepRolloutActor
from openrlhf_prm.ppo.rollout.executor import StepScoring
from openrlhf_prm.ppo.self_correction.executor import AttemptsExecutor
from openrlhf_prm.ppo.self_correction.options import SelfCorrectionOptions


@pytest.mark.parametrize(("estimator", "actor"), [("spo", ProbabilityRolloutActor), ("vine", StepRolloutActor)])
def test_segments_are_read_from_the_distribution_that_was_sampled(monkeypatch, estimator, actor):
    for module, name in (
        (vllm_engine, "RolloutRayActor"),
        (sync_trainer, "PPOTrainer"),
        (async_trainer, "PPOTrainerAsync"),
    ):
        monkeypatch.setattr(module, name, getattr(module, name))
    plugin.setup(arguments(estimator))
    assert vllm_engine.RolloutRayActor.__ray_metadata__.modified_class is actor


def test_the_engine_is_asked_for_probabilities_after_temperature(monkeypatch):
    asked = {}

    async def start(self, *args, **kwargs):
        asked.update(kwargs)

    monkeypatch.setattr(StepRolloutActor, "__init__", start)
    asyncio.run(ProbabilityRolloutActor.__init__(object.__new__(ProbabilityRolloutActor), model="m"))
    assert asked == {"model": "m", "logprobs_mode": "processed_logprobs"}


def test_an_actor_that_died_while_the_run_began_is_told_twice_and_wraps_once():
    """Ray starts it again before it was told; the trainer sees later that it came back, and tells it once more."""
    scoring = StepScoring(None, None, turn_rewards=True)
    agent = object.__new__(StepRolloutActor)
    chosen = agent.executor = MultiTurnAgentExecutor(AgentInstanceBase)
    agent.attach_step_scoring(scoring)
    agent.attach_step_scoring(scoring)
    assert agent.executor.inner is chosen
    correcting = object.__new__(StepRolloutActor)
    chosen = correcting.executor = SingleTurnAgentExecutor(None)
    for _ in range(2):
        correcting.write_attempts(SelfCorrectionOptions(stage=1), None)
        correcting.attach_step_scoring(scoring)
    assert isinstance(correcting.executor.inner, AttemptsExecutor) and correcting.executor.inner.inner is chosen
