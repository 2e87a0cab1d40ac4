"""A PRM's own small head, computed in float32 at step positions only.

    h -> W_n relu( ... relu(W_0 h + b_0) ... ) + b_n

Or several such heads side by side, of one number each, see `StackedHead`.

In float32 whatever the model's dtype: its rows are few, and in bfloat16 two scores that differ by 0.004 would be equal.
Every rank of a tensor-parallel engine holds all of it; the backbone's output is whole on each.
"""

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn


class StepHead(nn.Module):
    """Linear layers with a ReLU between them, named `layers` in the checkpoint; the last has `outputs` rows.

    Shapes: (P, H) -> (P, R) with R = `outputs`; hidden layers keep H.
    """

    def __init__(
        self, hidden_size: int, layers: Sequence[str], outputs: int, bias: bool, ignored: Sequence[str] = ()
    ) -> None:
        super().__init__()
        self.layers = self._layers(hidden_size, len(layers), outputs, bias)
        self.names = tuple(layers)
        self.ignored = tuple(ignored)
        self._parameter_of = {
            f"{name}.{part}": f"layers.{index}.{part}"
            for index, name in enumerate(layers)
            for part in (("weight", "bias") if bias else ("weight",))
        }
        self._loaded: set[str] = set()

    def _layers(self, hidden_size: int, count: int, outputs: int, bias: bool) -> nn.ModuleList:
        widths = [hidden_size] * (count - 1) + [outputs]
        return nn.ModuleList(nn.Linear(hidden_size, width, bias=bias, dtype=torch.float32) for width in widths)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(P, H) in any dtype -> (P, R) in float32."""
        hidden_states = hidden_states.float()
        for index, layer in enumerate(self.layers):
            hidden_states = layer(torch.relu(hidden_states) if index else hidden_states)
        return hidden_states

    def reads(self, name: str) -> bool:
        """Whether anything reads the checkpoint's tensor `name`."""
        return not name.startswith(self.ignored)

    def load(self, name: str, tensor: torch.Tensor, default_loader: Callable) -> str | None:
        """Take the checkpoint's tensor `name`; the name of its parameter here, or None if it is none of ours.

        `default_loader(parameter, tensor)` copies, unless the parameter carries a `weight_loader`. Raises `ValueError`
        if the shape is not the head's.
        """
        if name not in self._parameter_of:
            return None
        parameter = self.get_parameter(self._parameter_of[name])
        if tensor.shape != parameter.shape:
            raise ValueError(
                f"the checkpoint's {name} has shape {tuple(tensor.shape)}, the PRM family's head needs "
                f"{tuple(parameter.shape)}"
            )
        # vLLM replaces the loader while it reloads weights into a running engine.
        getattr(parameter, "weight_loader", default_loader)(parameter, tensor)
        self._loaded.add(name)
        return self._parameter_of[name]

    def require_loaded(self) -> None:
        """`ValueError` naming the tensors that no checkpoint ever brought: a random head scores, too."""
        if missing := sorted(set(self._parameter_of) - self._loaded):
            raise ValueError(f"the checkpoint lacks weights of the PRM's head: {', '.join(missing)}")


class StackedLinear(nn.Module):
    """One linear layer of each of M heads: (M, P, I) -> (M, P, O)."""

    def __init__(self, members: int, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(members, inputs, outputs, dtype=torch.float32))
        self.bias = nn.Parameter(torch.empty(members, outputs, dtype=torch.float32)) if bias else None

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """The products, and the bias if there is one."""
        products = torch.matmul(inputs, self.weight)
        return products if self.bias is None else products + self.bias.unsqueeze(1)


class StackedHead(StepHead):
    """M heads of one number each, hidden layers of width `hidden`: (P, H) -> (P, M)."""

    def __init__(
        self, hidden_size: int, layers: Sequence[str], members: int, hidden: int, bias: bool, ignored: Sequence[str]
    ) -> None:
        self._members, self._hidden = members, hidden
        super().__init__(hidden_size, layers, 1, bias, ignored)

    def _layers(self, hidden_size: int, count: int, outputs: int, bias: bool) -> nn.ModuleList:
        widths = [hidden_size, *[self._hidden] * (count - 1), outputs]
        return nn.ModuleList(StackedLinear(self._members, inputs, width, bias) for inputs, width in pairwise(widths))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(P, H) in any dtype -> (P, M) in float32."""
        return super().forward(hidden_states.expand(self._members, *hidden_states.shape)).squeeze(-1).T


def step_head(hidden_size: int, declared: Mapping[str, Any]) -> StepHead:
    """The head that a family's `Head` describes, `declared` as JSON."""
    shared = {"layers": declared["layers"], "bias": declared["bias"], "ignored": declared.get("ignored", ())}
    if declared.get("members"):
        return StackedHead(hidden_size, members=declared["members"], hidden=declared["hidden"], **shared)
    return StepHead(hidden_size, outputs=declared["outputs"], **shared)


def head_file(model: str, revision: str | None, file: str, layer: str) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of `layer` in a file of the checkpoint `model`, a folder or a hub id, as `torch.save` of the layer's
    state wrote it: "weight" and "bias". `ValueError` for a file that is not there or holds anything else.

    Read with `weights_only`: nothing in it is executed.
    """
    path = Path(model) / file
    if not Path(model).is_dir():
        from huggingface_hub import hf_hub_download

        path = Path(hf_hub_download(model, file, revision=revision))
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, pickle.UnpicklingError, RuntimeError) as error:
        # PyTorch's own text advises to run what is in the file.
        raise ValueError(f"{path} is no file of tensors that can be read ({type(error).__name__})") from None
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise ValueError(f"{path} holds no layer's tensors")
    for name, tensor in state.items():
        yield f"{layer}.{name}", tensor
