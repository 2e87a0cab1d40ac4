"""Classes and functions from a user's own file, `FILE.py:Name`, wherever a registry's key goes."""

import importlib.util
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any


def names_file(name: str) -> bool:
    """Whether `name` has the form `FILE.py:Name` rather than that of a registry's key."""
    return name.partition(":")[0].endswith(".py")


def absolute(name: str, folder: Path | None = None) -> str:
    """`name` as other processes find it, whatever folder they run in; a registry's key stays as it is.

    A relative file lies in `folder`, by default the current one.
    """
    if not names_file(name):
        return name
    file, colon, attribute = name.partition(":")
    return f"{((folder or Path()) / file).resolve()}{colon}{attribute}"


def resolve(registry: Mapping[str, Any], name: str, what: str) -> Any:
    """The entry of `registry` under `name`, or what `FILE.py:Name` holds.

    `what` says what is chosen, for messages. Raises ValueError for an unknown key, a file that is not there or cannot
    be imported, and a file without that name.
    """
    if name in registry:
        return registry[name]
    if not names_file(name):
        raise ValueError(f"unknown {what} {name!r}; choose one of {', '.join(registry)}, or give FILE.py:Name")
    return load_from_file(name)


def load_from_file(name: str) -> Any:
    """What `FILE.py:Name` holds; the file is imported once a process. Raises ValueError as `resolve`."""
    file, _, attribute = name.partition(":")
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"{name!r}: there is no file {file}")
    if not attribute:
        raise ValueError(f"{name!r} must be FILE.py:Name, with the name of what is meant in the file")
    module = _imported(path.resolve())
    if not hasattr(module, attribute):
        raise ValueError(f"{file} defines no {attribute}")
    return getattr(module, attribute)


@cache
def _imported(path: Path) -> ModuleType:
    """The module stands in `sys.modules` only while it is run, so that what it defines is pickled whole: a Ray worker
    could not import it by name.
    """
    spec = importlib.util.spec_from_file_location(f"extension_file_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        del sys.modules[spec.name]
    return module
