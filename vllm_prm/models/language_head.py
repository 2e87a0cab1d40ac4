"""The language-model head of any vLLM model, with the one matrix product in it replaced by ours.

A model's own `compute_logits` runs: whatever it does before its head (a norm), with it (a bias) and after it (a scale,
Gemma's soft cap) stays. Only what its `logits_processor` multiplies is taken over, because the whole product is wasted
on two tokens, and in bfloat16 it would round the two logits whose difference is a score.
"""

from collections.abc import Callable

import torch
from torch import nn
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, UnquantizedEmbeddingMethod

Product = Callable[[nn.Module, torch.Tensor, torch.Tensor | None], torch.Tensor | None]
"""`(lm_head, states (P, H), bias or None) -> (P, R)`, or None for no logits."""


class LanguageHead:
    """The head of `model`, or of the language model inside a multimodal one. `ValueError` if it has none."""

    def __init__(self, model: nn.Module) -> None:
        inner = [model.get_language_model()] if hasattr(model, "get_language_model") else []
        for candidate in (*inner, model):
            if hasattr(candidate, "compute_logits") and hasattr(candidate, "logits_processor"):
                self._model = candidate
                return
        raise ValueError(f"{type(model).__name__} has no compute_logits with a logits_processor: no step can be read")

    def logits(self, hidden_states: torch.Tensor, product: Product) -> tuple[torch.Tensor | None, bool]:
        """The model's logits with `product` in them, and True; or all of them as the model computes them, and False:
        a quantised head has no plain rows. No logits: the gather of a tensor-parallel head leaves them on rank 0."""
        processor, replaced = self._model.logits_processor, False
        whole = processor._get_logits

        def get_logits(states: torch.Tensor, lm_head: nn.Module, bias: torch.Tensor | None, *more, **named):
            nonlocal replaced
            plain = isinstance(getattr(lm_head, "quant_method", None), UnquantizedEmbeddingMethod)
            if not plain and not isinstance(lm_head, NoHead):
                return whole(states, lm_head, bias, *more, **named)
            replaced = True
            return product(lm_head, states, bias)

        processor._get_logits = get_logits
        try:
            return self._model.compute_logits(hidden_states), replaced
        finally:
            del processor._get_logits

    def states(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """What the head reads, (P, H) -> (P, H): the hidden states, normalised by the models that do it only here."""
        read = []

        def keep(lm_head: nn.Module, states: torch.Tensor, bias: torch.Tensor | None) -> None:
            read.append(states)

        self.logits(hidden_states, keep)
        return read[0] if read else hidden_states


class NoHead(nn.Module):
    """In the place of a language-model head that nothing reads and a checkpoint need not have."""

    weight = bias = None


def remove_head(model: nn.Module) -> set[str]:
    """Replaces a head of its own weights by `NoHead`; its attribute's name, if there was one."""
    found = [name for name, module in model.named_modules() if isinstance(module, ParallelLMHead)]
    for name in found:
        parent, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, NoHead())
    return {name.rpartition(".")[2] for name in found}
