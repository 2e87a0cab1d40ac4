"""Files and folders that a run's flags name.

The run's processes may work in other folders than the driver, and on other machines: `ray job submit` gives each node a
folder of its own. So paths are made absolute in the driver, and every node must see what lies there.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

READ = (
    *("actor.model_name_or_path", "critic.model_name_or_path", "reward.model_name_or_path"),
    *("prm.model_name_or_path", "online_prm.model_name_or_path", "online_prm.reference"),
    *("data.prompt_dataset", "eval.dataset", "train.agent_func_path", "reward.remote_url"),
    *("length_penalty.reference_file", "self_correction.offline_file"),
)
"""Flags of a file, a folder, or something else that is no path; some take several, with commas between them."""

WRITTEN = ("ckpt.path", "ckpt.output_dir", "logger.tensorboard_dir")
"""Flags of folders that a run writes."""


def absolute_paths(flags: Mapping[str, object]) -> dict[str, str]:
    """The flags, by their whole names, whose values are relative paths, with absolute ones in their place."""
    written = {name: os.path.abspath(flags[name]) for name in WRITTEN if flags.get(name)}
    read = {name: ",".join(map(_absolute, _parts(flags.get(name)))) for name in READ}
    return {name: path for name, path in (written | read).items() if path and path != flags[name]}


def make_absolute(args: SimpleNamespace) -> None:
    """The same in the host's hierarchized namespace."""
    for name, path in absolute_paths(_flags(args)).items():
        group, _, last = name.rpartition(".")
        setattr(getattr(args, group), last, path)


def require_seen(args: SimpleNamespace, key: str | None) -> None:
    """Raises ValueError, naming flag and node, for a path that exists here and that another node of the cluster, which
    this process has joined, does not see; so for `key`, the environment variable with the PRM servers' key.
    """
    from openrlhf_prm.cluster.checks import models_beside, prm_paths
    from openrlhf_prm.cluster.visibility import require_seen_by_nodes

    flags = _flags(args)
    read = [(name, part) for name in READ for part in _parts(flags.get(name)) if Path(_file(part)).exists()]
    written = [(name, flags[name]) for name in WRITTEN if flags.get(name)]
    paths = [(f"--{name}", _file(part)) for name, part in (*read, *written)]
    if (model := args.prm.model_name_or_path) is not None:
        further = prm_paths(model, args.prm.family, models_beside(model, args.prm.family))
        paths += [found for found in further if found not in paths and Path(found[1]).exists()]
    require_seen_by_nodes(paths, folders=[folder for _, folder in written], variables={"--prm.api_key_env": key})


def _flags(args: SimpleNamespace) -> dict[str, object]:
    """The flags of paths that this parser has."""
    names = [name.rpartition(".") for name in (*READ, *WRITTEN)]
    return {
        f"{group}.{last}": getattr(getattr(args, group), last)
        for group, _, last in names
        if hasattr(args, group) and hasattr(getattr(args, group), last)
    }


def _parts(value: object) -> list[str]:
    """The host splits some itself, before or after we see them."""
    parts = value.split(",") if isinstance(value, str) else value or []
    return [part.strip() for part in parts]


def _file(part: str) -> str:
    """The host's form of a data set may have a folder within it behind an @."""
    return part if Path(part).exists() else part.partition("@")[0]


def _absolute(part: str) -> str:
    file = _file(part)
    return os.path.abspath(file) + part[len(file) :] if Path(file).exists() else part
