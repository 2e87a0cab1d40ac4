"""Which architecture of vLLM's registry scores steps on a checkpoint's backbone."""

import importlib.util

import pytest

from vllm_prm.architectures import STEP_LOG_PROBS, scores_steps, step_architecture, step_architectures


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("Qwen2ForCausalLM", "Qwen2ForStepReward"),
        ("Qwen2ForProcessRewardModel", "Qwen2ForStepReward"),
        ("Qwen2ForPrmModel", "Qwen2ForStepReward"),
        ("LlamaForStepReward", "LlamaForStepReward"),
        ("Qwen3MoeForTokenClassification", "Qwen3MoeForStepReward"),
        ("Gemma3TextForTokenClassification", "Gemma3ForStepReward"),
        ("Gemma3ForCausalLM", "Gemma3ForStepReward"),
        ("Qwen3_5TextForSequenceClassification", "Qwen3_5ForStepReward"),
        ("GPT2LMHeadModel", "GPT2LMHeadModelForStepReward"),
        ("GPT2ForTokenClassification", "GPT2LMHeadModelForStepReward"),
        ("Gemma3ForConditionalGeneration", "Gemma3ForConditionalGenerationForStepReward"),
        ("Olmo2ForTokenClassification", "Olmo2ForStepReward"),
        ("MinistralForCausalLM", "TransformersForStepReward"),
        ("MinistralForTokenClassification", "TransformersForStepReward"),
    ],
)
def test_the_architecture_of_a_backbone(architecture, expected):
    assert step_architecture("p", {"architectures": [architecture]}) == expected


def test_a_head_on_a_multimodal_model_keeps_its_config():
    """Whose language model's config lies inside."""
    config = {"architectures": ["Gemma3ForSequenceClassification"], "text_config": {}}
    assert step_architecture("p", config) == "Gemma3ForConditionalGenerationForStepReward"
    assert step_architecture("p", {"architectures": config["architectures"]}) == "Gemma3ForStepReward"


def test_experts_that_only_transformers_has():
    config = {"architectures": ["Dots1ForCausalLM"], "n_routed_experts": 8}
    assert step_architecture("p", config) == "TransformersMoEForStepReward"


def test_sums_of_log_probabilities():
    assert step_architecture("p", {"architectures": ["Gemma2ForCausalLM"]}, STEP_LOG_PROBS) == "Gemma2ForStepLogProbs"


@pytest.mark.parametrize("config", [{}, {"architectures": None}, {"architectures": ["BertForMaskedLM", "NoSuchModel"]}])
def test_what_generates_no_text_is_named(config):
    with pytest.raises(ValueError, match=r"config.json of the/prm: architectures is .*no text-generation model"):
        step_architecture("the/prm", config)


def test_without_vllm_it_says_so(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="vLLM is not installed"):
        step_architecture("p", {"architectures": ["Qwen2ForCausalLM"]})


def test_every_generating_architecture_has_two_of_its_own():
    ours = step_architectures(["LlamaForCausalLM", "GPT2LMHeadModel", "BertForMaskedLM", "LlamaForStepReward"])
    assert ours == {
        "LlamaForStepReward": "LlamaForCausalLM",
        "LlamaForStepLogProbs": "LlamaForCausalLM",
        "GPT2LMHeadModelForStepReward": "GPT2LMHeadModel",
        "GPT2LMHeadModelForStepLogProbs": "GPT2LMHeadModel",
    }
    assert all(scores_steps(name) for name in ours) and not scores_steps("LlamaForCausalLM")


def test_vllm_knows_them_and_their_hosts_adjustments():
    from vllm import ModelRegistry
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP

    import vllm_prm

    for _ in range(2):  # every process of vLLM registers, some twice
        vllm_prm.register()
    known = set(ModelRegistry.get_supported_archs())
    ours = step_architectures(known)
    assert set(ours) <= known and len(ours) > 400 and not any(scores_steps(host) for host in ours.values())
    # GPT-OSS, Gemma 4 and hybrid models would get the wrong attention or cache without.
    adjusted = {host for host in ours.values() if host in MODELS_CONFIG_MAP}
    assert {"GptOssForCausalLM", "Gemma4ForCausalLM", "Qwen3_5ForCausalLM"} <= adjusted
    assert all(MODELS_CONFIG_MAP[name] is MODELS_CONFIG_MAP[host] for name, host in ours.items() if host in adjusted)


def test_a_class_is_made_when_it_is_asked_for():
    from vllm.model_executor.models.gemma2 import Gemma2ForCausalLM

    from vllm_prm.models import step_log_probs, step_reward

    made = step_reward.Gemma2ForStepReward
    assert issubclass(made, (step_reward.StepReward, Gemma2ForCausalLM)) and made is step_reward.Gemma2ForStepReward
    assert (made.__module__, made.__qualname__) == ("vllm_prm.models.step_reward", "Gemma2ForStepReward")
    assert issubclass(step_log_probs.Gemma2ForStepLogProbs, step_log_probs.StepLogProbs)
    for name in ("Gemma2ForStepLogProbs", "NoSuchForStepReward", "ForStepReward", "Gemma2ForCausalLM"):
        with pytest.raises(AttributeError, match=name):
            getattr(step_reward, name)
