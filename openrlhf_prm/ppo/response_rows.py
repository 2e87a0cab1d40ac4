"""Responses as rows of a batch, shared among data-parallel ranks.

Shapes: L tokens of a response with its prompt, A = L - 1 action positions.
"""

import math
from collections.abc import Sequence

import torch

# Tokens (L,) and action mask (A,) of one response, without padding.
Row = tuple[torch.Tensor, torch.Tensor]


def shares(count: int, ranks: int, micro_batch: int) -> list[list[tuple[list[int], list[float]]]]:
    """`count` rows over `ranks` -> for every rank its micro-batches of row numbers and weights.

    Every rank gets the same number of micro-batches of the same size, because gradients are summed and ZeRO-3 gathers
    weights over all ranks; where rows are missing, row 0 stands in with weight 0.
    """
    size = min(micro_batch, math.ceil(count / ranks))
    batches = math.ceil(count / (ranks * size))
    result = []
    for rank in range(ranks):
        of_rank = list(range(rank, count, ranks))
        missing = batches * size - len(of_rank)
        rows, weights = of_rank + [0] * missing, [1.0] * len(of_rank) + [0.0] * missing
        result.append([(rows[i : i + size], weights[i : i + size]) for i in range(0, batches * size, size)])
    return result


def padded(rows: Sequence[Row], pad_token_id: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows -> tokens (B, L), attention mask (B, L) and action mask (B, L - 1), padded on the right."""
    width = max(len(tokens) for tokens, _ in rows)
    batch = torch.full((len(rows), width), pad_token_id)
    attention, actions = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width - 1)
    for place, (tokens, mask) in enumerate(rows):
        batch[place, : len(tokens)] = tokens
        attention[place, : len(tokens)] = 1
        actions[place, : len(mask)] = mask.float()
    return batch, attention, actions
