"""The calculator agent, paid 1 for a right answer and nothing before: what OpenRLHF's own estimators learn from."""

from openrlhf.utils.agent import MultiTurnAgentExecutor

from examples.calculator_agent.agent import CalculatorAgent


class OutcomeAgent(CalculatorAgent):
    """Only the last turn can be paid."""

    async def step(self, states, **kwargs):
        result = await super().step(states, **kwargs)
        return {**result, "rewards": result["scores"]}


class AgentExecutor(MultiTurnAgentExecutor):
    """What the host looks for in the file."""

    def __init__(self):
        super().__init__(OutcomeAgent)
