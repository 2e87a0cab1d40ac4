"""An agent of the host's kind with two turns: it asks its question again, and pays less for the first answer. The
response is right where either answer is.
"""

import torch
from openrlhf.utils.agent import AgentInstanceBase, MultiTurnAgentExecutor

from openrlhf_prm.answers.checkers import answer_checker


class Twice(AgentInstanceBase):
    def __init__(self):
        self.turns, self.right, self.is_correct = 0, 0.0, answer_checker("math")

    async def reset(self, states, **kwargs):
        self.question = states["observation"]
        return {"observation": self.question}

    async def step(self, states, **kwargs):
        self.turns += 1
        right = float(self.is_correct(states["action_text"], states["label"]))
        self.right = max(self.right, right)
        last = self.turns == 2
        return {
            "rewards": torch.tensor(right if last else 0.25 + right / 2),
            "scores": torch.tensor(self.right),
            "environment_feedback": "" if last else self.question,
            "done": last,
        }


class AgentExecutor(MultiTurnAgentExecutor):
    def __init__(self):
        super().__init__(Twice)
