"""`POST /pooling` with `data`, and `LLM.encode({"data": ...})`: step rewards for clients that speak vLLM's pooling API.

`data` is one solution as in `POST /v1/step_rewards` (`question` or `messages`, `steps` or `response`, `splitter`) or a
list of them; the answer's `data` is a list of `{index, step_rewards}`. Thin on purpose: vLLM gives this interface no
parameters per request, so every token is forwarded (no score cache, no prefix cache) and a solution beyond the context
is an error. `POST /v1/step_rewards` has neither limitation.

vLLM calls `pre_process`, `merge_pooling_params` and `post_process` of one object for all requests. Which positions a
request wants is kept from the first call to the last, under its id and its tokens: clients choose the id
(`X-Request-Id`), and two may choose the same.
"""

import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from pydantic import TypeAdapter, ValidationError
from vllm.config import VllmConfig
from vllm.inputs import PromptType, TokensPrompt
from vllm.outputs import PoolingRequestOutput
from vllm.plugins.io_processors.interface import IOProcessor
from vllm.pooling_params import PoolingParams
from vllm.renderers import BaseRenderer

from vllm_prm.checkpoint import family_in_engine
from vllm_prm.engines import PoolRequest, longest_prompt, pooling_params, step_rows
from vllm_prm.errors import ContextLengthError, StepScoringError, in_words
from vllm_prm.protocol import StepRewardItem
from vllm_prm.text_bounds import fitting, most_characters

Solutions = list[StepRewardItem]
_SOLUTIONS = TypeAdapter(Solutions)
_IN_FLIGHT = 65_536  # solutions; those of requests that failed inside vLLM are never collected, the oldest give way


def processor_class() -> str:
    """The entry point of the group `vllm.io_processor_plugins`: vLLM wants the name of the class."""
    return "vllm_prm.io_processor.StepRewardIOProcessor"


class StepRewardIOProcessor(IOProcessor[Solutions, list[dict[str, Any]]]):
    """Solutions in, step rewards out; see the module."""

    def __init__(self, vllm_config: VllmConfig, renderer: BaseRenderer) -> None:
        super().__init__(vllm_config, renderer)
        self.longest = longest_prompt(vllm_config.model_config.max_model_len)
        family = family_in_engine(vllm_config.model_config, renderer.get_tokenizer())
        if family is None or family.runner != "pooling" or family.engines > 1 or not family.one_prompt:
            raise ValueError(f"{vllm_config.model_config.model} is no PRM that one pooling engine scores in one pass")
        self.family = family
        self._in_flight: OrderedDict[tuple[str | None, int], list[list[int]]] = OrderedDict()
        self._this_thread = threading.local()

    @cached_property
    def _most_characters(self) -> int:
        return most_characters(self.family, self.longest)

    def parse_data(self, data: object) -> Solutions:
        """`data` of the request as solutions. `ValueError` says what is wrong with it."""
        try:
            solutions = _SOLUTIONS.validate_python(data if isinstance(data, list) else [data])
        except ValidationError as error:
            raise ValueError(f"data must be a solution or a list of them: {in_words(error)}") from None
        if not solutions or not all(self._steps(solution) for solution in solutions):
            raise ValueError("data must hold at least one solution, and each solution at least one step")
        return solutions

    def _steps(self, solution: StepRewardItem) -> list[str]:
        return solution.solution_steps(self.family.response_splitter)

    def pre_process(self, prompt: Solutions, request_id: str | None = None, **kwargs: Any) -> Sequence[PromptType]:
        """The tokens of each solution. `ContextLengthError` if one is longer than the context."""
        asked = [(solution.asked(), self._steps(solution)) for solution in prompt]
        for question, steps in asked:
            fitting(question, steps, self._most_characters, self.longest, truncate=False)
        rendered = [self.family.render(question, steps) for question, steps in asked]
        longest = max(len(solution.token_ids) for solution in rendered)
        if longest > self.longest:
            raise ContextLengthError(
                f"a solution has {longest} tokens, the PRM takes {self.longest} (max_model_len - 1)"
            )
        for solution in rendered:
            asked = self._in_flight.setdefault(_key(request_id, solution.token_ids), [])
            asked.append(solution.step_positions)
        while len(self._in_flight) > _IN_FLIGHT:
            self._in_flight.popitem(last=False)
        # vLLM asks for the parameters next, from the same thread and without saying for which request.
        self._this_thread.rendered = rendered
        return [TokensPrompt(prompt_token_ids=solution.token_ids) for solution in rendered]

    def merge_pooling_params(self, params: PoolingParams | None = None) -> PoolingParams:
        """One set of parameters for all solutions of a request: the union of their positions. Each answers with a row
        for every position that lies inside it; `post_process` takes its own."""
        rendered = self._this_thread.rendered
        positions = sorted({position for solution in rendered for position in solution.step_positions})
        return pooling_params(PoolRequest([], positions, self.family.reward_token_ids, read_prefix_cache=False))

    def post_process(
        self, model_output: Sequence[PoolingRequestOutput], request_id: str | None = None, **kwargs: Any
    ) -> list[dict[str, Any]]:
        """`[{"index", "step_rewards"}]`, one per solution. `StepScoringError` for a score that is not finite, and
        `ValueError` where vLLM was told to cut the prompts that it got from here."""
        answers = []
        for index, output in enumerate(model_output):
            key, rows = _key(request_id, output.prompt_token_ids), step_rows(output)
            if key not in self._in_flight:
                raise ValueError("with data, truncate_prompt_tokens is not taken: it cuts steps off")
            asked = self._in_flight[key]
            positions = asked.pop(0)
            if not asked:
                del self._in_flight[key]
            scores = self.family.decode([rows[position] for position in positions])
            if not all(math.isfinite(score) for score in scores):
                raise StepScoringError("the PRM gave non-finite scores; try dtype='float32'")
            answers.append({"index": index, "step_rewards": scores})
        return answers


def _key(request_id: str | None, token_ids: Sequence[int]) -> tuple[str | None, int]:
    return request_id, hash(tuple(token_ids))
