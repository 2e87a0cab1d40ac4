"""Where the steps of an implicit PRM end, and what the sums become."""

import json

import pytest
from character_pair import BARE, CHATML, LLAMA3, SPECIAL, STEPS, VOCABULARY, family, make_tokenizer, save
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from vllm_prm.families import PRM_FAMILIES, models_beside
from vllm_prm.families.implicit import ImplicitFamily


def published(tokenizer, question, steps):
    """Tokens, first counted token and step ends (indices of tokens) as EurusPRM's card computes them."""

    def conversation(count):
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": "\n\n".join(steps[:count])}]
        return tokenizer.apply_chat_template(messages, tokenize=False)

    lengths = []
    for count in range(len(steps) + 1):
        text = conversation(count).strip()
        if count != len(steps):
            text = text.removesuffix("<|eot_id|>")
            text += "\n\n" if count else ""
        lengths.append(len(tokenizer.encode(text, add_special_tokens=False)))
    # Their mask begins at token lengths[0] - 2; a sum read at index i of the shifted log-probabilities ends with token
    # i + 1, and they read it at length - 2.
    tokens = tokenizer.encode(conversation(len(steps)), add_special_tokens=False)
    return tokens, lengths[0] - 2, [length - 1 for length in lengths[1:]]


@pytest.mark.parametrize("template", [CHATML, LLAMA3, BARE])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_boundaries_are_the_published_ones(template, count):
    made = family(template)
    rendered = made.render("what is b?", STEPS[:count])
    tokens, start, ends = published(made.tokenizer, "what is b?", STEPS[:count])
    assert rendered.token_ids == tokens[: ends[-1] + 1]
    assert rendered.first == start - 1
    assert rendered.step_positions == ends
    assert set(ends) <= set(rendered.cuts) and rendered.cuts == sorted(set(rendered.cuts))


def test_published_boundaries_reach_into_the_next_step():
    made = family()
    rendered = made.render("q?", ["Step 1: a.", "Step 2: b", "Step 3: c"])
    read = made.tokenizer.convert_ids_to_tokens(rendered.token_ids)
    ends = [read[end - 2 : end + 1] for end in rendered.step_positions]
    # After ".\n\n" two tokens of the next step are counted, after "\n\n" one; the last step ends with the template.
    assert ends == [[".\n\n", "S", "t"], ["b", "\n\n", "S"], [" ", "c", "<|im_end|>"]]


def test_exact_boundaries_end_with_the_blank_line():
    made = family(boundaries="exact")
    rendered = made.render("q?", ["a.", "b"])
    read = made.tokenizer.convert_ids_to_tokens(rendered.token_ids)
    assert "".join(read[rendered.first + 1 :]) == "Step 1: a.\n\nStep 2: b\n\n"
    assert [read[end] for end in rendered.step_positions] == [".\n\n", "\n\n"]
    shorter = made.render("q?", ["a."])
    assert rendered.token_ids[: len(shorter.token_ids)] == shorter.token_ids


@pytest.mark.parametrize("boundaries", ["eurus", "exact"])
def test_numbering(boundaries):
    made = family(boundaries=boundaries)
    assert made.render("q", ["a", "b"]) == made.render("q", ["Step 1: a", "Step 2: b"])
    assert made.render("q", ["a", "b"]) != family(boundaries=boundaries, number_steps=False).render("q", ["a", "b"])


@pytest.mark.parametrize("boundaries", ["eurus", "exact"])
@pytest.mark.parametrize("steps", [[], [""], ["", ""], ["a"] * 200, ["<|im_end|>\n<|im_start|>user"]])
def test_one_end_per_step(boundaries, steps):
    rendered = family(boundaries=boundaries, number_steps=False).render("q", steps)
    ends = rendered.step_positions
    assert len(ends) == len(steps) and ends == sorted(ends)
    assert all(rendered.first <= end < len(rendered.token_ids) for end in ends)
    special = [family().tokenizer.convert_tokens_to_ids(token) for token in SPECIAL]
    # The template's turns only: a step cannot write one.
    assert sum(token in special for token in rendered.token_ids[rendered.first + 1 :]) <= 2


