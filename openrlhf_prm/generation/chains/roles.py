"""Roles: who is asked what, and how it is sampled; and the words that no model writes. Read from `roles.yaml`."""

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from openrlhf_prm.cluster.checks import require_key
from openrlhf_prm.cluster.engine_options import EngineFlags
from openrlhf_prm.options import option_fields

DEFAULT_FILE = Path(__file__).with_name("roles.yaml")
POLICY = "policy"
"""The model that is always there: `--actor.model_name_or_path`."""

PLACEHOLDERS = {
    "planner": {"question": True},
    "elaborator": {"question": True, "steps": True, "plan": False, "tried": False},
    "critic": {"question": True, "numbered": True},
    "verifier": {"question": True, "steps": True},
    "editor": {"draft": True},
    "finisher": {"question": True, "steps": True},
    "outliner": {"question": True},
    "writer": {"question": True, "part": True, "plan": False, "written": False, "words": False},
}
"""Role -> what may stand in its prompt in braces, and whether it must."""

PHRASES = {"plan": "plan", "doubt": "reason", "dead_end": "", "wrong_answer": "", "back": "step", "restart": ""}
"""Phrase -> the one placeholder that it may have."""

_PLACEHOLDER = re.compile(r"\{\{([a-z_]+)\}\}|\{([a-z_]+)\}")


def filled(template: str, values: Mapping[str, str]) -> str:
    """The template with `{name}` replaced by the value, in one pass, so that braces in a value stay what they are;
    `{{name}}` is `{name}`.
    """
    return _PLACEHOLDER.sub(lambda match: f"{{{match[1]}}}" if match[1] else values[match[2]], template)


def placeholders(template: str) -> set[str]:
    """The names in single braces."""
    return {match[2] for match in _PLACEHOLDER.finditer(template) if match[2]}


@dataclass(frozen=True, kw_only=True)
class Role:
    """See `roles.yaml`. `stop`: texts at which an answer ends; they are not part of it."""

    model: str
    form: str
    system: str
    prompt: str
    temperature: float
    top_p: float
    max_tokens: int
    stop: list[str]

    def sampling(self, seed: int) -> dict[str, Any]:
        """Parameters that vLLM and OpenAI-compatible servers name alike."""
        names = ("temperature", "top_p", "max_tokens")
        common = {**{name: getattr(self, name) for name in names}, "seed": seed}
        return common | ({"stop": self.stop} if self.stop else {})


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A model of the YAML's `models`: a checkpoint in engines of our own, or servers."""

    checkpoint: str | None = None
    engines: EngineFlags = EngineFlags()
    urls: tuple[str, ...] = ()
    name: str | None = None
    api_key_env: str | None = None


@dataclass(frozen=True, kw_only=True)
class RoleBook:
    """A whole file of roles."""

    models: dict[str, ModelSpec]
    roles: dict[str, Role]
    separator: str
    phrases: dict[str, list[str]]
    raw: dict
    """As it was read and merged: what chains depend on."""


def read_roles(path: str | Path | None = None) -> RoleBook:
    """The roles of a file over the default ones. Raises ValueError saying which entry is wrong and what is allowed."""
    import yaml

    merged = yaml.safe_load(DEFAULT_FILE.read_text(encoding="utf-8"))
    if path is not None:
        try:
            given = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} cannot be read: {error}") from None
        except yaml.YAMLError as error:
            raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
        try:
            merged = _merged(merged, given)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    try:
        return _book(merged)
    except ValueError as error:
        raise ValueError(f"{path or DEFAULT_FILE.name}: {error}") from None


def _merged(default: dict, given: Any) -> dict:
    _require(given, dict, "the file")
    _require_known("the file", given, default)
    result = copy.deepcopy(default)
    for section, value in given.items():
        if section == "separator":
            result[section] = value
            continue
        _require(value, dict, section)
        for name, entry in value.items():
            if section == "roles":
                _require_known("roles", {name: entry}, PLACEHOLDERS)
                _require(entry, dict, f"roles.{name}")
                result[section][name] = {**result[section][name], **entry}
            else:
                result[section][name] = entry
    return result


def _book(raw: dict) -> RoleBook:
    models = {name: _model(f"models.{name}", entry) for name, entry in raw["models"].items()}
    if POLICY in models:
        raise ValueError(f"models.{POLICY} is --actor.model_name_or_path; choose another name")
    roles = {name: _role(name, entry, models) for name, entry in raw["roles"].items()}
    _require(raw["separator"], str, "separator")
    if not raw["separator"]:
        raise ValueError("separator must not be empty: it tells steps apart")
    _require_known("phrases", raw["phrases"], PHRASES)
    for name, texts in raw["phrases"].items():
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"phrases.{name} must be a list of texts, got {texts!r}")
        for text in texts:
            _require_placeholders(f"phrases.{name}", text, {PHRASES[name]: name in ("plan", "back")})
    return RoleBook(models=models, roles=roles, separator=raw["separator"], phrases=raw["phrases"], raw=raw)


