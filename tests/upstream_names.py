"""Which names of the hosts a package uses, read from its source."""

import ast
from pathlib import Path

HOSTS = ("openrlhf", "vllm", "ray", "deepspeed")


def names_used(package: Path) -> set[tuple[str, str]]:
    """(module, name) of everything that the package's files import from a host or reach through an imported module,
    imports inside functions and for types alone included.
    """
    return {pair for path in package.rglob("*.py") for pair in _names_in(ast.parse(path.read_text()))}


def _names_in(tree: ast.Module) -> set[tuple[str, str]]:
    names: set[tuple[str, str]] = set()
    modules: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in HOSTS:
            names |= {(node.module, alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.split(".")[0]
                if top in HOSTS:
                    modules[alias.asname or top] = alias.name if alias.asname else top
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            names.add((modules[node.value.id], node.attr))
    return names
