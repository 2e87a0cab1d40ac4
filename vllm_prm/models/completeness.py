"""Whether a checkpoint brought all weights of a model: noise scores, too.

vLLM checks what it has no layer class for, and leaves out every layer that can be quantised, which is most of a model.
Their memory is marked before loading, and what still bears the mark afterwards was never written.
"""

import math

import torch
from torch import nn


@torch.no_grad()
def mark_unwritten(model: nn.Module) -> set[str]:
    """Fills with NaN what vLLM would not miss; the names of these parameters."""
    marked = set()
    for place, module in model.named_modules():
        if not hasattr(getattr(module, "quant_method", None), "process_weights_after_loading"):
            continue
        for name, parameter in module.named_parameters(prefix=place, recurse=False):
            if parameter.is_floating_point() and not parameter.is_meta:
                parameter.fill_(math.nan)
                marked.add(name)
    return marked


@torch.no_grad()
def require_written(model: nn.Module, marked: set[str]) -> None:
    """`ValueError` naming the `marked` parameters that nothing was written to."""
    missing = [
        name
        for name, parameter in model.named_parameters()
        if name in marked and parameter.numel() and parameter.flatten()[0].isnan() and parameter.isnan().all()
    ]
    if missing:
        raise ValueError(f"the checkpoint lacks the weights of {', '.join(sorted(missing))}")
