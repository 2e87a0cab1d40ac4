"""Long chains as a user generates them: a small policy on engines of real Ray and vLLM, and behind a server, killed and
run again; the host's SFT trains on them.
"""

import json
from pathlib import Path

import pytest
from commands import ROOT, fine_tune, run, summary_of
from killed_command import kill_midway
from servers import held_port, running_server, until_ready

from openrlhf_prm.tasks.arithmetic import check_steps, questions

pytestmark = pytest.mark.stack

POLICY = ROOT / "benchmarks" / "policies" / "short"
COUNT = 24
FILES = ("", ".sft.jsonl", ".shortest.jsonl", ".labels.jsonl", ".rejected.jsonl")
ROLES = """
separator: "\\n"
roles: {elaborator: {form: text, prompt: "{question}{steps}", stop: ["\\n"], max_tokens: 64}}
phrases: {doubt: ["-"], back: ["{step}"], restart: ["="]}
"""


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """The command without its output, and a folder."""
    folder = tmp_path_factory.mktemp("generate")
    rows = [{"question": text, "label": label} for text, label in questions("train", COUNT, seed=0)]
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "roles.yaml").write_text(ROLES)
    command = ["openrlhf_prm.cli.generate", "--actor.model_name_or_path", POLICY, "--data.input", folder / "in.jsonl"]
    command += ["--roles", folder / "roles.yaml", "--chain.no_plan", "--chain.no_recheck", "--chain.tries", "4"]
    command += ["--critic.kind", "exact", "--critic.task", "arithmetic"]
    return command, folder


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """URL of the policy."""
    command = ["vllm.entrypoints.openai.api_server", "--model", str(POLICY), "--enforce-eager", "--block-size", "32"]
    with running_server(command, tmp_path_factory.mktemp("server") / "log") as url:
        yield until_ready(url)


def files_of(output: Path) -> dict[str, bytes]:
    return {end: Path(f"{output}{end}").read_bytes() for end in FILES}


def require_sound(output: Path, summary: dict) -> None:
    """Chains with failed steps that were taken back, whose way to the right answer has no mistake."""
    assert summary["questions"] == COUNT == summary["kept"] + summary["rejected"] and summary["kept"] > COUNT // 2
    assert summary["prompt_tokens"] > 0
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert sum(part["kind"] == "failed" for row in rows for part in row["chain"]) > 5
    for row in rows:
        way = [part["text"] for part in row["chain"] if part["kind"] in ("step", "answer")]
        assert all(check_steps(row["question"], way)) and way[-1] == f"Answer: {row['label']}"
        assert row["tokens"] >= row["shortcut_tokens"] > 0 and row["prompt_tokens"] > row["completion_tokens"] > 0


def test_engines_write_chains_and_sft_trains_on_them(given):
    command, folder = given
    output = folder / "own" / "chains.jsonl"
    output.parent.mkdir()
    summary = summary_of(*command, "--data.output", output)
    require_sound(output, summary)
    tuned = fine_tune(output, "--model.model_name_or_path", POLICY, *summary["train_sft"].split())
    assert (tuned / "model.safetensors").exists()


def test_a_killed_run_by_a_server_goes_on_to_the_same_bytes(given, server, tmp_path):
    command, folder = given
    output, whole = folder / "killed.jsonl", folder / "whole.jsonl"
    work = Path(f"{output}.work.jsonl")
    command = [*command, "--rollout.urls", f"{server}/v1", "--data.output"]
    kill_midway(work, 1, tmp_path / "log", *command, output, "--rollout.concurrency", "1")
    before = work.read_bytes()
    assert 1 < len(before.splitlines()) < COUNT and not output.exists()

    summary = summary_of(*command, output)
    assert work.read_bytes().startswith(before) and summary["resumed_questions"] == len(before.splitlines()) - 1
    require_sound(output, summary)
    assert summary_of(*command, whole)["kept"] == summary["kept"]
    assert files_of(whole) == files_of(output)


def test_what_a_server_refuses_is_counted_and_one_that_is_gone_is_named(given, server, tmp_path):
    command, _ = given
    (tmp_path / "chat.yaml").write_text("roles: {elaborator: {model: policy}}")
    chat = [*command, "--data.output", tmp_path / "chat.jsonl", "--rollout.urls", server]
    chat[chat.index("--roles") + 1] = tmp_path / "chat.yaml"
    refused = summary_of(*chat)  # the policy has no chat template, which a server says of each request
    assert refused["kept"] == 0 and refused["reasons"] == {"refused": COUNT}
    with held_port() as port:
        gone = ["--rollout.urls", f"http://127.0.0.1:{port}", "--rollout.patience_s", "0"]
        done = run(*command, "--data.output", tmp_path / "gone.jsonl", *gone)
    assert done.returncode == 2 and f"{gone[1]} did not answer for 0 s" in done.stderr.splitlines()[-1]
