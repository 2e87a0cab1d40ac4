"""No command touches CUDA in a process that starts engines: vLLM forks them, and CUDA cannot be initialised in a fork
of a process that has.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_prm import save_tiny_prm

ROOT = Path(__file__).parents[2]
POLICY = ROOT / "benchmarks" / "policies" / "short"


class GpuBuild:
    """A process that runs commands on what PyTorch takes for eight GPUs."""

    def __init__(self) -> None:
        command = [sys.executable, str(Path(__file__).with_name("gpu_build.py"))]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, *argv: object) -> dict:
        hidden = ("PYTORCH_NVML_BASED_CUDA_CHECK", "DS_ACCELERATOR", "RAY_ADDRESS")
        environment = {name: value for name, value in os.environ.items() if name not in hidden}
        self.process.stdin.write(json.dumps({"argv": list(map(str, argv)), "environment": environment}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@pytest.fixture(scope="module")
def gpu_build():
    build = GpuBuild()
    yield build
    build.process.stdin.close()
    build.process.wait()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A PRM, questions, a benchmark, solutions."""
    folder = tmp_path_factory.mktemp("files")
    save_tiny_prm(folder / "prm")
    (folder / "questions.jsonl").write_text('{"question": "1 + 1 = ?", "label": "2"}\n')
    (folder / "solutions.jsonl").write_text('{"question": "1 + 1 = ?", "steps": ["It is 2."]}\n')
    rows = [{"id": f"p-{label}", "problem": "1 + 1 = ?", "steps": ["2", "3"], "label": label} for label in (-1, 0)]
    (folder / "benchmark").mkdir()
    (folder / "benchmark" / "small.json").write_text(json.dumps(rows))
    return folder


POLICY_AND_PRM = (
    *("--actor.model_name_or_path", POLICY, "--rollout.max_new_tokens", 64),
    *("--prm.model_name_or_path", "{}/prm", "--data.input", "{}/questions.jsonl"),
)
COMMANDS = {
    "serve": ("vllm_prm.serve", "serve", "{}/prm"),
    "score": ("vllm_prm.serve", "score", "{}/prm", "--input", "{}/solutions.jsonl"),
    "evaluate --benchmark": (
        *("openrlhf_prm.cli.evaluate", "--benchmark", "processbench", "--data.input", "{}/benchmark"),
        *("--prm.model_name_or_path", "{}/prm", "--eval.output", "{}/result.json", "--eval.threshold", 0.5),
    ),
    "evaluate": ("openrlhf_prm.cli.evaluate", *POLICY_AND_PRM),
    "rejection_sample": ("openrlhf_prm.cli.rejection_sample", *POLICY_AND_PRM, "--data.output", "{}/sft.jsonl"),
    "annotate": (
        *("openrlhf_prm.cli.annotate", "--actor.model_name_or_path", POLICY, "--rollout.max_new_tokens", 64),
        *("--data.input", "{}/questions.jsonl", "--data.output", "{}/labels.jsonl"),
    ),
    "train_ppo_ray": (
        *("openrlhf_prm.cli.train_ppo_ray", "--actor.model_name_or_path", POLICY, "--prm.model_name_or_path", "{}/prm"),
        *("--reward.remote_url", ROOT / "openrlhf_prm/answers/outcome.py", "--data.max_len", 256),
        *("--data.prompt_dataset", "{}/questions.jsonl", "--data.input_key", "question", "--data.label_key", "label"),
        *("--vllm.num_engines", 1, "--ds.attn_implementation", "sdpa"),
    ),
}
STARTS = {"serve": "server", "score": "engine", "evaluate --benchmark": "engine"}


@pytest.mark.parametrize("name", list(COMMANDS))
def test_a_command_reaches_its_engine_without_touching_cuda(gpu_build, files, name):
    answer = gpu_build.run(*(str(part).replace("{}", str(files)) for part in COMMANDS[name]))
    assert answer["reached"] == STARTS.get(name, "Ray")
    assert not answer["touches"], answer["touches"][0]


@pytest.mark.parametrize(("package", "touches"), [("vllm_prm", 0), ("openrlhf_prm", 0), ("json", 1)])
def test_after_our_import_others_may_ask_for_a_gpu(gpu_build, package, touches):
    answer = gpu_build.run("-c", f"import torch, {package}; assert torch.cuda.is_available()")
    assert answer["reached"] == "ended"
    assert len(answer["touches"]) == touches
