"""A model's own `compute_logits`, with the product in it replaced."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod

from vllm_prm.models import tensor_parallel
from vllm_prm.models.language_head import LanguageHead, NoHead
from vllm_prm.models.step_log_probs import StepLogProbs
from vllm_prm.models.step_reward import StepReward

VOCABULARY, HIDDEN, CAP, SCALE = 7, 4, 2.0, 0.5


@pytest.fixture(autouse=True)
def one_rank(monkeypatch):
    monkeypatch.setattr(tensor_parallel, "get_tensor_model_parallel_world_size", lambda: 1)
    monkeypatch.setattr(tensor_parallel, "get_tensor_model_parallel_rank", lambda: 0)


class Model(nn.Module):
    """A head with a bias behind a norm (here: doubling), a soft cap and a scale, in bfloat16."""

    def __init__(self, plain=True):
        super().__init__()
        torch.manual_seed(0)
        with set_current_vllm_config(VllmConfig()):
            self.logits_processor = LogitsProcessor(VOCABULARY, scale=SCALE, soft_cap=CAP)
        self.lm_head = nn.Module()
        # A row of padding stands behind the vocabulary's.
        self.lm_head.weight = nn.Parameter(torch.randn(VOCABULARY + 1, HIDDEN, dtype=torch.bfloat16))
        self.lm_head.bias = nn.Parameter(torch.randn(VOCABULARY + 1, dtype=torch.bfloat16))
        self.lm_head.tp_size = 1
        self.lm_head.quant_method = UnquantizedEmbeddingMethod() if plain else Quantised()
        self.lm_head.shard_indices = SimpleNamespace(
            org_vocab_start_index=0, org_vocab_end_index=VOCABULARY, num_org_elements=VOCABULARY
        )

    def compute_logits(self, hidden_states):
        return self.logits_processor(self.lm_head, 2 * hidden_states, self.lm_head.bias)

    def expected(self, hidden_states):
        weight, bias = self.lm_head.weight.float()[:VOCABULARY], self.lm_head.bias.float()[:VOCABULARY]
        return CAP * torch.tanh((2 * hidden_states.float() @ weight.T + bias) / CAP) * SCALE


class Quantised:
    """A quantised head, which can only be applied whole."""

    def apply(self, layer, states, bias):
        return nn.functional.linear(states, layer.weight, bias)


def scoring(model):
    return SimpleNamespace(language_head=LanguageHead(model), _log_probs=None)


def test_rows_keep_norm_bias_cap_and_scale_in_float32():
    model, hidden = Model(), torch.randn(3, HIDDEN, dtype=torch.bfloat16)
    logits = StepReward.reward_logits(scoring(model), hidden, [5, 0])
    assert logits.dtype == torch.float32
    assert torch.allclose(logits, model.expected(hidden)[:, [5, 0]], atol=1e-6)
    assert StepReward.reward_logits(scoring(model), hidden[:0], [5, 0]).shape == (0, 2)
    assert "_get_logits" not in vars(model.logits_processor), "the model keeps its own way"


def test_a_quantised_head_is_applied_whole():
    model, hidden = Model(plain=False), torch.randn(3, HIDDEN, dtype=torch.bfloat16)
    logits = StepReward.reward_logits(scoring(model), hidden, [5, 0])
    assert torch.allclose(logits, model.expected(hidden)[:, [5, 0]], atol=0.05)


@pytest.mark.parametrize("pieces", [1, 2, 7, 100])
@pytest.mark.parametrize("plain", [True, False])
def test_log_probabilities_in_pieces_of_the_vocabulary(monkeypatch, pieces, plain):
    monkeypatch.setattr("vllm_prm.models.step_log_probs.VOCABULARY_AT_ONCE", pieces)
    model, hidden = Model(plain), torch.randn(5, HIDDEN, dtype=torch.bfloat16)
    targets = torch.tensor([0, 6, 3, 3, 1])
    got = StepLogProbs._log_probs(scoring(model), hidden, targets)
    expected = model.expected(hidden).log_softmax(1).gather(1, targets[:, None])[:, 0]
    assert torch.allclose(got, expected, atol=1e-5 if plain else 0.05)


def test_what_the_head_reads_is_what_a_head_in_its_place_reads():
    model, hidden = Model(), torch.randn(3, HIDDEN)
    model.lm_head = NoHead()
    assert torch.equal(LanguageHead(model).states(hidden), 2 * hidden)


def test_an_error_leaves_the_model_as_it_was():
    model = Model()

    def product(lm_head, states, bias):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        LanguageHead(model).logits(torch.randn(1, HIDDEN), product)
    assert "_get_logits" not in vars(model.logits_processor)


def test_the_language_model_of_a_multimodal_one():
    outer = nn.Module()
    outer.inner = Model()
    outer.get_language_model = lambda: outer.inner
    hidden = torch.randn(2, HIDDEN, dtype=torch.bfloat16)
    logits = StepReward.reward_logits(scoring(outer), hidden, [1])
    assert torch.allclose(logits, outer.inner.expected(hidden)[:, [1]], atol=1e-6)


def test_a_model_without_a_head_is_named():
    with pytest.raises(ValueError, match="Linear has no compute_logits"):
        LanguageHead(nn.Linear(1, 1))
