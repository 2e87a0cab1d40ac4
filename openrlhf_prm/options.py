"""An option is written once: a field of a frozen dataclass beside the code that reads it.

    @dataclass(frozen=True, kw_only=True)
    class MinForm(Options):
        temperature: float = option(0.1, "how sharply the worst step is picked out", above=0)

The field's metadata gives the flag with its type, its help and its default (`add_flags`), the check of its bounds
(`Options`), and which flags a run reads (`refuse_unread`). A flag that is not given is None in the namespace, and
`build` then keeps the class's default.

This file lies beside the rooms because algorithms, commands and the plugin's flags all stand on it. Nothing heavy is
imported.
"""

import argparse
import dataclasses
import math
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

from vllm_prm.extension_files import absolute, names_file, resolve

Number = int | float
REQUIRED = dataclasses.MISSING
"""The default of an option that must be given."""


def option(
    default: Any,
    text: str,
    *,
    least: Number | None = None,
    most: Number | None = None,
    above: Number | None = None,
    below: Number | None = None,
    choices: Iterable[str] | None = None,
    registry: Mapping[str, Any] | None = None,
    kind: type | None = None,
    read_with: str | None = None,
    aliases: Iterable[str] = (),
) -> Any:
    """A field of an options class. `text`: what the option means, for `--help`.

    Bounds: `least` <= value <= `most`, `above` < value < `below`; floats must be finite. `choices`: the values allowed.
    `registry`: the value is one of its keys, or `FILE.py:Name`. `kind`: the type of a value, where `default` is None or
    `REQUIRED`; else it is the default's. A tuple takes as many values, of the type of its first; an empty one takes any
    number of texts. `read_with`: the option of the same class without which this one is not read, because it is off:
    None, 0, False or empty. `aliases`: whole flags that mean the same, `--pretrain`.
    """
    metadata = {"text": text, "kind": kind or type(default), "choices": None if choices is None else tuple(choices)}
    bounds = {"least": least, "most": most, "above": above, "below": below}
    return dataclasses.field(
        default=default,
        metadata={**metadata, **bounds, "registry": registry, "read_with": read_with, "aliases": tuple(aliases)},
    )


class Options:
    """Base of options dataclasses: an instance has values within their bounds.

    Raises ValueError that begins with the option's name. Further checks of a subclass go into a `__post_init__` that
    calls this one first, and begin their messages in the same way.
    """

    def __post_init__(self) -> None:
        for field in option_fields(type(self)):
            fault = _fault(getattr(self, field.name), field.metadata)
            if fault:
                raise ValueError(f"{field.name} {fault}, got {getattr(self, field.name)!r}")

    def unread(self, prefix: str) -> dict[str, str]:
        """Options that this instance does not look at, as its others are set -> the flag that they need.

        A subclass adds to them what `read_with` cannot say.
        """
        fields = {field.name: field.metadata["read_with"] for field in option_fields(type(self))}
        return {name: f"--{prefix}.{other}" for name, other in fields.items() if other and not getattr(self, other)}


def option_fields(options: type) -> list[dataclasses.Field]:
    """The fields made by `option`, in order."""
    return [field for field in dataclasses.fields(options) if "text" in field.metadata]


def _fault(value: Any, metadata: Mapping[str, Any]) -> str | None:
    if value is None:
        return None
    if metadata["choices"] is not None:
        return None if value in metadata["choices"] else f"must be one of {', '.join(metadata['choices'])}"
    if metadata["registry"] is not None:
        known = value in metadata["registry"] or names_file(value)
        return None if known else f"must be one of {', '.join(metadata['registry'])}, or FILE.py:Name"
    if not isinstance(value, Number) or isinstance(value, bool):
        return None
    if not math.isfinite(value):
        return "must be a finite number"
    low = metadata["least"] if metadata["above"] is None else metadata["above"]
    high = metadata["most"] if metadata["below"] is None else metadata["below"]
    too_low = low is not None and (value < low or (value == low and metadata["above"] is not None))
    too_high = high is not None and (value > high or (value == high and metadata["below"] is not None))
    if not too_low and not too_high:
        return None
    if high is None:
        return f"must be {'at least' if metadata['above'] is None else 'above'} {low}"
    if low is None:
        return f"must be {'at most' if metadata['below'] is None else 'below'} {high}"
    excluded = [str(bound) for bound in (metadata["above"], metadata["below"]) if bound is not None]
    return f"must lie in {low}..{high}" + (f", {' and '.join(excluded)} excluded" if excluded else "")


