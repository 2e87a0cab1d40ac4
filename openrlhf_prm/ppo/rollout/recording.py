"""What an agent pays for each of its turns, which the host sums up."""

from copy import copy


def recording_rewards(executor) -> tuple[object, list[float]]:
    """An executor of the host's multi-turn kind that also notes what its agent pays turn by turn, which the host sums
    up; and the list in which it does. Any other executor comes back as it is, with None.
    """
    agent = getattr(executor, "agent_instance_cls", None)
    if agent is None:
        return executor, None
    paid: list[float] = []

    class Recording(agent):
        async def step(self, *args, **kwargs):
            result = await super().step(*args, **kwargs)
            paid.append(float(result["rewards"]))
            return result

    executor = copy(executor)
    executor.agent_instance_cls = Recording
    return executor, paid
