import json
import math

import pytest
from tiny_tokenizers import qwen_tokenizer

from vllm_prm.families import load_family
from vllm_prm.families.rope import rope_overrides

YARN = {"rope_type": "yarn", "rope_theta": 1e6, "factor": math.e**10, "original_max_position_embeddings": 8}
# g(1) of that factor is 0.1 * 10 + 1 = 2.


@pytest.mark.parametrize(
    ("parameters", "attn_factor"),
    [
        ({"attention_factor": 1.0}, 0.5),
        ({"attention_factor": 3.0, "mscale": 1.0, "mscale_all_dim": 1.0}, 1.5),
        ({"mscale": 1.0, "mscale_all_dim": 1.0}, 0.5),
        ({"mscale": 2.0, "mscale_all_dim": 1.0}, 0.75),  # (3 / 2) / 2
    ],
)
def test_yarn_is_scaled_as_transformers_scales_it(parameters, attn_factor):
    given = {**YARN, **parameters}
    assert rope_overrides({"rope_parameters": given}) == {
        "rope_parameters": {**given, "attn_factor": pytest.approx(attn_factor)}
    }


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"rope_parameters": None},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
        {"rope_parameters": YARN},
        {"rope_parameters": {**YARN, "mscale": 1.0}},  # alone it says nothing
        {"rope_parameters": {**YARN, "attention_factor": 2.0}},
        {"rope_parameters": {**YARN, "attention_factor": 1.0, "attn_factor": 0.5}},
        {"rope_parameters": {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0}, "kv_lora_rank": 512},
        {"rope_parameters": {**YARN, "factor": 1.0, "mscale": 2.0, "mscale_all_dim": 1.0}},
        {"rope_parameters": {"full_attention": {"rope_type": "default"}}},
    ],
)
def test_where_vllm_is_right_nothing_is_said(config):
    assert rope_overrides(config) == {}


def test_an_older_config_and_a_nested_one():
    older = {"rope_scaling": {"type": "yarn", "factor": math.e**10, "attention_factor": 1.0}, "rope_theta": 5.0}
    written = rope_overrides(older)["rope_parameters"]
    assert (written["rope_type"], written["rope_theta"], written["attn_factor"]) == ("yarn", 5.0, pytest.approx(0.5))
    assert rope_overrides({"text_config": older}) == {"text_config": {"rope_parameters": written}}
    assert rope_overrides({"text_config": {}}) == {}


def test_ministral_3_scales_its_queries():
    parameters = {**YARN, "llama_4_scaling_beta": 0.1}
    scaling = {"llama_4_scaling": {"beta": 0.1, "original_max_position_embeddings": 8}}
    assert rope_overrides({"rope_parameters": parameters}) == scaling
    assert rope_overrides({"rope_parameters": parameters, "llama_4_scaling": {"beta": 1}}) == {}


def saved(path, factor):
    parameters = {**YARN, "attention_factor": factor}
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "rope_parameters": parameters}
    path.mkdir()
    (path / "config.json").write_text(json.dumps({**config, "vocab_size": len(qwen_tokenizer())}))
    qwen_tokenizer().save_pretrained(path)
    return str(path)


def test_every_engine_of_a_family_is_told(tmp_path):
    """That of an implicit PRM's reference by the reference's own config."""
    path, other = saved(tmp_path / "prm", 1.0), saved(tmp_path / "reference", 3.0)
    reads = {"placeholder_token": "<extra_0>", "reward_tokens": ["+", "-"]}
    for family, options in (("placeholder", reads), ("generative", {"style": "proof"})):
        overrides = load_family(path, family, options=options).hf_overrides()
        assert overrides["rope_parameters"]["attn_factor"] == pytest.approx(0.5)
    implicit = load_family(path, "implicit", options={"reference": other})
    assert implicit.hf_overrides()["rope_parameters"]["attn_factor"] == pytest.approx(0.5)
    assert implicit.reference_overrides()["rope_parameters"]["attn_factor"] == pytest.approx(1.5)