def add_flags(parser: Any, prefix: str, owners: type | Mapping[str, type], *, leave_out: Iterable[str] = ()) -> None:
    """One flag `--PREFIX.OPTION` per option of a class, or of all classes of a registry; None where it is not given.

    An option that several classes of a registry have is one flag; its help names whose it is and each default, and it
    takes the choices of all, of which the class that is built allows its own. A
    boolean that is True by default gets `--PREFIX.no_OPTION` too. One without a default is required. `leave_out`:
    options that have a flag already.
    """
    classes = owners if isinstance(owners, Mapping) else {"": owners}
    by_name: dict[str, list[tuple[str, dataclasses.Field]]] = {}
    for owner, options in classes.items():
        for field in option_fields(options):
            if field.name not in leave_out:
                by_name.setdefault(field.name, []).append((owner, field))
    for name, fields in by_name.items():
        _add_flag(parser, prefix, name, fields)


def _add_flag(parser: Any, prefix: str, name: str, fields: list[tuple[str, dataclasses.Field]]) -> None:
    default, metadata = fields[0][1].default, fields[0][1].metadata
    common = {"default": None, "help": _help(fields), "dest": f"{prefix}.{name}"}
    flags = [f"--{prefix}.{name}", *metadata["aliases"]]
    if metadata["kind"] is bool:
        parser.add_argument(*flags, action="store_true", **common)
        if any(field.default is True for _, field in fields):
            off = {**common, "help": f"switches {prefix}.{name} off"}
            parser.add_argument(f"--{prefix}.no_{name}", action="store_false", **off)
    elif metadata["registry"] is not None:
        parser.add_argument(*flags, **named_in(metadata["registry"]), **common)
    elif metadata["kind"] is tuple:
        kind = type(default[0]) if default else str
        parser.add_argument(*flags, type=kind, nargs=len(default) or "+", metavar=kind.__name__, **common)
    else:
        common |= {"required": True} if default is REQUIRED else {}
        choices = dict.fromkeys(choice for _, field in fields for choice in field.metadata["choices"] or ())
        common |= {"choices": tuple(choices)} if choices else {"metavar": metadata["kind"].__name__}
        parser.add_argument(*flags, type=metadata["kind"], **common)


def named_in(registry: Mapping[str, Any]) -> dict[str, Any]:
    """`type` and `metavar` of a flag whose value is a registry's key or `FILE.py:Name`, as argparse takes them. The
    file's path becomes absolute, because a Ray actor may work in another folder.
    """

    def known(name: str) -> str:
        try:
            resolve(registry, name, "name")
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return absolute(name) if name not in registry else name

    return {"type": known, "metavar": f"{{{','.join([*registry, 'FILE.py:Name'])}}}"}


def _help(fields: list[tuple[str, dataclasses.Field]]) -> str:
    """The meaning, once where all owners agree, and the defaults."""
    by_text: dict[str, list[tuple[str, Any]]] = {}
    for owner, field in fields:
        by_text.setdefault(field.metadata["text"], []).append((owner, field.default))
    parts = []
    for text, owners in by_text.items():
        names = ", ".join(owner for owner, _ in owners if owner)
        defaults = list(dict.fromkeys(_shown(default) for _, default in owners))
        if len(defaults) > 1:
            defaults = [f"{owner} {_shown(default)}" for owner, default in owners if _shown(default)]
        default = "" if defaults == [""] else f" (default {', '.join(defaults)})"
        parts.append((f"{names}: " if names else "") + text + default)
    return "; ".join(parts).replace("%", "%%")


def _shown(value: Any) -> str:
    if value is None or value is False or value is REQUIRED:
        return ""
    if isinstance(value, tuple):
        return " ".join(map(_shown, value))
    return repr(value) if isinstance(value, str) else str(value)


def build(options: type, namespace: SimpleNamespace | None, prefix: str, **known: Any) -> Any:
    """An instance of an options class from the flags of a group; what was not given keeps the class's default.

    `known`: values that do not come from this group. Raises ValueError naming the flag for a value that is not allowed.
    """
    try:
        return options(**given(options, namespace), **known)
    except ValueError as error:
        raise ValueError(f"--{prefix}.{error}") from None


def given(options: type, namespace: SimpleNamespace | None) -> dict[str, Any]:
    """The options of a class that the command line gave."""
    values = {field.name: getattr(namespace, field.name, None) for field in option_fields(options)}
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items() if value is not None
    }


def refuse_unread(namespace: SimpleNamespace, prefix: str, read: Iterable[str], reader: str) -> None:
    """Raises ValueError for the first flag of a group that was given and is not among those `read`: who gives it
    expects something of it. `reader` says what does not read it, or what it takes ("needs --prm.url").
    """
    wanted = set(read)
    for name, value in vars(namespace).items():
        if value is not None and not isinstance(value, SimpleNamespace) and name not in wanted:
            raise ValueError(f"--{prefix}.{name} {reader}")