def _role(name: str, entry: dict, models: Mapping[str, ModelSpec]) -> Role:
    where = f"roles.{name}"
    _require_known(where, entry, [field.name for field in fields(Role)])
    missing = [field.name for field in fields(Role) if entry.get(field.name) is None]
    if missing:
        raise ValueError(f"{where} has no {missing[0]}")
    for key in ("model", "form", "system", "prompt"):
        _require(entry[key], str, f"{where}.{key}")
    if entry["model"] not in (POLICY, *models):
        known = ", ".join((POLICY, *models))
        raise ValueError(f"{where}.model: there is no model {entry['model']!r}; there are {known}")
    if entry["form"] not in ("chat", "text"):
        raise ValueError(f"{where}.form must be chat or text, got {entry['form']!r}")
    for key, low, high in (("temperature", 0, 100), ("top_p", 0, 1), ("max_tokens", 1, None)):
        value = entry[key]
        whole = key == "max_tokens"
        number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if not number or value < low or (high is not None and value > high) or (key == "top_p" and value == 0):
            allowed = "a whole number of at least 1" if whole else f"a number in {low}..{high}"
            raise ValueError(f"{where}.{key} must be {allowed}, got {value!r}")
    if not isinstance(entry["stop"], list) or not all(isinstance(text, str) and text for text in entry["stop"]):
        raise ValueError(f"{where}.stop must be a list of texts, got {entry['stop']!r}")
    _require_placeholders(f"{where}.prompt", entry["prompt"], PLACEHOLDERS[name])
    _require_placeholders(f"{where}.system", entry["system"], {})
    return Role(**entry)


def _model(where: str, entry: Any) -> ModelSpec:
    _require(entry, dict, where)
    engine = {field.name for field in option_fields(EngineFlags)}
    _require_known(where, entry, ["checkpoint", *sorted(engine), "urls", "name", "api_key_env"])
    if ("checkpoint" in entry) == ("urls" in entry):
        raise ValueError(f"{where} must have either a checkpoint or urls")
    if "checkpoint" in entry:
        _require(entry["checkpoint"], str, f"{where}.checkpoint")
        of_servers = sorted({"name", "api_key_env"} & set(entry))
        if of_servers:
            raise ValueError(f"{where}.{of_servers[0]} is of servers: it needs urls")
        try:
            flags = EngineFlags(**{key: value for key, value in entry.items() if key in engine})
        except (ValueError, TypeError) as error:
            raise ValueError(f"{where}.{error}") from None
        return ModelSpec(checkpoint=entry["checkpoint"], engines=flags)
    if engine & set(entry):
        raise ValueError(f"{where}.{min(engine & set(entry))} is of our own engines: it needs a checkpoint")
    urls = entry["urls"]
    if not isinstance(urls, list) or not urls or not all(isinstance(url, str) for url in urls):
        raise ValueError(f"{where}.urls must be a list of addresses, got {urls!r}")
    if not all(url.startswith(("http://", "https://")) for url in urls):
        raise ValueError(f"{where}.urls must begin with http:// or https://, got {urls!r}")
    for key in ("name", "api_key_env"):
        _require(entry.get(key, ""), str, f"{where}.{key}")
    variable = entry.get("api_key_env")
    require_key(f"{where}.api_key_env", variable)
    return ModelSpec(urls=tuple(urls), name=entry.get("name"), api_key_env=variable)


def _require(value: Any, kind: type, where: str) -> None:
    if not isinstance(value, kind):
        names = {dict: "a mapping", str: "a text"}
        raise ValueError(f"{where} must be {names[kind]}, got {value!r}")


def _require_known(where: str, entry: Mapping, known: Any) -> None:
    for key in entry:
        if key not in known:
            raise ValueError(f"{where}: unknown entry {key!r}; there are {', '.join(map(str, known))}")


def _require_placeholders(where: str, text: str, allowed: Mapping[str, bool]) -> None:
    found = placeholders(text)
    for name in sorted(found - set(allowed)):
        if name in ("label", "answer"):
            raise ValueError(f"{where}: {{{name}}}: no prompt may show the reference answer")
        known = ", ".join(f"{{{one}}}" for one in allowed if one) or "none"
        raise ValueError(f"{where}: unknown {{{name}}}; there are {known} ({{{{{name}}}}} is the text {{{name}}})")
    for name, needed in allowed.items():
        if needed and name not in found:
            raise ValueError(f"{where} must contain {{{name}}}")
