"""The installation on GPUs resolves: with flash-attn and without, to the versions that were checked. No wheel is
downloaded; without a package index these tests are skipped.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib
from documents import shell_commands

import openrlhf_prm.hosts
import vllm_prm.hosts

ROOT = Path(__file__).parents[2]
UNREACHABLE = r"[Ff]ailed to fetch|error sending request|dns error|[Cc]onnection refused|timed out"


def resolved(command: list[str], out: Path, **environment: str) -> dict[str, str]:
    """Package -> version of what a command writes into `out`. Skips where uv reaches no package index."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, **environment})
    if done.returncode and re.search(UNREACHABLE, done.stderr):
        pytest.skip("uv reaches no package index")
    assert done.returncode == 0, done.stderr
    return dict(re.findall(r"^([\w-]+)==(\S+)", out.read_text(), re.MULTILINE))


def install_gpu(out: Path, *options: str) -> dict[str, str]:
    script = [str(ROOT / "scripts" / "install_gpu.sh"), *options, "--resolve", str(out)]
    return resolved(script, out, PYTHON=sys.executable)


@pytest.mark.parametrize("options", [(), ("--without-flash-attn",)], ids=["with", "without"])
def test_the_training_stack_resolves_to_what_was_checked(tmp_path, options):
    versions = install_gpu(tmp_path / "lock", *options)
    for package, checked in openrlhf_prm.hosts.VERSIONS.items():
        assert versions[package] == checked
    assert ("flash-attn" in versions) == (not options)
    # What the script names, and what builds flash-attn without isolation.
    assert {"torch", "ninja", "packaging", "psutil", "setuptools", "wheel"} <= versions.keys()
    lock = dict(re.findall(r"^([\w-]+)==([\w.]+)", (ROOT / "requirements" / "cpu.lock").read_text(), re.MULTILINE))
    for package in ("torch", "transformers"):
        assert versions[package] == lock[package]


def test_what_the_pages_install_for_serving_is_a_vllm_that_was_checked(tmp_path):
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    lines = {tuple(words[2:]) for page in pages for words in shell_commands(page.read_text()) if words[0] == "pip"}
    ((extra, limit),) = lines  # the distribution is on no index: only the checkout can be installed
    assert extra == ".[serve]"
    constraint, out = tmp_path / "constraint", tmp_path / "lock"
    constraint.write_text(limit)
    compile_extra = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--extra", "serve", "pyproject.toml"]
    versions = resolved([*compile_extra, "--constraint", str(constraint), "--output-file", str(out)], out)
    assert vllm_prm.hosts.place_in_range(versions["vllm"]) == 0


def test_an_option_that_is_none_is_refused():
    done = subprocess.run([str(ROOT / "scripts" / "install_gpu.sh"), "--no-flash"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "install_gpu: --no-flash is no option: --without-flash-attn, --resolve FILE\n"


def test_serving_takes_the_oldest_vllm_and_every_newer_one():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (requirement,) = extras["serve"]
    oldest = requirement.removeprefix("vllm>=")
    assert vllm_prm.hosts.place_in_range(oldest) == 0
    assert vllm_prm.hosts.OLDEST_VLLM == f"{oldest}.0"


def test_the_image_builds_with_the_script():
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert "scripts/install_gpu.sh" in dockerfile
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert not {"patches", "requirements", "scripts", "pyproject.toml"} & set(ignored)


def test_another_vllm_needs_its_version_and_runs_tests_that_are_there():
    script = ROOT / "scripts" / "compat.sh"
    done = subprocess.run([str(script)], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("usage: ")
    (names,) = re.findall(r"for name in (.*); do", script.read_text())
    assert [name for name in names.split() if not (ROOT / f"tests/stack/test_{name}.py").is_file()] == []
    assert (ROOT / "tests/unit/vllm_prm").is_dir()
