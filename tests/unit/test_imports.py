"""Imports go one way: each layer imports only what stands before it. Parsed from the source, so nothing is imported
here.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Each layer may import itself and everything before it. `vllm_prm` stands first: it is usable without OpenRLHF.
LAYERS = [
    "vllm_prm",
    "openrlhf_prm.accelerator",
    "openrlhf_prm.checks",
    "openrlhf_prm.files",
    "openrlhf_prm.patching",
    "openrlhf_prm.steps",
    "openrlhf_prm.score_ranges",
    "openrlhf_prm.answer_process",
    "openrlhf_prm.answers",
    "openrlhf_prm.tasks",
    "openrlhf_prm.gguf_tokenizer",
    "openrlhf_prm.rewards",
    "openrlhf_prm.length_penalties",
    "openrlhf_prm.advantages",
    "openrlhf_prm.length_targets",
    "openrlhf_prm.diversity",
    "openrlhf_prm.watching",
    "openrlhf_prm.context_length",
    "openrlhf_prm.flags",
    "openrlhf_prm.flag_checks",
    "openrlhf_prm.placement",
    "openrlhf_prm.annotation",
    "openrlhf_prm.rollout",
    "openrlhf_prm.trainers",
    "openrlhf_prm.plugin",
    "openrlhf_prm.evaluation",
    "openrlhf_prm.rejection_sampling",
    "openrlhf_prm.report",
    "openrlhf_prm.cli",
    "examples",
]
# What a command line may not wait for before it has checked its flags.
HEAVY = {"torch", "vllm", "ray", "deepspeed", "transformers", "openrlhf", "datasets", "matplotlib"}
LIGHT_MODULES = [
    "vllm_prm",
    "vllm_prm.protocol",
    "openrlhf_prm.flag_checks",
    "openrlhf_prm.plugin",
    "openrlhf_prm.steps",
]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer_of(module: str) -> int | None:
    matches = [index for index, layer in enumerate(LAYERS) if module == layer or module.startswith(f"{layer}.")]
    return matches[0] if matches else None


def imported_modules(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


SOURCES = sorted(path for layer in ("vllm_prm", "openrlhf_prm", "examples") for path in (ROOT / layer).rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: module_name(path))
def test_imports_go_one_way(path):
    own = layer_of(module_name(path))
    assert own is not None or module_name(path) == "openrlhf_prm", f"{path} belongs to no layer; add it to LAYERS"
    for module in imported_modules(path):
        other = layer_of(module)
        assert other is None or own is None or other <= own, f"{path} imports {module}, which stands after it"


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_light_modules_import_nothing_heavy(module):
    code = f"import sys, {module}; print(*sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == []


@pytest.mark.parametrize("name", ["rewards", "advantages", "length_penalties"])
def test_algorithms_know_nothing_of_engines(name):
    for path in (ROOT / "openrlhf_prm" / name).glob("*.py"):
        roots = {module.split(".")[0] for module in imported_modules(path)}
        assert not roots & {"ray", "vllm", "httpx", "deepspeed", "openrlhf"}, path
