"""A GGUF file -> a Hugging Face checkpoint.

Weights are dequantised by transformers and stored in bf16. The tokenizer is built from the file's vocabulary, merges
and special tokens (`gguf_tokenizer`), because transformers' reading of it loses things: SmolLM2's end of sequence comes
out as `<|im_start|>`, numbers are no longer split into digits, and decoding removes spaces before punctuation. The
result is read back as vLLM and OpenRLHF read it (`verify`).
"""

import importlib.metadata
from pathlib import Path

PACKAGE = "package:"
ROUND_TRIPS = [
    "Q: 12+345=?\nStep 1: 12 + 345 = 357\n\nAnswer: 357 .",
    "  leading, trailing and  double spaces\t\n\n\n",
    "café, naïve: 3 × 7 ≠ 22, 答案 is 21 🙂 don't ,  can 't",
]
CHAT = "What is the capital of France?"


def gguf_file(name: str) -> Path:
    """The file `name`, or that of the installed Python package in `package:NAME`.

    Raises ValueError for a missing file or package, or one without exactly one GGUF file.
    """
    if not name.startswith(PACKAGE):
        if not Path(name).is_file():
            raise ValueError(f"no such file: {name}")
        return Path(name)
    package = name.removeprefix(PACKAGE)
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        raise ValueError(f"the Python package {package!r} is not installed") from None
    in_package = [file for file in files if file.suffix == ".gguf"]
    if len(in_package) != 1:
        raise ValueError(f"the Python package {package!r} has {len(in_package)} GGUF files, expected one")
    return Path(in_package[0].locate())


def convert_checkpoint(source: Path, output: Path) -> dict[str, int]:
    """Writes weights, configuration and tokenizer to `output`; returns the ids of the special tokens by role.

    Raises ValueError for a tokenizer that cannot be rebuilt faithfully.
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
    """The greedy answer to `CHAT`, once the checkpoint has passed. Raises ValueError naming the check that failed:
    texts survive encoding and decoding, special tokens have the ids `special`, there is an embedding for every token,
    and the answer ends by itself within `max_new_tokens`.
    """
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
