"""A PRM's own small head, computed in float32 at step positions only.

    h -> W_n relu( ... relu(W_0 h + b_0) ... ) + b_n

In float32 whatever the model's dtype: its rows are few, and in bfloat16 two scores that differ by 0.004 would be equal.
Every rank of a tensor-parallel engine holds all of it; the backbone's output is whole on each.
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn


class StepHead(nn.Module):
    """Linear layers with a ReLU between them, named `layers` in the checkpoint; the last has `outputs` rows.

    Shapes: (P, H) -> (P, R) with R = `outputs`; hidden layers keep H.
    """

    def __init__(self, hidden_size: int, layers: Sequence[str], outputs: int, bias: bool) -> None:
        super().__init__()
        widths = [hidden_size] * (len(layers) - 1) + [outputs]
        self.layers = nn.ModuleList(nn.Linear(hidden_size, width, bias=bias, dtype=torch.float32) for width in widths)
        self._parameter_of = {
            f"{name}.{part}": f"layers.{index}.{part}"
            for index, name in enumerate(layers)
            for part in (("weight", "bias") if bias else ("weight",))
        }
        self._loaded: set[str] = set()

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(P, H) in any dtype -> (P, R) in float32."""
        hidden_states = hidden_states.float()
        for index, layer in enumerate(self.layers):
            hidden_states = layer(torch.relu(hidden_states) if index else hidden_states)
        return hidden_states

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
