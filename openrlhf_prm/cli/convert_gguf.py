"""Turns a GGUF file into a Hugging Face checkpoint: `python -m openrlhf_prm.cli.convert_gguf --input FILE ...`.

`--input package:NAME` takes the one GGUF file of an installed Python package. Weights are dequantised by transformers
and stored in bf16. The tokenizer is built from the file's own vocabulary, merges and special tokens, because
transformers' reading of it loses things: SmolLM2's end of sequence comes out as `<|im_start|>`, numbers are no longer
split into digits, and decoding removes spaces before punctuation. Only byte-level BPE with a known pre-tokenizer is
taken (`openrlhf_prm.convert.gguf_tokenizer.PRE_TOKENIZERS`).

The checkpoint is read back as vLLM and OpenRLHF read it and must pass: texts survive encoding and decoding, special
tokens have the ids of the file, and a greedy chat answer ends by itself. Only then does it appear under `--output`. The
last line on stdout is a JSON summary. Exit code 2: a flag or the file is wrong, or a check failed; said in one line.
"""

import importlib.metadata
import json
import shutil
import sys
from pathlib import Path

from openrlhf_prm.cli.parser import FlagParser
from openrlhf_prm.cluster.accelerator import prepare_environment

PACKAGE = "package:"
ROUND_TRIPS = [
    "Q: 12+345=?\nStep 1: 12 + 345 = 357\n\nAnswer: 357 .",
    "  leading, trailing and  double spaces\t\n\n\n",
    "café, naïve: 3 × 7 ≠ 22, 答案 is 21 🙂 don't ,  can 't",
]
CHAT = "What is the capital of France?"


def build_parser() -> FlagParser:
    """The flags of this command."""
    parser = FlagParser(prog="convert_gguf", description="Convert a GGUF file into a Hugging Face checkpoint.")
    parser.add_argument("--input", required=True, help="GGUF file, or package:NAME of an installed Python package")
    parser.add_argument("--output", required=True, help="folder of the checkpoint; must not exist yet")
    parser.add_argument(
        "--max_new_tokens", type=int, default=128, help="tokens within which the check's answer must end"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = build_parser()
    args = parser.parse_args(argv)
    output = Path(args.output)
    try:
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise ValueError(f"--output: {output} already exists; remove it or choose another")
        source = gguf_file(args.input)
    except ValueError as error:
        parser.error(str(error))
    prepare_environment()
    partial = output.with_name(f"{output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        special = convert(source, partial)
        answer = verify(partial, special, args.max_new_tokens)
    except ValueError as error:
        parser.error(f"--input {args.input}: {error}")
    if output.is_dir():
        output.rmdir()  # empty: checked before
    partial.rename(output)
    print(json.dumps({"output": str(output), "special_tokens": special, "question": CHAT, "answer": answer}))
    return 0


def gguf_file(name: str) -> Path:
    """The file that `--input` names. Raises ValueError for a missing file or package, or one without exactly one GGUF
    file.
    """
    if not name.startswith(PACKAGE):
        if not Path(name).is_file():
            raise ValueError(f"--input: no such file: {name}")
        return Path(name)
    package = name.removeprefix(PACKAGE)
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        raise ValueError(f"--input: the Python package {package!r} is not installed") from None
    found = [file for file in files if file.suffix == ".gguf"]
    if len(found) != 1:
        raise ValueError(f"--input: the Python package {package!r} has {len(found)} GGUF files, expected one")
    return Path(found[0].locate())


def convert(source: Path, output: Path) -> dict[str, int]:
    """Writes weights, configuration and tokenizer to `output`; returns the ids of the special tokens by role.

    Raises ValueError for a tokenizer that this command cannot rebuild faithfully.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from openrlhf_prm.convert.gguf_tokenizer import build_tokenizer, read_fields

    tokenizer, special = build_tokenizer(read_fields(source))
    model = AutoModelForCausalLM.from_pretrained(str(source.parent), gguf_file=source.name, dtype=torch.bfloat16)
    for settings in (model.config, model.generation_config):
        for role, number in special.items():
            setattr(settings, f"{role}_token_id", number)
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    return special


def verify(checkpoint: Path, special: dict[str, int], max_new_tokens: int) -> str:
    """The greedy answer to `CHAT`, after every check of this module. Raises ValueError naming the check that failed."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    for role, number in special.items():
        if getattr(tokenizer, f"{role}_token_id") != number:
            raise ValueError(f"the {role} token has id {getattr(tokenizer, f'{role}_token_id')}, expected {number}")
    messages = [{"role": "user", "content": CHAT}]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    for text in [*ROUND_TRIPS, prompt]:
        ids = tokenizer.encode(text, add_special_tokens=False)
        if tokenizer.decode(ids) != text:
            raise ValueError(f"{text!r} came back from the tokenizer as {tokenizer.decode(ids)!r}")
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    if model.get_input_embeddings().num_embeddings < len(tokenizer):
        raise ValueError(f"{len(tokenizer)} tokens but {model.get_input_embeddings().num_embeddings} embeddings")
    ids = tokenizer.encode(prompt, add_special_tokens=False, return_tensors="pt")
    written = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=max_new_tokens)[
        0, ids.shape[1] :
    ]
    if written[-1].item() != special["eos"]:
        raise ValueError(f"a greedy answer did not end within {max_new_tokens} tokens: {tokenizer.decode(written)!r}")
    return tokenizer.decode(written, skip_special_tokens=True)


if __name__ == "__main__":
    sys.exit(main())
