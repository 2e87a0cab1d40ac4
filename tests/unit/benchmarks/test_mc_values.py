"""The benchmark of state values on a scripted policy: both methods come near the truth, ours with fewer tokens."""

import json
import random
import sys
from enum import Enum
from types import SimpleNamespace

import pytest
from transformers import AutoTokenizer

from benchmarks import mc_values, state_values
from benchmarks.runs import POLICY
from openrlhf_prm.tasks.arithmetic import careful_step, operands_of, quick_step

TOKENIZER = AutoTokenizer.from_pretrained(POLICY)


def continuation(text: str, rng: random.Random) -> str:
    """What follows a question and whole steps: quick steps and careful ones, half and half, then the answer."""
    question, *steps = text.splitlines()
    first, *rest = operands_of(question)
    total = int(steps[-1].replace(" > ", "=").split("=")[-1]) if steps else first
    lines = []
    for operand in rest[len(steps) :]:
        line, total = rng.choice((quick_step, careful_step))(total, operand)
        lines.append(line)
    return "\n".join([*lines, f"Answer: {total}"]) + "\n"


class OutputKind(Enum):
    """vLLM's of that name."""

    FINAL_ONLY = 2


class ScriptedEngine:
    """Stands for the vLLM engine; prefixes of what was written count as cached where caching is on."""

    def __init__(self, policy, caching, seed):
        self.caching, self.rng = caching, random.Random(seed)
        self.spent = {"generated": 0, "prefilled": 0}
        self.known = set()
        self.engine = SimpleNamespace(reset_prefix_cache=self._forget)

    async def _forget(self):
        self.known.clear()

    def sampling(self, n, limit):
        return SimpleNamespace(n=n, max_tokens=limit, min_tokens=0, logprobs=None, output_kind=OutputKind.FINAL_ONLY)

    async def generate(self, prompt, params):
        prompt, outputs = tuple(prompt), []
        for _ in range(params.n):
            if not (self.caching and prompt in self.known):
                self.spent["prefilled"] += len(prompt)
            self.known |= {prompt[:end] for end in range(len(prompt) + 1)}
            ids = [0]
            if params.max_tokens > 1:
                ids = TOKENIZER(continuation(TOKENIZER.decode(prompt), self.rng), add_special_tokens=False)["input_ids"]
            self.spent["generated"] += len(ids)
            outputs.append(SimpleNamespace(token_ids=ids, finish_reason="stop"))
        return SimpleNamespace(outputs=outputs)

    def counters(self):
        return dict(self.spent)

    def stop(self):
        pass


def run(monkeypatch, capsys, folder, *flags) -> dict:
    monkeypatch.setattr(state_values, "Engine", ScriptedEngine)
    arguments = ["--no-prm", "--work-dir", str(folder / "work"), "--output", str(folder / "out.json"), *flags]
    monkeypatch.setattr(sys, "argv", ["mc_values", *arguments])
    assert mc_values.command() == 0
    lines = capsys.readouterr().out.splitlines()
    return json.loads(lines[-1]) if lines else {}


def test_ours_is_as_near_the_truth_with_fewer_tokens_and_a_run_resumes(monkeypatch, capsys, tmp_path):
    flags = ("--questions", "5", "--truth", "48", "--tune-truth", "48", "--repeats", "2")
    assert run(monkeypatch, capsys, tmp_path, *flags, "--seconds", "0") == {}, "nothing was left to say yet"
    summary = run(monkeypatch, capsys, tmp_path, *flags)
    # Nine fair coins err by about 0.13; of many states the truth is 0 or 1.
    assert 0 < summary["naive_mae"] < 0.15 and 0 < summary["mae"] < 0.15
    assert summary["tokens"] < summary["naive_tokens"] / 2
    assert summary["tokens_ratio"] == pytest.approx(summary["tokens"] / summary["naive_tokens"], abs=1e-4)
    cells = json.loads((tmp_path / "out.json").read_text())
    assert cells["summary"]["tune"]["naive"]["mae"] >= cells["summary"]["tune"][summary["setting"]]["mae"]
    assert run(monkeypatch, capsys, tmp_path, *flags) == summary, "what is there is not measured again"
