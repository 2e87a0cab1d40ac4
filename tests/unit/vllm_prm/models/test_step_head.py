import pytest
import torch

from vllm_prm.models.step_head import StepHead


def copy(parameter, tensor):
    parameter.data.copy_(tensor)


def test_two_layers_by_hand():
    head = StepHead(2, ["score.0", "score.2"], outputs=1, bias=True)
    assert head.load("score.0.weight", torch.tensor([[1.0, 0.0], [0.0, 1.0]]), copy) == "layers.0.weight"
    assert head.load("score.0.bias", torch.tensor([0.0, -5.0]), copy) == "layers.0.bias"
    assert head.load("score.2.weight", torch.tensor([[2.0, 3.0]], dtype=torch.bfloat16), copy) == "layers.1.weight"
    with pytest.raises(ValueError, match="lacks weights of the PRM's head: score.2.bias"):
        head.require_loaded()
    head.load("score.2.bias", torch.tensor([10.0]), copy)
    head.require_loaded()
    # relu([1, 4 - 5]) = [1, 0]; 2 * 1 + 10
    outputs = head(torch.tensor([[1.0, 4.0], [-1.0, 6.0]], dtype=torch.bfloat16))
    assert outputs.dtype == torch.float32
    assert outputs.tolist() == [[12.0], [13.0]]


def test_other_tensors_are_left_to_the_backbone():
    head = StepHead(2, ["score"], outputs=2, bias=False)
    assert head.load("model.norm.weight", torch.zeros(2), copy) is None
    assert head.load("score.bias", torch.zeros(2), copy) is None


def test_another_shape_is_named():
    head = StepHead(2, ["score"], outputs=2, bias=False)
    with pytest.raises(ValueError, match=r"score.weight has shape \(1, 2\), the PRM family's head needs \(2, 2\)"):
        head.load("score.weight", torch.zeros(1, 2), copy)


def test_a_loader_of_the_parameter_comes_first():
    head = StepHead(2, ["score"], outputs=2, bias=False)
    taken = []
    head.layers[0].weight.weight_loader = lambda parameter, tensor: taken.append(tensor)
    head.load("score.weight", torch.ones(2, 2), copy)
    assert len(taken) == 1
