"""What an agent pays turn by turn, noted beside the host's sum."""

import asyncio

from openrlhf_prm.ppo.rollout.recording import recording_rewards


def test_rewards_of_the_hosts_agents_are_noted_turn_by_turn():
    class Agent:
        def __init__(self):
            self.left = [0.5, 1.0]

        async def step(self, states):
            return {"rewards": self.left.pop(0), "done": not self.left}

    class Executor:
        agent_instance_cls = Agent

        async def execute(self):
            agent = self.agent_instance_cls()
            while not (await agent.step({}))["done"]:
                pass

    executor = Executor()
    runs = [recording_rewards(executor) for _ in range(2)]  # two responses that are written at the same time
    for recording, _ in runs:
        asyncio.run(recording.execute())
    assert [paid for _, paid in runs] == [[0.5, 1.0]] * 2
    assert executor.agent_instance_cls is Agent


def test_an_executor_without_agents_is_left_alone():
    single = object()
    assert recording_rewards(single) == (single, None)
