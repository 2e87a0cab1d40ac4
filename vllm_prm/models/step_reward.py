"""Causal-LM backbones as step-reward models: the host model unchanged, plus a pooler that reads a head at a few places.

Two kinds of head. Rows of the language-model head: only those of the reward tokens are multiplied, in float32 whatever
the model's dtype, see `language_head`. The rows are taken from the live weight at each call, so they follow a weight
update, a tied embedding and a sharded vocabulary without a copy to keep in step. Or a small head of the checkpoint's
own, see `step_head`.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import torch
from torch import nn
from vllm.config import VllmConfig
from vllm.model_executor.model_loader.weight_utils import default_weight_loader

from vllm_prm.architectures import STEP_REWARD
from vllm_prm.models.backbone import step_model
from vllm_prm.models.completeness import mark_unwritten, require_written
from vllm_prm.models.language_head import LanguageHead, remove_head
from vllm_prm.models.step_head import head_file, step_head
from vllm_prm.models.step_pooler import StepPooler
from vllm_prm.models.tensor_parallel import sum_over_ranks

EMBEDDING = "model.embed_tokens.weight"


def __getattr__(name: str) -> type[nn.Module]:
    """`Qwen2ForStepReward` and so on, for every backbone of vLLM's registry."""
    return step_model(sys.modules[__name__], name, StepReward, STEP_REWARD)


class StepReward:
    """Mixed into a vLLM causal LM; adds `pooler`. Reads `prm.head` or `prm.reward_token_ids` of the (overridden)
    config."""

    is_pooling_model = True

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        model_config = vllm_config.model_config
        # vLLM takes the config's word back where the checkpoint has an lm_head.
        tied = getattr(model_config.hf_config.get_text_config(), "tie_word_embeddings", False)
        self.declared_tied = tied or model_config.word_embeddings_untied_by_checkpoint
        self.quantized = vllm_config.quant_config is not None
        self.loaded_once = False
        self.language_head = LanguageHead(self)
        declared = getattr(model_config.hf_config, "prm", None) or {}
        if "head" in declared:
            self.step_head = step_head(model_config.get_hidden_size(), declared["head"])
            self.head_beside = declared["head"].get("file")
            self.checkpoint = model_config.model, model_config.revision
            self.unread = remove_head(self)
            self.pooler = StepPooler(self.head_outputs, ())
            return
        self.step_head, self.unread = None, set()
        if "reward_token_ids" not in declared:
            raise ValueError(
                "the config has no prm.reward_token_ids; start the model with `vllm-prm serve` or StepScorer, or pass "
                '--hf-overrides \'{"architectures": [...], "prm": {"reward_token_ids": [positive, negative]}}\''
            )
        token_ids, vocabulary = declared["reward_token_ids"], model_config.get_vocab_size()
        if any(not 0 <= token_id < vocabulary for token_id in token_ids):
            raise ValueError(f"prm.reward_token_ids {token_ids} must lie below vocab_size {vocabulary}")
        self.pooler = StepPooler(self.reward_logits, token_ids)

    def head_outputs(self, hidden_states: torch.Tensor, token_ids: Sequence[int]) -> torch.Tensor:
        """All outputs of the checkpoint's own head in float32: (P, H) -> (P, R). `token_ids` mean nothing to it."""
        return self.step_head(self.language_head.states(hidden_states) if len(hidden_states) else hidden_states)

    def reward_logits(self, hidden_states: torch.Tensor, token_ids: Sequence[int]) -> torch.Tensor:
        """Logits of `token_ids` in float32: (P, H) -> (P, R).

        With tensor parallelism each rank multiplies the rows it holds and the results are summed. A quantised head
        has no plain rows; it is applied whole.
        """
        if not len(hidden_states):  # vLLM's warm-up, and a batch without a step's end
            return hidden_states.new_zeros(0, len(token_ids), dtype=torch.float32)
        ids = torch.tensor(token_ids, dtype=torch.long, device=hidden_states.device)

        def rows(lm_head: nn.Module, states: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
            shard = lm_head.shard_indices
            held = (ids >= shard.org_vocab_start_index) & (ids < shard.org_vocab_end_index)
            local = torch.where(held, ids - shard.org_vocab_start_index, 0)
            logits = states.float() @ (lm_head.weight.index_select(0, local).float() * held.unsqueeze(1)).T
            if bias is not None:
                logits = logits + bias.index_select(0, local).float() * held
            return sum_over_ranks(logits)

        logits, chosen = self.language_head.logits(hidden_states, rows)
        if logits is None:
            return hidden_states.new_zeros(len(hidden_states), len(token_ids), dtype=torch.float32)
        return (logits if chosen else logits.index_select(1, ids)).float()

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """Load a checkpoint, later a part of one as an update.

        Raises `ValueError` naming what the checkpoint lacks: vLLM lets most of a model stay uninitialised, and a model
        of noise scores, too.
        """
        head: set[str] = set()
        first = not self.loaded_once
        marked = mark_unwritten(self) if first and not self.quantized else set()
        if first and self.step_head is not None and self.head_beside:
            [layer] = self.step_head.names
            weights = chain(weights, head_file(*self.checkpoint, self.head_beside, layer))
        loaded = super().load_weights(self._backbone_weights(weights, head))
        if first:
            if self.step_head is not None:
                self.step_head.require_loaded()
            require_written(self, marked)
            self.loaded_once = True
        return loaded and loaded | head

    def _backbone_weights(
        self, weights: Iterable[tuple[str, torch.Tensor]], head: set[str]
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """What is left for the host model; the names of what the head took are added to `head`."""
        rows, embedded = None, False
        for name, tensor in weights:
            if self.step_head is not None and not self.step_head.reads(name):
                continue
            if self.step_head is not None and (parameter := self.step_head.load(name, tensor, default_weight_loader)):
                head.add(f"step_head.{parameter}")
                continue
            embedded |= name.endswith("embed_tokens.weight")
            if name == "lm_head.weight":
                rows = tensor
            if not self.unread & set(name.split(".")) and (self.step_head is None or not name.startswith("lm_head.")):
                yield name, tensor
        # A tied checkpoint may hold its one matrix under the head's name alone.
        if self.declared_tied and rows is not None and not embedded:
            yield EMBEDDING, rows
