"""Advantages that are no numbers are named before anything is trained on them."""

from types import SimpleNamespace

import pytest
import torch

from openrlhf_prm.cluster.guarded_strategy import NotFinite
from openrlhf_prm.ppo.finite import require_finite


def experience(advantages, returns=None, prompts=("a", "b")):
    values = torch.tensor(advantages)
    returns = values if returns is None else torch.tensor(returns)
    return SimpleNamespace(
        advantages=values, returns=returns, prompts=prompts, rewards=torch.tensor([0.5] * len(prompts))
    )


def test_numbers_pass():
    fine = [
        experience([[0.0, 1e30], [-1.0, 2.0]]),
        experience([[]], prompts=("a",)),
        experience([[1.0]], [[2.0]], ("a",)),
    ]
    assert require_finite(fine) is fine
    assert require_finite([]) == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_names_its_prompt(bad):
    fine = [[0.0, 1.0], [0.0, 1.0]]
    with pytest.raises(NotFinite, match=r"^advantages are not finite for the prompt 'b', whose outcome reward is 0.5"):
        require_finite([experience(fine), experience([[0.0, 1.0], [0.0, bad]])])
    with pytest.raises(NotFinite, match="^returns are not finite for the prompt 'a'"):
        require_finite([experience(fine, [[bad, 1.0], [0.0, bad]])])
