"""The evaluation command on real Ray and vLLM engines: a random policy, a random PRM, two policies in one go.

Some questions are long: 65 requests of some 450 tokens each are several engine steps of 2048 tokens.
"""

import json
import random

import pytest
import torch
from commands import summary_of
from killed_command import fill_disk_midway
from tiny_prm import save_tiny_prm, save_tiny_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from openrlhf_prm.data.ledger import balances
from openrlhf_prm.evaluation.responses import read_samples
from openrlhf_prm.tasks.arithmetic import questions

pytestmark = pytest.mark.stack
EVALUATE = "openrlhf_prm.cli.evaluate"


def save_tiny_policy(path, seed: int):
    torch.manual_seed(seed)
    tokenizer = save_tiny_tokenizer(path)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(path)
    return path


def test_two_policies_with_a_prm_attempts_and_budgets(tmp_path):
    policies = [save_tiny_policy(tmp_path / name, seed) for seed, name in enumerate(("before", "after"))]
    prm = save_tiny_prm(tmp_path / "prm", max_position_embeddings=1024)
    rows = [{"question": q, "label": a} for q, a in questions("test", 3, seed=0)]
    rows += [{"question": f"Q: {number}" + "+12" * 150 + "=?\n", "label": "3"} for number in range(10, 15)]
    count = len(rows)
    data = tmp_path / "test.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in random.Random(0).sample(rows, count)))
    flags = ["--actor.model_name_or_path", *policies, "--prm.model_name_or_path", prm, "--data.input", data]
    flags += ["--eval.step_checker", "arithmetic", "--eval.n_samples_per_prompt", "12"]
    flags += ["--rollout.max_new_tokens", "24", "--vllm.dtype", "bfloat16"]
    flags += ["--self_correction.attempts", 2, "--self_correction.instruction", "Answer: 0"]
    flags += ["--eval.budgets", 8, 16, 64, "--eval.budget_wait", "so 1"]
    flags += ["--eval.budget_answer", "Answer: ", "--eval.budget_answer_tokens", 4]
    flags += ["--eval.output", tmp_path / "a.json", tmp_path / "b.json"]
    flags += ["--eval.samples", tmp_path / "a.jsonl", tmp_path / "b.jsonl", "--eval.report", tmp_path / "page.html"]
    last_line = summary_of(EVALUATE, *flags)
    assert list(last_line) == [str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    for name in ("a", "b"):
        result = json.loads((tmp_path / f"{name}.json").read_text())
        assert result == last_line[str(tmp_path / f"{name}.json")]
        assert result["questions"] == count and result["n"] == 12
        assert set(result["best_of_12"]) == {"min", "prod", "last", "mean"}
        assert result["greedy"] == 0.0 and result["step_accuracy"] == 0.0  # a random policy solves nothing

        responses = read_samples(tmp_path / f"{name}.jsonl")
        assert [(r.index, r.sample) for r in responses] == [(i, s) for i in range(count) for s in (None, *range(12))]
        assert {r.index: r.question for r in responses} == {
            i: json.loads(x)["question"] for i, x in enumerate(lines(data))
        }
        for response in responses:
            assert len(response.step_scores) == len(response.step_checks) == len(response.steps)
            assert all(0 <= score <= 1 for score in response.step_scores)
            assert 1 <= response.tokens <= 24
            if response.truncated:
                assert response.tokens == 24
        sampled = [r.response for r in responses if r.kind == "sample"]
        assert len(set(sampled)) == len(sampled)  # every request has a seed of its own
        require_attempts_and_budgets(result, responses)
    assert "64 tokens, wait" in (tmp_path / "page.html").read_text()
    assert [(each.run, each.unit, each.faults) for each in balances(tmp_path)] == [
        (f"{name}.json", unit, []) for name in ("a", "b") for unit in ("responses", "steps")
    ]
    first, second = (read_samples(tmp_path / f"{name}.jsonl") for name in "ab")
    assert [r.response for r in first] != [r.response for r in second]


def require_attempts_and_budgets(result, responses):
    changed = result["self_correction"]
    assert changed["accuracy_t1"] == result["mean_at_12"] and len(changed["edit_histogram"]) == 5
    assert changed["difference"] == changed["wrong_to_right"] - changed["right_to_wrong"]
    assert {len(response.later) for response in responses} == {1}
    assert all(1 <= attempt.tokens <= 24 for response in responses for attempt in response.later)
    for mode in ("cut", "wait"):
        rows = result["budgets"][mode]["curve"]
        assert [row["budget"] for row in rows] == [8, 16, 64] and rows[0]["tokens"] >= 8
    waiting = [row["tokens"] for row in result["budgets"]["wait"]["curve"]]
    assert all(tokens > budget for tokens, budget in zip(waiting, (8, 16, 64), strict=True)), "budget and answer"


def test_a_full_disk_is_one_line_and_what_was_on_disk_stays(tmp_path):
    policy = save_tiny_policy(tmp_path / "policy", 0)
    data = tmp_path / "test.jsonl"
    data.write_text("".join(json.dumps({"question": q, "label": a}) + "\n" for q, a in questions("test", 3, seed=0)))
    samples, output = tmp_path / "samples.jsonl", tmp_path / "result.json"
    flags = ["--actor.model_name_or_path", policy, "--data.input", data, "--eval.n_samples_per_prompt", 2]
    flags += ["--rollout.max_new_tokens", 24, "--vllm.dtype", "bfloat16"]
    told = fill_disk_midway(samples, 0, EVALUATE, *flags, "--eval.samples", samples, "--eval.output", output)
    assert f"error: {output} cannot be written: File too large; once there is room" in told
    assert len(read_samples(samples)) == 9 and not output.exists()
    assert [each.faults for each in balances(tmp_path)] == [["the run has not ended"]]


def lines(path):
    return path.read_text().splitlines()
