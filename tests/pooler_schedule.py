"""What vLLM's scheduler hands to a pooler, without an engine."""

import numpy as np
import torch
from vllm.v1.pool.metadata import PoolingMetadata


def forward(pooler, pieces):
    """One engine step: `pieces` of (request, first token, tokens). Hidden state t of a request is its `base` + t."""
    hidden = torch.cat(
        [torch.arange(start, start + count, dtype=torch.float32).unsqueeze(1) + r.base for r, start, count in pieces]
    )
    metadata = PoolingMetadata(
        prompt_lens=torch.tensor([r.length for r, *_ in pieces]),
        prompt_token_ids=None,
        prompt_token_ids_cpu=None,
        pooling_params=[r.params for r, *_ in pieces],
        pooling_states=[r.state for r, *_ in pieces],
    )
    metadata.build_pooling_cursor(
        np.array([count for *_, count in pieces]),
        torch.tensor([start + count for _, start, count in pieces]),
        torch.device("cpu"),
        query_start_loc_gpu=torch.tensor(np.cumsum([0] + [count for *_, count in pieces])),
    )
    return pooler(hidden, metadata)
