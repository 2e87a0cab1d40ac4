"""Sums over the ranks of a tensor-parallel engine, of the few float32 numbers that a step head leaves on each."""

import torch
from torch.nn.functional import pad
from vllm.distributed import (
    get_tensor_model_parallel_rank,
    get_tensor_model_parallel_world_size,
    tensor_model_parallel_all_reduce,
)

_MULTIPLE = 4  # float32 numbers in 16 bytes


def sum_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """The sum of the ranks' `values`, float32, of one shape on all ranks and of that shape.

    vLLM's all-reduce kernels for GPUs take what a hidden state looks like: FlashInfer's needs rows of whole 16 bytes,
    and the custom one launches an empty grid for an empty tensor, as at warm-up. So the numbers travel flat, filled up
    with zeros, and none are not sent.
    """
    if not values.numel() or get_tensor_model_parallel_world_size() == 1:
        return values
    flat = pad(values.flatten(), (0, -values.numel() % _MULTIPLE))
    return tensor_model_parallel_all_reduce(flat)[: values.numel()].view_as(values)


def rank_rows(values: torch.Tensor) -> torch.Tensor:
    """(P,) -> (W, P) for W ranks: `values` in this rank's row, zeros in the others. Its `sum_over_ranks` gathers."""
    rows = values.new_zeros(get_tensor_model_parallel_world_size(), len(values))
    rows[get_tensor_model_parallel_rank()] = values
    return rows