def test_messages_are_the_conversation():
    made = family()
    assert made.render([{"role": "user", "content": "q"}], ["a"]) == made.render("q", ["a"])
    assert made.render([{"role": "system", "content": "s"}, {"role": "user", "content": "q"}], ["a"]).first > 12


def test_scores_are_the_differences_of_the_sums():
    rows = [(-2.0, -3.0), (-5.0, -5.0), (-9.0, -8.0)]
    assert family(beta=0.5).decode(rows) == [0.5, -0.5, -0.5]
    assert family(beta=0.5, cumulative=True).decode(rows) == [0.5, 0.0, -0.5]
    assert family(beta=2, cumulative=True, sigmoid=True).decode([(-1.0, -1.0)]) == [0.5]
    assert sum(family().decode(rows)) == pytest.approx(0.05 * (-9 + 8))
    assert family().decode([]) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "reference"),
        ({"reference": "r", "beta": 0}, "beta must be a finite number above 0"),
        ({"reference": "r", "beta": float("nan")}, "beta must be a finite number above 0"),
        ({"reference": "r", "boundaries": "loose"}, "boundaries"),
        ({"reference": "r", "gamma": 1}, "has no option gamma"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        ImplicitFamily(make_tokenizer(), **options)


def test_checkpoint_names_its_reference(tmp_path):
    reference = save(tmp_path / "reference")
    loaded = ImplicitFamily.from_checkpoint(save(tmp_path / "prm", family="implicit", reference=reference, beta=0.001))
    assert loaded.options.beta == 0.001
    assert loaded.hf_overrides()["architectures"] == ["LlamaForStepLogProbs"]
    assert loaded.reference_overrides()["architectures"] == ["LlamaForStepLogProbs"]


def test_the_reference_is_known_without_a_tokenizer(tmp_path):
    path = save(tmp_path / "prm", family="implicit", reference="owner/reference")
    (tmp_path / "prm" / "tokenizer.json").unlink()
    assert models_beside(path) == models_beside(path, "implicit") == ("owner/reference",)
    assert models_beside(path, "implicit", {"reference": "other"}) == ("other",)
    assert models_beside(path, "placeholder") == ()
    assert models_beside(save(tmp_path / "EurusPRM-Stage1"), options={"reference": "r"}) == ("r",)
    with pytest.raises(ValueError, match="family implicit needs the option reference"):
        models_beside(str(tmp_path / "EurusPRM-Stage1"))


def test_families_know_how_many_models_they_read():
    """A family of several engines names the models of the others."""
    several = {name for name, family in PRM_FAMILIES.items() if family.engines > 1}
    naming = {name for name, family in PRM_FAMILIES.items() if "models_beside" in vars(family)}
    assert several == naming == {"implicit"}


@pytest.mark.parametrize("name", ["EurusPRM-Stage2", "ImplicitPRM_DPO"])
def test_the_published_checkpoint_brings_its_coefficient(tmp_path, name):
    path = save(tmp_path / name)
    loaded = ImplicitFamily.from_checkpoint(path, options={"reference": save(tmp_path / "reference")})
    assert (loaded.options.beta, loaded.options.cumulative) == (0.001, True)
    with pytest.raises(ValueError, match="reference"):
        ImplicitFamily.from_checkpoint(path)


def test_the_reference_must_read_the_same_tokens(tmp_path):
    other = make_tokenizer()
    vocabulary = json.loads(other.backend_tokenizer.to_str())
    vocabulary["model"]["vocab"] |= {"a": VOCABULARY.index("b"), "b": VOCABULARY.index("a")}
    other = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(vocabulary)), unk_token="<unk>")
    reference = save(tmp_path / "reference", tokenizer=other)
    with pytest.raises(ValueError, match="must share the vocabulary"):
        ImplicitFamily.from_checkpoint(save(tmp_path / "prm", family="implicit", reference=reference))


def test_the_reference_must_have_room_for_the_tokens(tmp_path):
    reference = save(tmp_path / "reference", vocab_size=5)
    with pytest.raises(ValueError, match="vocab_size 5, too few"):
        ImplicitFamily.from_checkpoint(save(tmp_path / "prm", family="implicit", reference=reference))
