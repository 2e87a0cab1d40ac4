"""What of a model nothing was written to."""

import pytest
import torch
from torch import nn

from vllm_prm.models.completeness import mark_unwritten, require_written


class Quantisable:
    def process_weights_after_loading(self, layer):
        pass


def model():
    """Two layers that vLLM could quantise, a norm that it cannot, and a table of numbers that are no floats."""
    whole = nn.Module()
    whole.first, whole.second, whole.norm = nn.Linear(2, 2), nn.Linear(2, 2, bias=False), nn.LayerNorm(2)
    for layer in (whole.first, whole.second):
        layer.quant_method = Quantisable()
    whole.second.table = nn.Parameter(torch.ones(2, dtype=torch.int32), requires_grad=False)
    return whole


def test_what_was_written_in_part_is_not_missing_and_what_vllm_checks_is_left_alone():
    whole = model()
    marked = mark_unwritten(whole)
    assert marked == {"first.weight", "first.bias", "second.weight"}
    assert whole.norm.weight.tolist() == [1, 1] and whole.second.table.tolist() == [1, 1]
    with pytest.raises(ValueError, match=r"lacks the weights of first.bias, first.weight, second.weight$"):
        require_written(whole, marked)
    with torch.no_grad():
        whole.first.bias.zero_()
        whole.first.weight[1] = 3.0  # a vocabulary's padding, an expert of another rank
    with pytest.raises(ValueError, match=r"lacks the weights of second.weight$"):
        require_written(whole, marked)
    with torch.no_grad():
        whole.second.weight.fill_(1.0)
    require_written(whole, marked)


def test_nothing_marked_and_nothing_in_it():
    whole = nn.Module()
    whole.empty = nn.Linear(2, 0)
    whole.empty.quant_method = Quantisable()
    require_written(whole, mark_unwritten(whole))
    require_written(model(), set())
