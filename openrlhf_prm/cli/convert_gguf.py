"""Turns a GGUF file into a Hugging Face checkpoint: `python -m openrlhf_prm.cli.convert_gguf --input FILE ...`.

`--input package:NAME` takes the one GGUF file of an installed Python package. Only byte-level BPE with a known
pre-tokenizer is taken (`openrlhf_prm.convert.gguf_tokenizer.PRE_TOKENIZERS`).

The checkpoint must pass `openrlhf_prm.convert.gguf.verify`; only then does it appear under `--output`. The last line on
stdout is a JSON summary. Exit code 2: a flag or the file is wrong, or a check failed; said in one line.
"""

import json
import shutil
import sys
from pathlib import Path

from openrlhf_prm.cli.parser import FlagParser
from openrlhf_prm.cluster.accelerator import prepare_environment
from openrlhf_prm.convert.gguf import CHAT, convert_checkpoint, gguf_file, verify


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
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        parser.error(f"--output: {output} already exists; remove it or choose another")
    try:
        source = gguf_file(args.input)
    except ValueError as error:
        parser.error(f"--input: {error}")
    prepare_environment()
    partial = output.with_name(f"{output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        special = convert_checkpoint(source, partial)
        answer = verify(partial, special, args.max_new_tokens)
    except ValueError as error:
        parser.error(f"--input {args.input}: {error}")
    if output.is_dir():
        output.rmdir()  # empty: checked before
    partial.rename(output)
    print(json.dumps({"output": str(output), "special_tokens": special, "question": CHAT, "answer": answer}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
