"""A critic that was taught a few critiques by heart, so that its verdicts are known."""

from pathlib import Path

import torch
from tiny_chat_lm import save_tiny_chat_lm
from transformers import AutoModelForCausalLM

from vllm_prm.families import load_family
from vllm_prm.families.critics import Critique

GREEDY = {"samples": 1, "temperature": 0.0, "max_tokens": 96}
CONTEXT = 8192
QUESTION = "What is 2+3*4?"
GOOD, BAD = ["3*4=12", "2+12=14"], ["3*4=12", "2+12=15"]
UNREADABLE = ["zz zz", "yy yy"]
"""Steps on which it gives no verdict that can be read."""
LESSONS = {
    # What the critic is to write, turn by turn.
    ("thinkprm", tuple(GOOD)): ["\nStep 1: \\boxed{correct}\nStep 2: \\boxed{correct}<|im_end|>"],
    ("thinkprm", tuple(BAD)): ["\nStep 1: \\boxed{correct}\nStep 2: \\boxed{incorrect}<|im_end|>"],
    ("genprm", tuple(GOOD)): ["ok</analyze>\n", "{Yes}$\n</output>\n", "ok</analyze>\n", "{Yes}$\n</output>\n"],
    ("genprm", tuple(UNREADABLE)): ["hm</analyze>\n", "maybe\n</output>\n", "hm</analyze>\n", "maybe\n</output>\n"],
    ("genprm", tuple(BAD)): ["ok</analyze>\n", "{Yes}$\n</output>\n", "no</analyze>\n", "{No}$\n</output>\n"],
}


def lessons(path: Path) -> set[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Prompt and answer tokens of every turn."""
    pairs = set()
    for (style, steps), answers in LESSONS.items():
        family = load_family(str(path), "generative", options={"style": style, **GREEDY})
        conversation = family.conversation(QUESTION, list(steps))
        ask = next(conversation)
        for number, answer in enumerate(answers, start=1):
            tokens = family.tokenizer.encode(answer, add_special_tokens=False)
            pairs.add((tuple(family.write(ask)), tuple(tokens)))
            if number < len(answers):
                ask = conversation.send(Critique(answer, tokens, True, [(0.0, 0.0)] * len(tokens)))
    return pairs


def teach(path: Path) -> None:
    """Train the checkpoint until it knows its lessons by heart."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    rows = [torch.tensor(prompt + answer) for prompt, answer in sorted(lessons(path))]
    labels = [torch.tensor((-100,) * len(prompt) + answer) for prompt, answer in sorted(lessons(path))]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    labels = torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(400):
        loss = model(ids, labels=labels).loss
        if loss.item() < 0.01:
            model.save_pretrained(path)
            return
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    raise AssertionError(f"the critic did not learn its lessons: loss {loss.item()}")


def save_taught_critic(path: Path) -> Path:
    """A random model that knows its lessons."""
    save_tiny_chat_lm(path, "qwen2", initializer_range=0.05, max_position_embeddings=CONTEXT)
    teach(path)
    return path
