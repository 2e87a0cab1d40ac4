"""The shapes of the models that these scripts name, so that a dry run needs no download.

`python shapes.py FOLDER NAME` writes config.json, as far as it is about sizes, into FOLDER and prints the path, where
NAME is one of them; else it prints NAME.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path


def qwen(hidden: int, intermediate: int, layers: int, heads: int, groups: int, **others: object) -> dict[str, object]:
    """A config of Qwen2.5's."""
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "max_position_embeddings": 4096,
        "vocab_size": 152064,
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
        **others,
    }


PRM = {"architectures": ["Qwen2ForProcessRewardModel"]}
SMALL, MEDIUM = (1536, 8960, 28, 12, 2), (3584, 18944, 28, 28, 4)
LARGE, LARGEST = (5120, 27648, 64, 40, 8), (8192, 29568, 80, 64, 8)
SHAPES = {
    "Qwen/Qwen2.5-Math-1.5B": qwen(*SMALL, vocab_size=151936, tie_word_embeddings=True),
    "Qwen/Qwen2.5-Math-7B": qwen(*MEDIUM),
    "Qwen/Qwen2.5-Math-7B-Instruct": qwen(*MEDIUM),
    "Qwen/Qwen2.5-32B": qwen(*LARGE, max_position_embeddings=131072),
    "Qwen/Qwen2.5-Math-PRM-7B": qwen(*MEDIUM, **PRM),
    "Qwen/Qwen2.5-Math-PRM-72B": qwen(*LARGEST, **PRM),
}


def main(arguments: Sequence[str]) -> None:
    """Prints the folder of the shape, or the name."""
    folder, name = arguments
    if name not in SHAPES:
        print(name)
        return
    path = Path(folder) / name
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(SHAPES[name], indent=2))
    print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
