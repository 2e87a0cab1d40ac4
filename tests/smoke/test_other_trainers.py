"""The reward functions for other trainers, called by those: TRL trains with one, verl's own loader finds the other.

Both trainers lie in a folder of their own, beside the project's packages and out of their sight.
"""

import http.server
import json
import os
import subprocess
import sys
import threading

import pytest
from commands import ROOT
from safetensors.torch import load_file
from tiny_prm import save_tiny_prm, worst
from transformers import LlamaForCausalLM

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("other trainers")]

TRAINERS = ["trl==1.16.0", "verl==0.9.1"]
# What verl imports before it comes to its loader, and the project does not have.
OF_VERL = ["tensordict==0.10.0", "pyvers", "orjson", "codetiming", "hydra-core", "omegaconf",
           "antlr4-python3-runtime==4.9.3", "torchdata", "pylatexenc"]  # fmt: skip


@pytest.fixture(scope="module")
def trainers(tmp_path_factory):
    """The folder with the trainers, made by uv."""
    folder = tmp_path_factory.mktemp("trainers")
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
    done = subprocess.run([*command, "--python", sys.executable, *TRAINERS, *OF_VERL], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"the package index gives no {' and '.join(TRAINERS)}: {done.stderr.strip()[-200:]}")
    return folder


def score(step):
    """The number that a step ends with, else one from its characters."""
    try:
        return float(step.split()[-1])
    except ValueError:
        return sum(map(ord, step)) % 97 / 97


class StepRewards(http.server.BaseHTTPRequestHandler):
    """A server of step rewards whose scores are written in the steps."""

    def do_POST(self):
        items = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["data"]
        data = [{"index": n, "step_rewards": [score(step) for step in item["steps"]]} for n, item in enumerate(items)]
        body = json.dumps({"model": "prm", "data": data}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def url():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), StepRewards)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def run(trainers, *command):
    path = os.pathsep.join([str(trainers), str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout.splitlines()[-1]


def test_trl_trains_with_step_scores(trainers, url, tmp_path):
    """Rewards are a server's scores, and the policy's weights move."""
    policy, data = tmp_path / "policy", tmp_path / "data.jsonl"
    save_tiny_prm(policy, seed=1)
    data.write_text("".join(json.dumps({"question": f"{n}+{n}=?", "answer": 2 * n}) + "\n" for n in range(4)))
    before = load_file(policy / "model.safetensors")
    flags = {
        "--model": policy,
        "--prm": url,
        "--data": data,
        "--output": tmp_path / "run",
        "--steps": 2,
        "--samples": 4,
        "--max-new-tokens": 24,
    }
    pairs = [str(part) for pair in flags.items() for part in pair]
    summary = json.loads(run(trainers, "-m", "examples.other_trainers.trl_grpo", *pairs))
    assert summary["optimizer_steps"] == 2
    updates = [log for log in summary["history"] if "reward" in log]
    assert len(updates) == 2
    for log in updates:
        assert 0 < log["rewards/prm_reward/mean"] < 2 and log["reward_std"] > 0 and log["grad_norm"] > 0
        assert log["prm/steps"] >= 1 and log["prm/unscored"] == 0
    after = LlamaForCausalLM.from_pretrained(tmp_path / "run" / "checkpoint-2").state_dict()
    assert any(not after[name].equal(tensor) for name, tensor in before.items())


VERL = """
import asyncio, inspect, json, sys
from omegaconf import OmegaConf
from verl.trainer.ppo.reward import get_custom_reward_fn

kwargs = {"url": sys.argv[1], "unscored": 0.0, "outcome": "verl.utils.reward_score:default_compute_score"}
function = {"path": "pkg://vllm_prm.trainer_rewards", "name": "verl_reward", "reward_kwargs": kwargs}
reward = get_custom_reward_fn(OmegaConf.create({"reward": {"custom_reward_function": function}}))
assert inspect.iscoroutinefunction(reward), "verl would call it in a thread, one response at a time"

async def batch():
    solutions = ["0.5\\n\\n#### 0.75", "0.25\\n\\n0.125"]
    return await asyncio.gather(*(
        reward(data_source="openai/gsm8k", solution_str=solution, ground_truth="0.75", extra_info={"question": "q"})
        for solution in solutions
    ))

print(json.dumps([row["score"] for row in asyncio.run(batch())]))
"""


def test_verl_loads_and_calls_it(trainers, url):
    scores = json.loads(run(trainers, "-c", VERL, url))
    assert worst(scores, [0.5 + 1.0, 0.125]) < 1e-6
