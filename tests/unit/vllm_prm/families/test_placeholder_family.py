"""Hand-worked positions and scores of the placeholder family, with a tokenizer of one token per character."""

import json
import math

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from vllm_prm.families import detect_family, load_family
from vllm_prm.families.placeholder import PlaceholderFamily

VOCABULARY = ["<unk>", "<s>", "</s>", *"abcdefgh+-\n ?"]
TAG, NEWLINE = 1, VOCABULARY.index("\n")


def character_tokenizer(vocabulary=VOCABULARY):
    ids = {token: index for index, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", behavior="isolated")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def family(**options):
    options = {"placeholder_token": "<s>", "reward_tokens": ["+", "-"], "step_separator": "\n", **options}
    return PlaceholderFamily(character_tokenizer(), **options)


def ids(text):
    return [VOCABULARY.index(character) for character in text]


def test_positions_are_those_of_the_tags():
    rendered = family().render("ab?", ["cd", "e"])
    assert rendered.token_ids == [*ids("ab?"), *ids("cd"), NEWLINE, TAG, *ids("e"), NEWLINE, TAG]
    assert rendered.step_positions == [6, 9]


def test_no_separator():
    rendered = family(step_separator="").render("ab", ["c"])
    assert rendered.token_ids == [*ids("abc"), TAG]
    assert rendered.step_positions == [3]


def test_no_step_and_no_question():
    assert family().render("ab", []).step_positions == []
    assert family().render("", ["a"]).step_positions == [2]


@pytest.mark.parametrize("count", [1, 200])
def test_one_position_per_step(count):
    rendered = family().render("a", ["b"] * count)
    assert rendered.step_positions == [3 * k for k in range(1, count + 1)]
    assert all(rendered.token_ids[position] == TAG for position in rendered.step_positions)


def test_a_tag_in_the_text_shifts_nothing():
    """A question's own special tokens count (it may be a rendered prompt); a step cannot spell the tag."""
    rendered = family().render("a<s>b", ["c<s>", "d"])
    unknown = VOCABULARY.index("<unk>")  # this vocabulary has none of the characters "<", "s", ">"
    assert rendered.token_ids == [3, TAG, 4, 5, *[unknown] * 3, NEWLINE, TAG, 6, NEWLINE, TAG]
    assert rendered.step_positions == [8, 11]


def test_an_empty_step_keeps_its_place():
    assert family().render("a", ["", "b"]).step_positions == [2, 5]


def test_a_prefix_of_the_steps_renders_to_a_prefix_of_the_tokens():
    steps = ["ab", "c", "", "defg"]
    whole = family().render("h?", steps)
    for count in range(len(steps)):
        part = family().render("h?", steps[:count])
        assert whole.token_ids[: len(part.token_ids)] == part.token_ids
        assert whole.step_positions[:count] == part.step_positions


def test_one_text_instead_of_a_list_is_refused():
    with pytest.raises(ValueError, match="list of texts"):
        family().render("a", "b")


def test_decode_is_a_softmax_with_the_positive_token_first():
    scores = family().decode([[0.0, 0.0], [math.log(3.0), 0.0], [1000.0, -1000.0]])
    assert scores == pytest.approx([0.5, 0.75, 1.0])
    three = family(reward_tokens=["+", "-", "?"]).decode([[0.0, 0.0, math.log(2.0)]])
    assert three == pytest.approx([0.25])
    assert family().decode([]) == []


def test_decode_lets_nan_through_for_the_caller_to_refuse():
    assert math.isnan(family().decode([[float("nan"), 0.0]])[0])


def test_decode_refuses_misaligned_rows():
    with pytest.raises(ValueError, match="expected 2 logits per step, got 3"):
        family().decode([[0.0, 1.0, 2.0]])


def test_missing_tokens_are_named():
    with pytest.raises(ValueError, match="the tokenizer of somewhere has no token 'ки'"):
        family(placeholder_token="ки", path="somewhere")
    with pytest.raises(ValueError, match="no token 'good'"):
        family(reward_tokens=["good", "-"])


@pytest.mark.parametrize("tokens", [["+"], ["+", "+"], []])
def test_reward_tokens_must_differ(tokens):
    with pytest.raises(ValueError, match="reward_tokens"):
        family(reward_tokens=tokens)


def test_chat_template_wraps_the_question():
    tokenizer = character_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}<s>{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}?{% endif %}"
    )
    chat = PlaceholderFamily(
        tokenizer, placeholder_token="</s>", reward_tokens=["+", "-"], step_separator="\n", chat_template=True
    )
    expected = [1, *ids("ab"), *ids("?"), *ids("c"), NEWLINE, 2]
    assert chat.render("ab", ["c"]).token_ids == expected
    assert chat.render([{"role": "user", "content": "ab"}], ["c"]).token_ids == expected


def test_chat_without_a_template_is_refused():
    with pytest.raises(ValueError, match="no chat template"):
        family(chat_template=True)
    with pytest.raises(ValueError, match="no chat template"):
        family().render([{"role": "user", "content": "ab"}], ["c"])


PRM = {"family": "placeholder", "placeholder_token": "<s>", "reward_tokens": ["+", "-"], "step_separator": "\n"}


def checkpoint(path, prm, architecture="LlamaForCausalLM"):
    config = {"architectures": [architecture], "model_type": "llama"}
    if prm is not None:
        config["prm"] = prm
    (path / "config.json").write_text(json.dumps(config))
    character_tokenizer().save_pretrained(path)
    return str(path)


def test_from_checkpoint(tmp_path):
    path = checkpoint(tmp_path, PRM)
    assert detect_family(path).family == "placeholder"
    loaded = load_family(path)
    assert loaded.reward_token_ids == (VOCABULARY.index("+"), VOCABULARY.index("-"))
    overrides = loaded.hf_overrides()
    assert overrides["architectures"] == ["LlamaForStepReward"]
    assert overrides["prm"]["reward_token_ids"] == list(loaded.reward_token_ids)


@pytest.mark.parametrize(
    ("prm", "architecture", "message"),
    [
        (None, "LlamaForCausalLM", 'has no key "prm"'),
        ({"family": "unheard of"}, "LlamaForCausalLM", "unheard of"),
        ({"family": "placeholder"}, "LlamaForCausalLM", "placeholder_token"),
        ({**PRM, "tag": "x"}, "LlamaForCausalLM", "tag"),
        ({**PRM, "placeholder_token": "ки"}, "LlamaForCausalLM", "has no token 'ки'"),
        (PRM, "UnheardOfForCausalLM", "UnheardOfForCausalLM.*no text-generation model"),
    ],
)
def test_unusable_checkpoints_say_why(tmp_path, prm, architecture, message):
    with pytest.raises(ValueError, match=message):
        load_family(checkpoint(tmp_path, prm, architecture)).hf_overrides()


def test_a_path_without_a_checkpoint_is_named(tmp_path):
    with pytest.raises(ValueError, match="nothing-here"):
        load_family(str(tmp_path / "nothing-here"))
