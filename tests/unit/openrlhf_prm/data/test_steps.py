"""Step spans are exact: for byte-level, SentencePiece-like and character tokenizers, multi-byte text and cut
responses.
"""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from openrlhf_prm.data.steps import Step, decode_with_offsets, split_steps
from vllm_prm.splitters import STEP_SPLITTERS, split_text, visible

CORPUS = [
    "Step 1: add 2 and 3.\n\nStep 2: the sum is 5.\n",
    "naïve café 你好 🙂 = 5.\n",
    "so x = 7,\nAnswer: 12\n",
] * 20


def byte_level():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=330, initial_alphabet=alphabet, special_tokens=["<eos>"], show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def sentencepiece_like():
    # What Llama's and Mistral's tokenizers do: metaspace, byte fallback, a leading space that decoding strips.
    def around(model):
        tokenizer = Tokenizer(model)
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        return tokenizer

    trained = around(models.BPE())
    trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=["<eos>", "<unk>"], show_progress=False)
    trained.train_from_iterator([text.replace("🙂", "") for text in CORPUS], trainer)
    model = json.loads(trained.to_str())["model"]
    vocabulary = model["vocab"] | {f"<0x{byte:02X}>": len(model["vocab"]) + byte for byte in range(256)}
    merges = [tuple(merge) for merge in model["merges"]]
    return around(models.BPE(vocabulary, merges, byte_fallback=True, unk_token="<unk>"))


def characters():
    alphabet = sorted(set("".join(CORPUS)))
    tokenizer = Tokenizer(models.WordLevel({text: i for i, text in enumerate(["<eos>", "<unk>", *alphabet])}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


TOKENIZERS = {
    build.__name__: PreTrainedTokenizerFast(tokenizer_object=build(), eos_token="<eos>")
    for build in (byte_level, sentencepiece_like, characters)
}
TEXTS = st.text(alphabet="Step 12:.\nabc ,=\té你🙂", max_size=60)


def check_partition(steps: list[Step], ids: list[int], tokenizer):
    assert [i for step in steps for i in ids[step.start : step.end]] == ids
    assert all(step.end > step.start for step in steps)
    text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert "".join(step.text for step in steps) == text


@pytest.mark.parametrize("splitter", STEP_SPLITTERS)
@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=60)
@given(text=TEXTS, cut=st.integers(0, 80), end=st.booleans())
def test_spans_partition_any_response(name, splitter, text, cut, end):
    tokenizer = TOKENIZERS[name]
    ids = tokenizer(text, add_special_tokens=False)["input_ids"][:cut] + ([tokenizer.eos_token_id] if end else [])
    check_partition(split_steps(ids, tokenizer, splitter), ids, tokenizer)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_one_step_a_line(name):
    tokenizer = TOKENIZERS[name]
    text = "Step 1: add 2 and 3.\nso x = 5.\nAnswer: 5"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    steps = split_steps(ids, tokenizer, "newline")
    assert [step.text for step in steps] == ["Step 1: add 2 and 3.\n", "so x = 5.\n", "Answer: 5"]
    assert steps[-1].end == len(ids)  # the end of sequence belongs to the last step


@pytest.mark.parametrize("name", ["byte_level", "sentencepiece_like"])
def test_a_character_of_several_tokens_is_never_torn(name):
    tokenizer = TOKENIZERS[name]
    ids = tokenizer("a 🙂\nb", add_special_tokens=False)["input_ids"]
    text, ends = decode_with_offsets(ids, tokenizer)
    assert text == "a 🙂\nb" and ends[-1] == len(text)
    assert [step.text for step in split_steps(ids, tokenizer, "newline")] == ["a 🙂\n", "b"]


def test_a_response_cut_inside_a_character_keeps_its_last_token():
    tokenizer = TOKENIZERS["byte_level"]
    ids = tokenizer("ok\n🙂", add_special_tokens=False)["input_ids"][:-1]
    check_partition(split_steps(ids, tokenizer, "newline"), ids, tokenizer)


def test_a_token_over_a_boundary_belongs_to_the_earlier_step():
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "\nb": 1, "c": 2, "<eos>": 3}, "<eos>"))
    tokenizer.decoder = decoders.Fuse()
    steps = split_steps([0, 1, 2], PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>"), "newline")
    assert [(step.start, step.end) for step in steps] == [(0, 2), (2, 3)]
    assert [step.text for step in steps] == ["a\n", "bc"]


def test_no_token_and_only_special_tokens():
    tokenizer = TOKENIZERS["characters"]
    assert split_steps([], tokenizer, "newline") == []
    assert split_steps([tokenizer.eos_token_id], tokenizer, "newline") == [Step("", 0, 1)]


def test_what_shows_nothing_is_no_step_of_its_own():
    assert split_text("\u200b\nx = 7\n\u200b\u2060\n\ufeff \u3164\ny = 8", "newline") == [
        "\u200b\nx = 7\n\u200b\u2060\n\ufeff \u3164\n",
        "y = 8",
    ]
    assert [visible(text) for text in ("", " \t\r\n", "\u200b\u00ad\u2800", "\x00", ".", "\u200b7")] == [False] * 4 + [
        True
    ] * 2


def test_separators_are_the_tokens_behind_the_visible_text():
    tokenizer = TOKENIZERS["characters"]
    ids = [*tokenizer("a1\nb", add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    first, second = split_steps(ids, tokenizer, "newline")
    assert (first.end - first.text_end, second.end - second.text_end) == (1, 1)
    assert tokenizer.decode(ids[: first.text_end]) == "a1"
    (nothing,) = split_steps([tokenizer.eos_token_id] * 2, tokenizer, "newline")
    assert nothing.text_end == nothing.end == 2, "nothing is separated"


def test_splitters_by_hand():
    assert split_text("a\n\n b\nc", "newline") == ["a\n\n", " b\n", "c"]
    assert split_text("\na\n", "newline") == ["\na\n"]
    assert split_text("a\nb\n \nc", "blank_line") == ["a\nb\n \n", "c"]
    assert split_text("First\nStep 1: x\ny\nStep 2: z", "marker") == ["First\n", "Step 1: x\ny\n", "Step 2: z"]
    assert split_text("", "newline") == []


def test_unknown_splitter_is_named():
    with pytest.raises(ValueError, match="unknown step splitter 'word'; choose one of auto"):
        split_steps([1], TOKENIZERS["characters"], "word")
