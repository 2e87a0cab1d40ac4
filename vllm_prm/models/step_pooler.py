"""A vLLM pooler that scores step positions only, and therefore may read the prefix cache.

vLLM's own token-level poolers return one row per prompt token, so they must forward every token: the prefix cache is
never read, and each new step of a growing solution pays for the whole solution again. This pooler is told the wanted
positions of each request (`PoolingParams.extra_kwargs["step_positions"]`), looks at the part of the prompt scheduled
in this engine step, runs the head on the wanted positions inside it, and keeps those few numbers until the request
ends. Positions inside a cached prefix are not forwarded and come back without a row; the caller knows their scores
already or asks again without the cache.

Shapes: T tokens scheduled in this engine step over all requests, H hidden size, P wanted positions, R reward tokens.
"""

from collections.abc import Callable, Sequence, Set

import torch
from vllm.model_executor.layers.pooler import Pooler
from vllm.tasks import PoolingTask
from vllm.v1.pool.metadata import PoolingMetadata


class StepPooler(Pooler):
    """Rows `[position, logit_1 ... logit_R]`, float32, one per step position forwarded.

    `reward_logits(hidden (P, H), token_ids) -> (P, R)` is the model's head. `default_token_ids` serves requests that
    name no `extra_kwargs["token_ids"]`. Positions are exact in float32 below 2**24 tokens.
    """

    def __init__(
        self,
        reward_logits: Callable[[torch.Tensor, Sequence[int]], torch.Tensor],
        default_token_ids: Sequence[int],
    ) -> None:
        super().__init__()
        self.reward_logits = reward_logits
        self.default_token_ids = tuple(default_token_ids)

    def get_supported_tasks(self) -> Set[PoolingTask]:
        return {"token_classify"}

    def forward(self, hidden_states: torch.Tensor, pooling_metadata: PoolingMetadata) -> list[torch.Tensor | None]:
        """(T, H) -> per request (P, 1 + R) once its prompt is complete, None before. A request that was preempted may
        repeat rows; vLLM's warm-up request wants no position and gets an empty tensor."""
        cursor = pooling_metadata.get_pooling_cursor()
        finished = cursor.get_finished_mask()
        scheduled = cursor.num_scheduled_tokens_cpu.tolist()
        seq_lens = cursor.seq_lens_cpu.tolist()
        token_ids_of = [self._token_ids(params.extra_kwargs) for params in pooling_metadata.pooling_params]

        # One head product for all requests that read the same tokens, which normally is all of them.
        batches: dict[tuple[int, ...], tuple[list[int], list[int], list[int]]] = {}
        offset = 0
        for request, params in enumerate(pooling_metadata.pooling_params):
            start = seq_lens[request] - scheduled[request]
            rows, positions, counts = batches.setdefault(token_ids_of[request], ([], [], []))
            before = len(rows)
            for position in (params.extra_kwargs or {}).get("step_positions", ()):
                if start <= position < seq_lens[request]:
                    rows.append(offset + position - start)
                    positions.append(position)
            counts.append(len(rows) - before)
            offset += scheduled[request]

        pieces = {token_ids: self._score(hidden_states, token_ids, *batch) for token_ids, batch in batches.items()}

        output: list[torch.Tensor | None] = []
        for request, state in enumerate(pooling_metadata.pooling_states):
            # vLLM keeps this list per request and clears it when the request is dropped.
            state.hidden_states_cache.append(next(pieces[token_ids_of[request]]))
            if finished[request]:
                output.append(torch.cat(state.hidden_states_cache))
                state.clean()
            else:
                output.append(None)
        return output

    def _score(self, hidden_states, token_ids, rows, positions, counts):
        device = hidden_states.device
        index = torch.tensor(rows, dtype=torch.long, device=device)
        logits = self.reward_logits(hidden_states.index_select(0, index), token_ids).float()
        column = torch.tensor(positions, dtype=torch.float32, device=device).unsqueeze(1)
        return iter(torch.cat([column, logits], dim=1).split(counts))

    def _token_ids(self, extra_kwargs: dict | None) -> tuple[int, ...]:
        return tuple((extra_kwargs or {}).get("token_ids", self.default_token_ids))
