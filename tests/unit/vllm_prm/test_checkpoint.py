"""The family of a checkpoint, read as vLLM will read it."""

from types import SimpleNamespace

import pytest
from declared_family import Declared

from vllm_prm import checkpoint
from vllm_prm.checkpoint import load_served_family
from vllm_prm.families import PRM_FAMILIES
from vllm_prm.serve import _tokenizer_options


def test_tokenizer_flags_reach_the_family(monkeypatch):
    seen = []

    class AutoTokenizer:
        @staticmethod
        def from_pretrained(name, **options):
            seen.append((name, options))
            return "the tokenizer"

    monkeypatch.setitem(PRM_FAMILIES, "declared", Declared)
    monkeypatch.setattr("transformers.AutoTokenizer", AutoTokenizer)
    given = ["--tokenizer", "another/place", "--tokenizer_revision=v2", "--trust-remote-code", "--port", "1"]
    options = _tokenizer_options(given)
    assert load_served_family("the/prm", "declared", **options).tokenizer == "the tokenizer"
    assert seen == [("another/place", {"revision": "v2", "trust_remote_code": True})]
    assert load_served_family("the/prm", "declared", **_tokenizer_options(["--port", "1"])).tokenizer is None
    assert load_served_family("the/prm", "declared", tokenizer=Declared).tokenizer is Declared
    load_served_family("the/prm", "declared", trust_remote_code=True)
    assert seen[1:] == [("the/prm", {"revision": "main", "trust_remote_code": True})]
    with pytest.raises(ValueError, match="--tokenizer"):
        _tokenizer_options(["--tokenizer"])


def test_the_family_of_a_running_engine(monkeypatch):
    """What vLLM loaded decides, whatever the checkpoint declares beside it."""
    monkeypatch.setattr(checkpoint, "load_served_family", lambda model, family, **_: family)

    def family(prm, runner="pooling", architecture="LlamaForStepReward"):
        hf_config = SimpleNamespace(prm=prm) if prm is not None else SimpleNamespace()
        config = SimpleNamespace(
            hf_config=hf_config, runner_type=runner, architecture=architecture, model="m", revision=None
        )
        return checkpoint.family_in_engine(config, "tokenizer")

    assert family({"family": "placeholder"}) == "placeholder"
    assert family({"family": "implicit"}, architecture="Qwen2ForStepLogProbs") == "implicit"
    assert family({"family": "generative"}, "generate", "Qwen2ForCausalLM") == "generative"
    for given in (
        (None,),
        ("placeholder",),
        ({"family": "placeholder"}, "pooling", "LlamaForSequenceClassification"),
        ({"family": "placeholder"}, "generate", "LlamaForCausalLM"),
        ({"family": "generative"}, "pooling", "LlamaForCausalLM"),
        ({"family": "unheard of"}, "generate", "LlamaForCausalLM"),
    ):
        assert family(*given) is None, given
