import importlib.metadata
import importlib.util
import json
import signal
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest

from vllm_prm import checkpoint
from vllm_prm.checkpoint import load_served_family
from vllm_prm.engines import cpu_defaults
from vllm_prm.families import PRM_FAMILIES
from vllm_prm.families.placeholder import PlaceholderFamily
from vllm_prm.score_file import read_items
from vllm_prm.serve import _split_hf_overrides, _tokenizer_options, serve_command, serve_environment


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


def test_cpu_defaults_leave_a_sized_cache_alone(monkeypatch):
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    assert cpu_defaults({}) == {"dtype": "float32", "block_size": 32, "kv_cache_memory_bytes": 1 << 30}
    assert cpu_defaults({"gpu_memory_utilization"}) == {"dtype": "float32", "block_size": 32}
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "4")
    assert cpu_defaults({}) == {"dtype": "float32", "block_size": 32}


class Declared(PlaceholderFamily):
    """A family whose overrides show which tokenizer it was given."""

    @classmethod
    def from_checkpoint(cls, path, tokenizer=None, options=None):
        family = cls.__new__(cls)
        family.tokenizer = tokenizer
        return family

    def hf_overrides(self):
        return {"architectures": ["LlamaForStepReward"], "prm": {"family": "declared"}}


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
    ours += ["--io-processor-plugin", "vllm_prm_step_rewards"]
    # vLLM's own block size is the smallest sensible one on GPUs; on CPUs it is not.
    ours += [] if gpu else ["--block-size", "32", "--kv-cache-memory-bytes", str(1 << 30)]
    assert rest == [*ours, "--port", "9000", "--dtype=float32"]


def test_the_server_command_is_one_that_exists():
    for module in ("vllm.entrypoints.cli.main", "vllm.entrypoints.openai.api_server"):
        assert importlib.util.find_spec(module) is not None


def test_tokenizer_flags_reach_the_family(monkeypatch):
    seen = []

    class AutoTokenizer:
        @staticmethod
        def from_pretrained(name, **options):
            seen.append((name, options))
            return "the tokenizer"

    monkeypatch.setitem(PRM_FAMILIES, "declared", Declared)
    monkeypatch.setattr("transformers.AutoTokenizer", AutoTokenizer)
    given = ["--tokenizer", "another/place", "--tokenizer_revision=v2", "--trust-remote-code", "--port", "1"]
    options = _tokenizer_options(given)
    assert load_served_family("the/prm", "declared", **options).tokenizer == "the tokenizer"
    assert seen == [("another/place", {"revision": "v2", "trust_remote_code": True})]
    assert load_served_family("the/prm", "declared", **_tokenizer_options(["--port", "1"])).tokenizer is None
    assert load_served_family("the/prm", "declared", tokenizer=Declared).tokenizer is Declared
    load_served_family("the/prm", "declared", trust_remote_code=True)
    assert seen[1:] == [("the/prm", {"revision": "main", "trust_remote_code": True})]
    with pytest.raises(ValueError, match="--tokenizer"):
        _tokenizer_options(["--tokenizer"])


def test_the_family_of_a_running_engine(monkeypatch):
    """What vLLM loaded decides, whatever the checkpoint declares beside it."""
    monkeypatch.setattr(checkpoint, "load_served_family", lambda model, family, **_: family)

    def family(prm, runner="pooling", architecture="LlamaForStepReward"):
        hf_config = SimpleNamespace(prm=prm) if prm is not None else SimpleNamespace()
        config = SimpleNamespace(
            hf_config=hf_config, runner_type=runner, architecture=architecture, model="m", revision=None
        )
        return checkpoint.family_in_engine(config, "tokenizer")

    assert family({"family": "placeholder"}) == "placeholder"
    assert family({"family": "implicit"}, architecture="Qwen2ForStepLogProbs") == "implicit"
    assert family({"family": "generative"}, "generate", "Qwen2ForCausalLM") == "generative"
    for given in (
        (None,),
        ("placeholder",),
        ({"family": "placeholder"}, "pooling", "LlamaForSequenceClassification"),
        ({"family": "placeholder"}, "generate", "LlamaForCausalLM"),
        ({"family": "generative"}, "pooling", "LlamaForCausalLM"),
        ({"family": "unheard of"}, "generate", "LlamaForCausalLM"),
    ):
        assert family(*given) is None, given


def run_score(*arguments, stdin="", code=2):
    command = [sys.executable, "-m", "vllm_prm.serve", "score", *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=600)
    assert done.returncode == code, done.stderr
    return done


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prm", "--input", "nowhere.jsonl"], "--input nowhere.jsonl cannot be read"),
        (["prm", "--wrong"], "unrecognized arguments: --wrong"),
        (["prm", "--aggregate", "median"], "--aggregate"),
        (["prm", "--engine-args", "[]"], "--engine-args must be a JSON object"),
        (["prm", "--batch-size", "0"], "--batch-size"),
        (["prm", "--output", "no/such/folder/out.jsonl"], "folder no/such/folder does not exist"),
        ([], "name the PRM"),
        (["--url", "nonsense"], "http://"),
        (["--url", "http://127.0.0.1:9", "--family", "placeholder"], "--family is for an engine of our own"),
        (["--url", "http://127.0.0.1:9", "--engine-args", '{"seed": 1}'], "--engine-args is for an engine of our own"),
        (["prm", "--api-key-env", "KEY"], "--api-key-env is for a server"),
    ],
)
def test_mistakes_end_in_one_line(arguments, message):
    done = run_score(*arguments, stdin='{"question": "q", "steps": ["a"]}\n')
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr and done.stdout == ""


def test_help_of_every_command():
    for name, flag in (("score", "--batch-size"), ("serve", "--max-bytes"), ("inspect", "--family")):
        command = [sys.executable, "-m", "vllm_prm.serve", name, "--help"]
        assert flag in subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_interruption_keeps_what_was_written(tmp_path):
    """A server that never answers: Ctrl-C ends the command with status 130, one line and no traceback."""
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"question": "q", "steps": ["a"]}\n')
    (tmp_path / "out.jsonl.partial").write_text("")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        command = [sys.executable, "-m", "vllm_prm.serve", "score", "--url", url]
        process = subprocess.Popen(
            [*command, "--input", str(source), "--output", str(output)],
            stderr=subprocess.PIPE,
            text=True,
            # A shell starts background jobs deaf to Ctrl-C, and these tests may run in one.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        silent.settimeout(600)
        connection, _ = silent.accept()
        with connection:
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=600)
    assert process.returncode == 130
    assert stderr.splitlines()[-1] == "vllm-prm score: interrupted" and "Traceback" not in stderr
    assert not output.exists() and (tmp_path / "out.jsonl.partial").exists()


def test_input_errors_name_the_line():
    assert (
        len(read_items(['{"question": "q", "steps": ["a"]}', "", '{"question": "q", "response": "b", "id": 1}'])) == 2
    )
    for bad in ("{", "[1]", '{"question": "q"}', '{"question": "q", "steps": [], "id": NaN}'):
        with pytest.raises(ValueError, match="line 2"):
            read_items(['{"question": "q", "steps": []}', bad])
    with pytest.raises(ValueError, match="already has"):
        read_items(['{"question": "q", "steps": [], "score": 1}'])


def test_importing_the_package_is_light():
    """vLLM imports it in every process it starts; the protocol is for clients without torch."""
    code = "import sys, vllm_prm.protocol; print([m for m in ('torch', 'vllm', 'transformers') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
