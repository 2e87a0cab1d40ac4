"""What the ranks of a tensor-parallel engine send each other: always what vLLM's kernels for GPUs take."""

import pytest
import torch

from vllm_prm.models import tensor_parallel


@pytest.fixture
def sent(monkeypatch):
    """Two ranks, this one the second, the other with the same numbers; what went through vLLM's all-reduce."""
    sent = []

    def all_reduce(values):
        sent.append(values.clone())
        return 2 * values

    monkeypatch.setattr(tensor_parallel, "get_tensor_model_parallel_world_size", lambda: 2)
    monkeypatch.setattr(tensor_parallel, "get_tensor_model_parallel_rank", lambda: 1)
    monkeypatch.setattr(tensor_parallel, "tensor_model_parallel_all_reduce", all_reduce)
    return sent


@pytest.mark.parametrize(("shape", "numbers"), [((1, 2), 4), ((3, 2), 8), ((2, 2), 4), ((5,), 8), ((3, 7), 24)])
def test_numbers_travel_flat_in_whole_16_bytes(sent, shape, numbers):
    values = torch.randn(shape)
    assert torch.equal(tensor_parallel.sum_over_ranks(values), 2 * values)
    assert [tuple(flat.shape) for flat in sent] == [(numbers,)]
    assert sent[0].is_contiguous() and not sent[0][values.numel() :].any()


def test_nothing_is_not_sent(sent):
    """As at vLLM's warm-up, which wants no position."""
    assert tensor_parallel.sum_over_ranks(torch.empty(0, 2)).shape == (0, 2)
    assert sent == []


def test_one_rank_sends_nothing(sent, monkeypatch):
    monkeypatch.setattr(tensor_parallel, "get_tensor_model_parallel_world_size", lambda: 1)
    values = torch.randn(3, 2)
    assert torch.equal(tensor_parallel.sum_over_ranks(values), values)
    assert sent == []


def test_a_row_for_each_rank(sent):
    assert tensor_parallel.rank_rows(torch.tensor([3.0, 4.0])).tolist() == [[0, 0], [3, 4]]
