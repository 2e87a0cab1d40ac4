"""The folder of a run's DeepSpeed checkpoints: which of them is gone on from, and which are deleted.

A checkpoint is a folder named by its tag. It is whole where the host has put its `metric.json` in it, which comes last:
DeepSpeed names it in `latest` before the other ranks are done. So `latest` is believed only where none has that file.
"""

import json
import os
import pwd
import shutil
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

MARK, LATEST = "metric.json", "latest"


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or written; the message says which, and what to do."""


def latest_tag(folder: Path) -> str | None:
    """What `latest` names; None where it is missing, or was torn by a kill."""
    try:
        return (folder / LATEST).read_text().strip() or None
    except OSError:
        return None


def whole(folder: Path) -> dict[str, float]:
    """Tags of the checkpoints that are whole -> when they were finished."""
    places = _checkpoints(folder) if folder.is_dir() else []
    marked = {place.name: (place / MARK).stat().st_mtime for place in places if (place / MARK).is_file()}
    named = latest_tag(folder)
    return marked or {place.name: place.stat().st_mtime for place in places if place.name == named}


def _checkpoints(folder: Path) -> list[Path]:
    """Folders that DeepSpeed has written to, whole or not; what else lies beside them is nobody's business here."""
    return [place for place in folder.iterdir() if place.is_dir() and any(place.glob("*_states.pt"))]


def tag_to_load(folder: Path, beside: Sequence[Path] = ()) -> str | None:
    """The newest checkpoint that is whole, here and in the folders `beside`, whose models go on from the same update;
    None where none was ever finished.

    Raises CheckpointError where `latest` names one that is gone and nothing else is there.
    """
    here = whole(folder)
    together = set(here).intersection(*map(whole, beside)) if beside else set(here)
    named = latest_tag(folder)
    if named in together:
        return named
    if together:
        return max(together, key=here.__getitem__)
    if named is not None and not here:
        raise CheckpointError(
            f"--ckpt.load_enable: {folder / LATEST} names {named}, which is not there, nor any other checkpoint; give "
            "--ckpt.path another folder, or leave --ckpt.load_enable out to start afresh"
        )
    return None


def unreadable(folder: Path, tag: str, error: Exception) -> CheckpointError:
    """What to tell of a checkpoint that could not be read."""
    rest = {other: at for other, at in whole(folder).items() if other != tag}
    if rest:
        advice = f"delete that folder, and the run goes on from {max(rest, key=rest.__getitem__)}"
    else:
        advice = "no other is there; leave --ckpt.load_enable out to start afresh"
    fault = " ".join(str(error).split())
    if "Unsupported global" in fault:
        fault, advice = fault[fault.index("Unsupported global") :], f"OPENRLHF_PRM_UNPICKLE=1 if you trust it; {advice}"
    return CheckpointError(
        f"--ckpt.load_enable: the checkpoint {folder / tag} cannot be read ({_in_brief(error, fault)}); {advice}"
    )


def other_hands(folder: Path, tag: str) -> str | None:
    """Who else may have written a checkpoint: a place of it and whose it is. None where only this user, root, and the
    user's own group could.
    """
    for place in (folder, folder / tag, *sorted((folder / tag).glob("*_states.pt"))):
        state = place.stat()
        if state.st_uid not in (os.geteuid(), 0):
            return f"{place} belongs to another user ({_user(state.st_uid)})"
        if state.st_mode & stat.S_IWOTH and not state.st_mode & stat.S_ISVTX:
            return f"{place} can be written by everybody"
        if state.st_mode & stat.S_IWGRP and state.st_gid != os.getegid():
            return f"{place} can be written by another group ({state.st_gid})"
    return None


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def unwritten(folder: Path, tag: str, error: Exception) -> CheckpointError:
    """What to tell of a checkpoint that could not be written: mostly the disk is full."""
    done = whole(folder)
    advice = f"goes on from {max(done, key=done.__getitem__)}" if done else "starts afresh, no other is there"
    fault = " ".join(str(error).split())
    return CheckpointError(
        f"the checkpoint {folder / tag} cannot be written ({_in_brief(error, fault)}); once there is room, the same "
        f"command with --ckpt.load_enable {advice}"
    )


def _in_brief(error: Exception, fault: str) -> str:
    return f"{type(error).__name__}: {fault[:200]}"


def forget(folder: Path, tag: str) -> None:
    """Before `tag` is written once more: it is not whole meanwhile."""
    (folder / tag / MARK).unlink(missing_ok=True)
    if latest_tag(folder) == tag:
        (folder / LATEST).unlink()


def delete_others(folder: Path, tag: str, keep: int, most_bytes: float, held: Iterable[str] = ()) -> list[Path]:
    """After `tag` was written: deletes what goes beyond `keep` checkpoints or `most_bytes` in all, and what a kill left
    half written. Returns what was deleted.

    As the host chooses: those without a metric first, then the worst, then the oldest; the best, whose tag begins with
    `best`, only by another best. Neither `tag` nor one that is `held` is ever deleted.
    """
    finished = whole(folder)
    others = {place.name: place for place in _checkpoints(folder) if place.name not in {tag, *held}}
    gone = [name for name in others if name not in finished or (_is_best(tag) and _is_best(name))]
    ordinary = [name for name in others if name not in gone and not _is_best(name)]
    ordinary.sort(key=lambda name: (*_metric(others[name]), finished[name]))
    count = sum(not _is_best(name) for name in finished)
    size = sum(map(_size, (folder / name for name in finished if name not in gone)))
    for name in ordinary:
        if count <= max(keep, 1) and size <= most_bytes:
            break
        count, size = count - 1, size - _size(others[name])
        gone.append(name)
    for name in gone:
        shutil.rmtree(others[name], ignore_errors=True)
    return [others[name] for name in gone]


def _is_best(tag: str) -> bool:
    return tag.startswith("best")


def _metric(place: Path) -> tuple[bool, float]:
    try:
        value = json.loads((place / MARK).read_text())["metric_value"]
        return (False, 0.0) if value is None else (True, float(value))
    except (OSError, ValueError, KeyError, TypeError):
        return False, 0.0


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
