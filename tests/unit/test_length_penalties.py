"""Length penalties on numbers a reader can check by hand."""

import pytest
import torch

from openrlhf_prm.length_penalties.kimi import Kimi
from openrlhf_prm.length_penalties.overlong import Overlong


def test_kimi_by_hand():
    lengths, correct = torch.tensor([10, 20, 30, 10]), torch.tensor([True, True, True, False])
    assert Kimi()(lengths, correct, 4).tolist() == pytest.approx([0.5, 0.0, -0.5, 0.0])


def test_kimi_punishes_long_wrong_responses_too():
    assert Kimi()(torch.tensor([10, 30]), torch.tensor([False, False]), 2).tolist() == pytest.approx([0.0, -0.5])


def test_kimi_is_zero_where_lengths_agree_and_groups_do_not_mix():
    lengths = torch.tensor([10, 10, 10, 30])
    assert Kimi()(lengths, torch.ones(4, dtype=torch.bool), 2).tolist() == pytest.approx([0.0, 0.0, 0.5, -0.5])
    assert Kimi()(lengths, torch.ones(4, dtype=torch.bool), 1).tolist() == [0.0] * 4


def test_overlong_by_hand():
    penalties = Overlong(max_tokens=100, buffer=20)(torch.tensor([50, 80, 90, 100, 500]), torch.ones(5) > 0, 5)
    assert penalties.tolist() == pytest.approx([0.0, 0.0, -0.5, -1.0, -1.0])


@pytest.mark.parametrize("buffer", [0, 101])
def test_overlong_names_the_flag(buffer):
    with pytest.raises(ValueError, match="--length_penalty.buffer"):
        Overlong(max_tokens=100, buffer=buffer)
