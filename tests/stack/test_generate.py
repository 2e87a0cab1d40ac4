"""Long chains as a user generates them: a small policy on real Ray and vLLM, killed and run again, by engines and by a
server; the host's SFT trains on them.
"""

import json
from pathlib import Path

import pytest
from commands import ROOT, run, summary_of
from killed_command import kill_midway
from servers import running_server, until_ready

from openrlhf_prm.cluster.accelerator import cpu_environment, cpu_training_flags
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


def files_of(output: Path) -> dict[str, bytes]:
    return {end: Path(f"{output}{end}").read_bytes() for end in FILES}


def test_a_killed_run_goes_on_to_the_same_bytes_and_sft_trains_on_them(given, tmp_path):
    command, folder = given
    output, whole = folder / "killed.jsonl", folder / "whole.jsonl"
    work = Path(f"{output}.work.jsonl")
    killed = [*command, "--data.output", output]
    kill_midway(work, 1, tmp_path / "log", *killed, "--rollout.concurrency", "1")
    before = work.read_bytes()
    assert 1 < len(before.splitlines()) < COUNT and not output.exists()

    summary = summary_of(*killed)
    assert work.read_bytes().startswith(before) and summary["resumed_questions"] == len(before.splitlines()) - 1
    assert summary["questions"] == COUNT == summary["kept"] + summary["rejected"] and summary["kept"] > COUNT // 2
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert sum(part["kind"] == "failed" for row in rows for part in row["chain"]) > 5
    for row in rows:
        way = [part["text"] for part in row["chain"] if part["kind"] in ("step", "answer")]
        assert all(check_steps(row["question"], way)) and way[-1] == f"Answer: {row['label']}"
        assert row["tokens"] >= row["shortcut_tokens"] > 0 and row["prompt_tokens"] > row["completion_tokens"] > 0

    assert summary_of(*command, "--data.output", whole)["kept"] == summary["kept"]
    assert files_of(whole) == files_of(output)

    tuned = tmp_path / "tuned"
    train = ["torch.distributed.run", "--standalone", "--nproc_per_node", "1", "-m", "openrlhf.cli.train_sft"]
    train += ["--model.model_name_or_path", POLICY, *summary["train_sft"].split(), "--data.max_len", "256"]
    train += ["--train.batch_size", "8", "--train.micro_batch_size", "8", *cpu_training_flags()]
    done = run(*train, "--ckpt.output_dir", tuned, "--ckpt.path", tmp_path / "ckpt", environment=cpu_environment())
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tuned / "model.safetensors").exists()


def test_a_server_writes_chains_too(given, tmp_path):
    command, folder = given
    output = tmp_path / "served.jsonl"
    server = ["vllm.entrypoints.openai.api_server", "--model", str(POLICY), "--enforce-eager", "--block-size", "32"]
    with running_server(server, tmp_path / "log") as url:
        until_ready(url)
        served = summary_of(*command, "--data.output", output, "--rollout.urls", f"{url}/v1")
        chat = [*command, "--data.output", tmp_path / "chat.jsonl", "--rollout.urls", url]
        (tmp_path / "chat.yaml").write_text("roles: {elaborator: {model: policy}}")
        chat[chat.index("--roles") + 1] = tmp_path / "chat.yaml"
        refused = summary_of(*chat)  # the policy has no chat template, which a server says of each request
    assert served["kept"] > COUNT // 2 and served["prompt_tokens"] > 0
    assert refused["kept"] == 0 and refused["reasons"] == {"refused": COUNT}
    gone = run(*command, "--data.output", tmp_path / "gone.jsonl", "--rollout.urls", url, "--rollout.patience_s", "0")
    assert gone.returncode == 2 and f"{url} did not answer for 0 s" in gone.stderr.splitlines()[-1]
