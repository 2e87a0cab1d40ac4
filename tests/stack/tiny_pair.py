"""An implicit PRM small enough for a CPU test: a model and its reference, and its published scores by hand."""

import json
from pathlib import Path

import torch
from tiny_chat_lm import save_tiny_chat_lm
from transformers import AutoModelForCausalLM, AutoTokenizer

CONTEXT = 4096


def save_pair(folder: Path, architecture: str, **prm) -> Path:
    """A model and its reference, whose head is tied to its embedding, and the model's declaration of it."""
    save_tiny_chat_lm(folder / "reference", architecture, seed=1, tied=True, max_position_embeddings=CONTEXT)
    path = save_tiny_chat_lm(folder / "prm", architecture, seed=2, max_position_embeddings=CONTEXT)
    config = json.loads((path / "config.json").read_text())
    config["prm"] = {"family": "implicit", "reference": str(folder / "reference"), **prm}
    (path / "config.json").write_text(json.dumps(config))
    return path


class Published:
    """EurusPRM's card by hand: cumulative log-ratios at the ends that its code computes."""

    def __init__(self, path: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(path)
        folders = (path, path.parent / "reference")
        self.models = [AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32) for folder in folders]

    def conversation(self, question: str, steps: list[str]) -> str:
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": "\n\n".join(steps)}]
        return self.tokenizer.apply_chat_template(messages, tokenize=False)

    @torch.no_grad()
    def __call__(self, question: str, steps: list[str], beta: float) -> torch.Tensor:
        lengths = []
        for count in range(len(steps) + 1):
            text = self.conversation(question, steps[:count]).strip()
            text += "\n\n" if 0 < count < len(steps) else ""
            lengths.append(len(self.tokenizer.encode(text, add_special_tokens=False)))
        ids = torch.tensor([self.tokenizer.encode(self.conversation(question, steps), add_special_tokens=False)])
        policy, reference = (
            model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:].unsqueeze(1)).squeeze(1)
            for model in self.models
        )
        ratios = beta * (policy - reference)
        ratios[: lengths[0] - 3] = 0
        return ratios.cumsum(0)[[length - 2 for length in lengths[1:]]]
