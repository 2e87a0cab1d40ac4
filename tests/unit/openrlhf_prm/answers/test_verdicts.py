"""When a response's reward says that it is right, by hand."""

import torch

from openrlhf_prm.answers.verdicts import are_right


def test_a_sum_over_turns_is_right_from_one_on():
    scores, turns = torch.tensor([0.6, 0.6, 0.1 * 10, 0.5, 0.9999999]), torch.tensor([1, 2, 3, 1, 2])
    assert are_right(scores, turns).tolist() == [True, False, True, False, True]
    assert are_right(scores, turns, 0.6).tolist() == [True, True, True, False, True]
