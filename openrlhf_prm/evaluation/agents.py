"""Responses of several turns: the agent that a policy was trained with (`--train.agent_func_path`), measured.

Its executor runs in this process and asks the evaluation's engines, as it asks a rollout actor in training, so the
host's executors and a user's own work as they are. What they say of a response is its verdict.
"""

import hashlib
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from openrlhf_prm.answers.outcome_numbers import outcome_number
from openrlhf_prm.data.turns import Turn, read_turns
from vllm_prm.extension_files import load_from_file

FLAG = "--eval.agent_func_path"


def load_agent(path: str) -> Any:
    """An instance of the file's `AgentExecutor`, as the host makes it. Raises ValueError naming the flag."""
    if not path.endswith(".py"):
        raise ValueError(f"{FLAG} {path} must be a Python file, with a class AgentExecutor")
    try:
        executor = load_from_file(f"{path}:AgentExecutor")
    except ValueError as error:
        raise ValueError(f"{FLAG}: {error}") from None
    from openrlhf.utils.agent import AgentExecutorBase

    if not (isinstance(executor, type) and issubclass(executor, AgentExecutorBase)):
        raise ValueError(f"{FLAG} {path}: AgentExecutor must inherit from openrlhf.utils.agent.AgentExecutorBase")
    return executor()


@dataclass(frozen=True)
class Response:
    """What is graded. text: of all turns, with what an environment wrote between them. correct: the agent's verdict,
    None where there is no agent.
    """

    text: str
    turns: list[Turn]
    truncated: bool
    correct: bool | None = None

    @property
    def tokens(self) -> int:
        """How many the policy wrote."""
        return sum(len(turn.tokens) for turn in self.turns)


@dataclass(frozen=True)
class Agent:
    """executor: the host's or a user's. context: how many tokens question and response may have together."""

    executor: Any
    tokenizer: Any
    context: int

    async def respond(self, policy: Any, prompt: str, label: str, request: dict) -> Response:
        """A whole response. `policy` is a pool of engines, `request` the sampling parameters of its turns, but for the
        number of their tokens.

        Raises ValueError, naming the flag and the prompt, where the agent does not say in numbers how good it is.
        """
        import torch
        from vllm import SamplingParams

        from openrlhf_prm.answers.verdicts import are_right

        parameters = SamplingParams(**{**request, "max_tokens": None, "seed": None})
        engine = AskedEngine(policy, request.get("seed"))
        output = await self.executor.execute(prompt, label, parameters, self.context, self.tokenizer, engine)
        turns, tokens = read_turns(output, self.tokenizer), output["observation_tokens"]
        first = output["action_ranges"][0][0] if turns else len(tokens)
        score = output["reward"] if output.get("scores") is None else output["scores"]
        score = torch.tensor([float(outcome_number(score, FLAG, prompt))])
        return Response(
            text=self.tokenizer.decode(tokens[first:], skip_special_tokens=True),
            turns=turns,
            truncated=bool(output["truncated"]),
            correct=bool(are_right(score, torch.tensor([len(turns)]))),
        )


class AskedEngine:
    """A pool of engines as an executor sees the host's rollout actor.

    Each turn of a response has a seed of its own: with the same one, all would be drawn with the same numbers.
    """

    def __init__(self, policy: Any, seed: int | None):
        self.policy, self.seed, self.turns = policy, seed, 0

    async def generate(self, prompt_token_ids, sampling_params, multi_modal_data=None) -> SimpleNamespace:
        """What an executor reads of vLLM's output; log-probabilities are not there."""
        plain = type(sampling_params)()
        names = (name for name in sampling_params.__struct_fields__ if not name.startswith("_"))
        given = {name: getattr(sampling_params, name) for name in names if name != "output_kind"}
        request = {name: value for name, value in given.items() if value != getattr(plain, name)}
        if self.seed is not None:
            request["seed"] = number_of(f"{self.seed}-{self.turns}")
        self.turns += 1
        completions = await self.policy.generate(list(prompt_token_ids), **request)
        outputs = [
            SimpleNamespace(
                token_ids=completion.token_ids,
                text=completion.text,
                finish_reason="length" if completion.truncated else "stop",
                logprobs=None,
            )
            for completion in completions
        ]
        return SimpleNamespace(outputs=outputs)


def number_of(text: str) -> int:
    """A seed that depends on the whole text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
