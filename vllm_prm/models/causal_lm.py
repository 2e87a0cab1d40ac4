"""Causal-LM backbones as step-reward models: the host model unchanged, plus a pooler that reads a head at a few places.

Two kinds of head. Rows of the language-model head: only those of the reward tokens are multiplied, in float32 whatever
the model's dtype: with the full head a bfloat16 product would round the two logits whose difference is the score. The
rows are taken from the live weight at each call, so they follow a weight update, a tied embedding and a sharded
vocabulary without a copy to keep in step. Or a small head of the checkpoint's own, see `step_head`.
"""

from collections.abc import Iterable, Iterator, Sequence

import torch
from vllm.config import VllmConfig
from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod
from vllm.model_executor.model_loader.weight_utils import default_weight_loader
from vllm.model_executor.models.interfaces_base import default_pooling_type
from vllm.model_executor.models.llama import LlamaForCausalLM
from vllm.model_executor.models.mistral import MistralForCausalLM
from vllm.model_executor.models.qwen2 import Qwen2ForCausalLM
from vllm.model_executor.models.qwen3 import Qwen3ForCausalLM

from vllm_prm.models.step_head import StepHead
from vllm_prm.models.step_pooler import StepPooler
from vllm_prm.models.tensor_parallel import sum_over_ranks

EMBEDDING = "model.embed_tokens.weight"


class StepReward:
    """Mixed into a vLLM causal LM; adds `pooler`. Reads `prm.head` or `prm.reward_token_ids` of the (overridden)
    config."""

    is_pooling_model = True

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        model_config = vllm_config.model_config
        config = model_config.hf_config
        # vLLM takes the config's word back where the checkpoint has an lm_head.
        self.declared_tied = config.tie_word_embeddings or model_config.word_embeddings_untied_by_checkpoint
        self.loaded_once = False
        declared = getattr(config, "prm", None) or {}
        if "head" in declared:
            self.step_head = StepHead(config.hidden_size, **declared["head"])
            del self.lm_head  # the checkpoint need not have one, and nothing reads it
            self.pooler = StepPooler(self.head_outputs, ())
            return
        self.step_head = None
        if "reward_token_ids" not in declared:
            raise ValueError(
                "the config has no prm.reward_token_ids; start the model with `vllm-prm serve` or StepScorer, or pass "
                '--hf-overrides \'{"architectures": [...], "prm": {"reward_token_ids": [positive, negative]}}\''
            )
        token_ids = declared["reward_token_ids"]
        if any(not 0 <= token_id < config.vocab_size for token_id in token_ids):
            raise ValueError(f"prm.reward_token_ids {token_ids} must lie below vocab_size {config.vocab_size}")
        self.pooler = StepPooler(self.reward_logits, token_ids)

    def head_outputs(self, hidden_states: torch.Tensor, token_ids: Sequence[int]) -> torch.Tensor:
        """All outputs of the checkpoint's own head in float32: (P, H) -> (P, R). `token_ids` mean nothing to it."""
        return self.step_head(hidden_states)

    def reward_logits(self, hidden_states: torch.Tensor, token_ids: Sequence[int]) -> torch.Tensor:
        """Logits of `token_ids` in float32: (P, H) -> (P, R).

        With tensor parallelism each rank multiplies the rows it holds and the results are summed. A quantised head
        has no plain rows; it is applied whole.
        """
        if not len(hidden_states):  # vLLM's warm-up, and a batch without a step's end
            return hidden_states.new_zeros(0, len(token_ids), dtype=torch.float32)
        if not isinstance(self.lm_head.quant_method, UnquantizedEmbeddingMethod):
            logits = self.compute_logits(hidden_states)
            if logits is None:  # the gather of a tensor-parallel head leaves a result on rank 0 only
                return hidden_states.new_zeros(len(hidden_states), len(token_ids), dtype=torch.float32)
            return logits[:, list(token_ids)].float()

        shard = self.lm_head.shard_indices
        ids = torch.tensor(token_ids, dtype=torch.long, device=hidden_states.device)
        held = (ids >= shard.org_vocab_start_index) & (ids < shard.org_vocab_end_index)
        local = torch.where(held, ids - shard.org_vocab_start_index, 0)
        rows = self.lm_head.weight.index_select(0, local).float() * held.unsqueeze(1)
        logits = hidden_states.float() @ rows.T
        if self.lm_head.bias is not None:
            logits = logits + self.lm_head.bias.index_select(0, local).float() * held
        return sum_over_ranks(logits) * self.logits_processor.scale

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """Load a checkpoint, later a part of one as an update.

        Raises `ValueError` naming what the checkpoint lacks: vLLM lets most of a model stay uninitialised, and a model
        of noise scores, too.
        """
        head: set[str] = set()
        loaded = super().load_weights(self._backbone_weights(weights, head)) | head
        if not self.loaded_once:
            if self.step_head is not None:
                self.step_head.require_loaded()
            missing = {name for name, _ in self.named_parameters()} - loaded
            if missing and self.quant_config is None:
                raise ValueError(f"the checkpoint lacks the weights of {', '.join(sorted(missing))}")
            self.loaded_once = True
        return loaded

    def _backbone_weights(
        self, weights: Iterable[tuple[str, torch.Tensor]], head: set[str]
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """What is left for the host model; the names of what the head took are added to `head`."""
        rows, embedded = None, False
        for name, tensor in weights:
            if self.step_head is not None and (parameter := self.step_head.load(name, tensor, default_weight_loader)):
                head.add(f"step_head.{parameter}")
                continue
            embedded |= name == EMBEDDING
            if name == "lm_head.weight":
                rows = tensor
            if self.step_head is None or not name.startswith("lm_head."):
                yield name, tensor
        # A tied checkpoint may hold its one matrix under the head's name alone.
        if self.declared_tied and rows is not None and not embedded:
            yield EMBEDDING, rows


@default_pooling_type(tok_pooling_type="ALL")
class LlamaForStepReward(StepReward, LlamaForCausalLM):
    """Llama and every checkpoint that loads as Llama."""


@default_pooling_type(tok_pooling_type="ALL")
class MistralForStepReward(StepReward, MistralForCausalLM):
    """Mistral 7B and its descendants."""


@default_pooling_type(tok_pooling_type="ALL")
class Qwen2ForStepReward(StepReward, Qwen2ForCausalLM):
    """Qwen2 and Qwen2.5."""


@default_pooling_type(tok_pooling_type="ALL")
class Qwen3ForStepReward(StepReward, Qwen3ForCausalLM):
    """Qwen3 dense models."""
