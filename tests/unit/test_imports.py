"""Imports go one way, from room to room and from file to file. Parsed from the source, so nothing is imported here."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Room -> the rooms that it may import, besides itself. Each row names only rooms of rows above it. `vllm_prm` stands
# first: it is usable without OpenRLHF.
ROOMS: dict[str, set[str]] = {
    "vllm_prm": set(),
    "openrlhf_prm.options": {"vllm_prm"},
    "openrlhf_prm.hosts": set(),
    "openrlhf_prm.patching": set(),
    "openrlhf_prm.tasks": set(),
    "openrlhf_prm.answers": {"vllm_prm"},
    "openrlhf_prm.measures": set(),
    "openrlhf_prm.rewards": {"options"},
    "openrlhf_prm.length_penalties": {"options"},
    "openrlhf_prm.advantages": {"measures", "options"},
    "openrlhf_prm.data": {"vllm_prm", "options"},
    "openrlhf_prm.convert": {"vllm_prm", "answers", "data"},
    "openrlhf_prm.cluster": {"vllm_prm", "options"},
    "openrlhf_prm.annotation": {"vllm_prm", "options", "answers", "cluster", "data", "measures"},
    "openrlhf_prm.generation": {"vllm_prm", "options", "annotation", "cluster", "data"},
    "openrlhf_prm.prm_training": {"vllm_prm", "options", "cluster", "data", "hosts", "measures"},
    "openrlhf_prm.ppo": {
        *("vllm_prm", "options", "advantages", "answers", "cluster", "data", "length_penalties", "rewards"),
        "measures",
    },
    "openrlhf_prm.evaluation": {"vllm_prm", "options", "answers", "cluster", "data", "measures", "tasks"},
    "openrlhf_prm.report": {"evaluation", "measures", "ppo"},
    "openrlhf_prm.diagnosis": {"vllm_prm", "cluster", "hosts", "patching"},
    "openrlhf_prm.plugin": {"vllm_prm", "cluster", "hosts", "ppo"},
    "openrlhf_prm.cli": {
        *("vllm_prm", "annotation", "answers", "cluster", "convert", "data", "diagnosis", "evaluation"),
        *("generation", "hosts", "measures", "options", "patching", "plugin", "prm_training", "report"),
    },
    "examples": {
        *("advantages", "length_penalties", "options", "rewards"),
        "vllm_prm",
        "cluster",
        "data",
        "evaluation",
        "measures",
        "tasks",
    },
}
# What a command line may not wait for before it has checked its flags.
HEAVY = {"torch", "vllm", "ray", "deepspeed", "transformers", "openrlhf", "datasets", "matplotlib"}
LIGHT_MODULES = [
    "vllm_prm",
    "vllm_prm.protocol",
    "openrlhf_prm.ppo.flag_checks",
    "openrlhf_prm.plugin",
    "openrlhf_prm.data.steps",
    "openrlhf_prm.cli.main",
]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str | None:
    return next((room for room in ROOMS if module == room or module.startswith(f"{room}.")), None)


def imported_modules(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


SOURCES = sorted(path for top in ("vllm_prm", "openrlhf_prm", "examples") for path in (ROOT / top).rglob("*.py"))
MODULES = {module_name(path) for path in SOURCES}


def test_rooms_stand_in_order():
    above: set[str] = set()
    for room, allowed in ROOMS.items():
        assert {name.removeprefix("openrlhf_prm.") for name in allowed} <= above, f"{room} imports a room below it"
        above.add(room.removeprefix("openrlhf_prm."))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: module_name(path))
def test_imports_go_one_way(path):
    room = room_of(module_name(path))
    assert room is not None or module_name(path) == "openrlhf_prm", f"{path} belongs to no room; add it to ROOMS"
    for module in imported_modules(path):
        other = room_of(module)
        allowed = {None, room, *(name if name in ROOMS else f"openrlhf_prm.{name}" for name in ROOMS.get(room, ()))}
        assert other in allowed, f"{path} imports {module}: {room} may import {sorted(ROOMS[room])}"


def test_every_allowed_import_is_used():
    used: dict[str, set[str]] = {room: set() for room in ROOMS}
    for path in SOURCES:
        room = room_of(module_name(path))
        if room is not None:
            used[room] |= {other for module in imported_modules(path) if (other := room_of(module)) not in (None, room)}
    for room, allowed in ROOMS.items():
        assert {name.removeprefix("openrlhf_prm.") for name in used[room]} == allowed, room


def test_what_is_imported_of_ours_is_there():
    """Imports inside functions are found here and not in the middle of a run."""
    tops = ("vllm_prm", "openrlhf_prm", "benchmarks", "examples")
    for path in (path for top in (*tops, "tests") for path in (ROOT / top).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in tops:
                file = ROOT / node.module.replace(".", "/")
                found = file.with_suffix(".py").is_file() or (file / "__init__.py").is_file()
                assert found, f"{path} imports {node.module}, which is not there"
                source = (
                    file / "__init__.py" if (file / "__init__.py").is_file() else file.with_suffix(".py")
                ).read_text()
                for alias in node.names:
                    there = re.search(rf"^[^#]*\b{re.escape(alias.name)}\b", source, re.MULTILINE)
                    submodule = (file / alias.name).with_suffix(".py").is_file() or (file / alias.name).is_dir()
                    assert there or submodule, f"{path} imports {alias.name} of {node.module}"


def test_no_files_import_each_other_in_a_circle():
    """Imports inside functions and for types alone count too."""
    graph = {module_name(path): imported_modules(path) & MODULES - {module_name(path)} for path in SOURCES}
    for path in SOURCES:  # a package's face hands names on; `from package import submodule` is no import of the face
        if path.name != "__init__.py":
            name = module_name(path)
            graph[name] -= {other for other in graph[name] if any(m.startswith(f"{other}.") for m in graph[name])}
    TopologicalSorter(graph).prepare()


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
