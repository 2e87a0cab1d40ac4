"""Every head on tokenizers of the usual kinds, without a flag: the family that serves the result writes what was
trained on."""

import json
from pathlib import Path

import pytest
from tiny_tokenizers import CHATML, llama_3_tokenizer, mistral_tokenizer, qwen_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from openrlhf_prm.prm_training.heads import PRM_HEADS
from vllm_prm.families import detect_family, load_family

STEPS = ["1+1=2.", "", "So the answer is 2 - 0 = 2)"]


def qwen_without_its_prm_token() -> PreTrainedTokenizerFast:
    """Qwen's policies do not know `<extra_0>`."""
    tokenizer = qwen_tokenizer()
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tokenizer.backend_tokenizer.to_str().replace("<extra_0>", "<other>")),
        eos_token="<|im_end|>",
        chat_template=CHATML,
    )


def gpt_2_tokenizer(**special: str) -> PreTrainedTokenizerFast:
    """GPT-2's kind: byte-level BPE, one special token for all purposes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*alphabet, "Ġ+", "Ġ=", "ĊĊ", ".Ċ"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("Ġ", "+"), ("Ġ", "="), ("Ċ", "Ċ"), (".", "Ċ")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def gpt_2() -> PreTrainedTokenizerFast:
    one = "<|endoftext|>"
    return gpt_2_tokenizer(bos_token=one, eos_token=one, unk_token=one)


def smollm2() -> PreTrainedTokenizerFast:
    """GPT-2's kind with ChatML, and a BOS that opens a turn."""
    tokenizer = gpt_2_tokenizer(
        unk_token="<|endoftext|>", bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    tokenizer.chat_template = CHATML
    return tokenizer


TOKENIZERS = {
    "qwen": qwen_without_its_prm_token,
    "llama": llama_3_tokenizer,
    "mistral": mistral_tokenizer,
    "gpt_2": gpt_2,
    "smollm2": smollm2,
}


def policy(folder: Path, kind: str) -> Path:
    """What a head looks at: tokenizer and config.json."""
    tokenizer = TOKENIZERS[kind]()
    tokenizer.save_pretrained(folder)
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": len(tokenizer)}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("name", PRM_HEADS)
def test_a_head_without_flags_is_served_as_it_was_trained(tmp_path, name, kind):
    from transformers import AutoTokenizer

    start = policy(tmp_path / "policy", kind)
    tokenizer = AutoTokenizer.from_pretrained(start)
    if not PRM_HEADS[name].reads_chat_template and tokenizer.chat_template is None:
        with pytest.raises(ValueError, match="has no chat template"):
            PRM_HEADS[name](PRM_HEADS[name].Options(), str(start), tokenizer).family.render("Q", STEPS)
        return
    words = len(tokenizer)
    head = PRM_HEADS[name](PRM_HEADS[name].Options(), str(start), tokenizer)
    trained = head.family.render("1+1=? Think.", STEPS)
    assert head.added_token_id == (words if PRM_HEADS[name].has_placeholder() else None)
    assert len(tokenizer) == words + PRM_HEADS[name].has_placeholder()
    if PRM_HEADS[name].has_placeholder():
        assert [trained.token_ids[at] for at in trained.step_positions] == [words] * 3
        assert trained.token_ids.count(words) == 3

    prm = tmp_path / "prm"
    tokenizer.save_pretrained(prm)
    config = json.loads((start / "config.json").read_text())
    (prm / "config.json").write_text(json.dumps({**config, "prm": head.declared()}))
    assert detect_family(str(prm)).family == name
    served = load_family(str(prm))
    assert served.options == head.family.options
    again = served.render("1+1=? Think.", STEPS)
    assert (again.token_ids, again.step_positions) == (trained.token_ids, trained.step_positions)
    assert len(again.step_positions) == 3


@pytest.mark.parametrize("name", ["placeholder", "qwen_prm"])
def test_a_token_that_was_named_is_added_only_on_demand(tmp_path, name):
    from transformers import AutoTokenizer

    start = policy(tmp_path / "policy", "qwen")
    head, tokenizer = PRM_HEADS[name], AutoTokenizer.from_pretrained(start)
    options = head.Options(placeholder_token="<my step>")
    with pytest.raises(ValueError, match="has no token '<my step>'.*--prm.add_placeholder_token adds it"):
        head(options, str(start), tokenizer)
    made = head(options, str(start), tokenizer, add_placeholder_token=True)
    assert made.added_token_id == len(tokenizer) - 1
    again = head(options, str(start), tokenizer)
    assert again.added_token_id is None and again.family.render("Q", STEPS) == made.family.render("Q", STEPS)
