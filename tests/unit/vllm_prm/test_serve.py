import importlib.metadata
import subprocess
import sys

import pytest

from vllm_prm.engines import cpu_defaults
from vllm_prm.score_file import finished_lines, read_items
from vllm_prm.serve import _split_hf_overrides, serve_environment


def test_hf_overrides_of_the_user_are_taken_out_and_kept():
    assert _split_hf_overrides(["--port", "1", "--hf-overrides", '{"a": 1}', "-x"]) == (["--port", "1", "-x"], {"a": 1})
    assert _split_hf_overrides(['--hf_overrides={"a": 1}']) == ([], {"a": 1})
    assert _split_hf_overrides(["--port", "1"]) == (["--port", "1"], {})
    with pytest.raises(ValueError, match="JSON object"):
        _split_hf_overrides(["--hf-overrides", "[1]"])


@pytest.fixture
def installed(monkeypatch):
    """Entry points as after installation, beside a stranger's."""
    groups = {
        "vllm.general_plugins": [("vllm_prm", "vllm_prm:register"), ("stranger", "stranger:register")],
        "vllm.endpoint_plugins": [("vllm_prm_step_rewards", "vllm_prm.endpoint:StepRewardsPlugin"), ("s", "s:S")],
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


def test_environment_needs_the_installed_package(installed):
    installed["vllm.endpoint_plugins"].pop(0)
    with pytest.raises(ValueError, match="install the package"):
        serve_environment({})


def test_cpu_defaults_leave_a_sized_cache_alone(monkeypatch):
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    assert cpu_defaults({}) == {"block_size": 32, "kv_cache_memory_bytes": 1 << 30}
    assert cpu_defaults({"gpu_memory_utilization"}) == {"block_size": 32}
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "4")
    assert cpu_defaults({}) == {"block_size": 32}


def test_input_errors_name_the_line():
    assert (
        len(read_items(['{"question": "q", "steps": ["a"]}', "", '{"question": "q", "response": "b", "id": 1}'])) == 2
    )
    for bad in ("{", "[1]", '{"question": "q"}'):
        with pytest.raises(ValueError, match="line 2"):
            read_items(['{"question": "q", "steps": []}', bad])
    with pytest.raises(ValueError, match="already has"):
        read_items(['{"question": "q", "steps": [], "score": 1}'])


def test_an_interrupted_output_is_cut_to_whole_lines_and_checked(tmp_path):
    partial = tmp_path / "out.partial"
    assert finished_lines(partial, []) == 0
    partial.write_text('{"id": 1, "step_rewards": [0.5]}\n{"id": 2, "st')
    assert finished_lines(partial, [{"id": 1}, {"id": 2}]) == 1
    assert partial.read_text() == '{"id": 1, "step_rewards": [0.5]}\n'
    with pytest.raises(ValueError, match="does not belong"):
        finished_lines(partial, [{"id": 3}])


def test_importing_the_package_is_light():
    """vLLM imports it in every process it starts; the protocol is for clients without torch."""
    code = "import sys, vllm_prm.protocol; print([m for m in ('torch', 'vllm', 'transformers') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
