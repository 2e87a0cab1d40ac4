"""The agent as OpenRLHF runs it, `--train.agent_func_path`: it pays for every turn that is right.

`outcome_agent.py` is the same agent, which pays for the answer alone.
"""

import torch
from openrlhf.utils.agent import AgentInstanceBase, MultiTurnAgentExecutor

from examples.calculator_agent.task import Conversation


class CalculatorAgent(AgentInstanceBase):
    """One conversation: the question, then turn by turn what the calculator writes."""

    def __init__(self):
        self.conversation = None

    async def reset(self, states, **kwargs):
        self.conversation = Conversation(states["observation"])
        return {"observation": states["observation"]}

    async def step(self, states, **kwargs):
        reply = self.conversation.reply(states["action_text"])
        return {
            "rewards": torch.tensor(float(reply.right)),
            "scores": torch.tensor(float(reply.solved)),
            "environment_feedback": reply.feedback,
            "done": reply.done,
        }


class AgentExecutor(MultiTurnAgentExecutor):
    """What the host looks for in the file."""

    def __init__(self):
        super().__init__(CalculatorAgent)
