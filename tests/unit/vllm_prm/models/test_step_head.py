import pytest
import torch

from vllm_prm.models.step_head import StackedHead, StepHead, head_file, step_head


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


def test_heads_side_by_side_by_hand():
    declared = {"layers": ["a", "b"], "outputs": 2, "bias": True, "members": 2, "hidden": 1, "ignored": ["reg."]}
    head = step_head(2, declared)
    assert isinstance(head, StackedHead)
    head.load("a.weight", torch.tensor([[[1.0], [0.0]], [[0.0], [1.0]]]), copy)
    head.load("a.bias", torch.tensor([[0.0], [-5.0]]), copy)
    head.load("b.weight", torch.tensor([[[2.0]], [[3.0]]]), copy)
    head.load("b.bias", torch.tensor([[0.5], [0.25]]), copy)
    head.require_loaded()
    # Heads: 2 relu(x) + 0.5 and 3 relu(y - 5) + 0.25.
    outputs = head(torch.tensor([[1.0, 4.0], [-1.0, 6.0], [0.0, 0.0]], dtype=torch.bfloat16))
    assert outputs.tolist() == [[2.5, 0.25], [0.5, 3.25], [0.5, 0.25]]
    assert head(torch.zeros(0, 2)).shape == (0, 2)
    assert head.reads("a.weight") and not head.reads("reg.a.weight")
    with pytest.raises(ValueError, match=r"a.weight has shape \(1, 2, 1\)"):
        head.load("a.weight", torch.zeros(1, 2, 1), copy)


def test_a_head_that_lies_beside_the_weights(tmp_path):
    torch.save({"weight": torch.ones(1, 2), "bias": torch.zeros(1)}, tmp_path / "reward_head.pt")
    head = StepHead(2, ["reward_head"], outputs=1, bias=True)
    for name, tensor in head_file(str(tmp_path), None, "reward_head.pt", "reward_head"):
        head.load(name, tensor, copy)
    head.require_loaded()
    assert head(torch.tensor([[1.0, 2.0]])).tolist() == [[3.0]]


class Malicious:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize("saved", [Malicious(), [torch.ones(1)], {"weight": 1.0}])
def test_a_file_that_is_no_head_is_refused_and_not_executed(tmp_path, capsys, saved):
    torch.save(saved, tmp_path / "reward_head.pt")
    with pytest.raises(ValueError, match="reward_head.pt (is no file of tensors|holds no layer)"):
        list(head_file(str(tmp_path), None, "reward_head.pt", "reward_head"))
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [None, b"", b"not a pickle"])
def test_a_head_that_cannot_be_read(tmp_path, content):
    if content is not None:
        (tmp_path / "reward_head.pt").write_bytes(content)
    with pytest.raises(ValueError, match="is no file of tensors that can be read"):
        list(head_file(str(tmp_path), None, "reward_head.pt", "reward_head"))
