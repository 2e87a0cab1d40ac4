"""Apply `patches/openrlhf/<version>/*.patch` to the installed OpenRLHF, and take them back.

Nothing is remembered between calls: which patches an installation has is read from its files. Patches are undone in
memory, newest first, and what remains must have the SHA-256 of the released file (`SHA256SUMS.json`); a file for which
that fails was changed by someone else, and nothing is touched. Then the wanted patches are applied in memory, in order
and without fuzz (earlier patches may have moved a hunk's lines), and only when all of that has worked are the files
replaced, each by a rename (so hard links into a package manager's cache stay as they were).

Neither OpenRLHF nor torch is imported.
"""

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")


@dataclass(frozen=True)
class Hunk:
    """Replace the lines `old`, which begin at line `old_start` (from 1), by `new`, which begin at `new_start`."""

    old_start: int
    old: tuple[str, ...]
    new_start: int
    new: tuple[str, ...]


@dataclass(frozen=True)
class Patch:
    """One patch file: `number` ("0001"), `title` (its first line), and the hunks of every file it changes."""

    number: str
    title: str
    hunks: dict[str, tuple[Hunk, ...]]


@dataclass(frozen=True)
class Installation:
    """An installed OpenRLHF: its version and the folder that holds the package `openrlhf`."""

    version: str
    root: Path


def patches_folder() -> Path:
    """`patches/openrlhf`: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).parent
    shipped = package / "patches" / "openrlhf"
    return shipped if shipped.is_dir() else package.parent / "patches" / "openrlhf"


def patched_versions() -> list[str]:
    """The versions of OpenRLHF that there are patches for."""
    return sorted(entry.name for entry in patches_folder().iterdir() if entry.is_dir())


def find_installation(site_packages: Path | None = None) -> Installation:
    """The OpenRLHF of this Python, or the one in the folder `site_packages`.

    Raises ValueError where there is none.
    """
    path = {} if site_packages is None else {"path": [str(site_packages)]}
    distribution = next(iter(importlib.metadata.distributions(name="openrlhf", **path)), None)
    if site_packages is None:
        spec = importlib.util.find_spec("openrlhf")
        package = Path(spec.origin).parent if spec and spec.origin else None
    else:
        package = Path(site_packages) / "openrlhf"
    if distribution is None or package is None or not package.is_dir():
        raise ValueError(f"OpenRLHF is not installed{f' in {site_packages}' if site_packages else ''}")
    return Installation(distribution.version, package.parent)


def load_patches(version: str) -> list[Patch]:
    """The patches for that version of OpenRLHF, in order. Raises ValueError where there are none."""
    folder = patches_folder() / version
    if not folder.is_dir():
        known = ", ".join(patched_versions())
        raise ValueError(
            f"OpenRLHF {version} is installed, the patches are for {known}: pip install --no-deps openrlhf=={known}"
        )
    return [parse_patch(file.name[:4], file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.patch"))]


def parse_patch(number: str, text: str) -> Patch:
    """Read a unified diff with a heading. Raises ValueError for a line that does not belong in one."""
    lines = text.splitlines()
    hunks: dict[str, list[Hunk]] = {}
    at, file = 0, None
    while at < len(lines):
        line = lines[at]
        at += 1
        if line.startswith("+++ b/"):
            file = line.removeprefix("+++ b/")
            hunks[file] = []
        elif file is not None and (head := _HUNK.match(line)):
            old_start, old_count, new_start, new_count = (int(group or 1) for group in head.groups())
            old, new = [], []
            while len(old) < old_count or len(new) < new_count:
                body = lines[at] if at < len(lines) else ""
                at += 1
                if body[:1] not in (" ", "-", "+"):
                    raise ValueError(f"patch {number} is damaged at line {at}")
                if body[0] in " -":
                    old.append(body[1:])
                if body[0] in " +":
                    new.append(body[1:])
            hunks[file].append(Hunk(old_start, tuple(old), new_start, tuple(new)))
        elif file is not None and not line.startswith("--- a/"):
            raise ValueError(f"patch {number} is damaged at line {at}")
    return Patch(number, lines[0], {name: tuple(of_file) for name, of_file in hunks.items()})


def patch_text(text: str, hunks: Iterable[Hunk], reverse: bool = False) -> str | None:
    """`text` with the hunks applied (or undone), or None where one does not fit: its lines must stand where it says, or
    at one other place, to which a patch before it moved them.
    """
    lines = text.split("\n")
    # From the last hunk to the first, so that the line numbers of the earlier ones hold.
    for hunk in reversed(tuple(hunks)):
        start = hunk.new_start if reverse else hunk.old_start
        before, after = (hunk.new, hunk.old) if reverse else (hunk.old, hunk.new)
        begin = _find(lines, before, start - 1)
        if begin is None:
            return None
        lines[begin : begin + len(before)] = after
    return "\n".join(lines)


def _find(lines: list[str], block: tuple[str, ...], expected: int) -> int | None:
    """Where `block` stands in `lines`: at `expected`, else at the only place there is."""
    if tuple(lines[expected : expected + len(block)]) == block:
        return expected
    places = [at for at in range(len(lines) - len(block) + 1) if tuple(lines[at : at + len(block)]) == block]
    return places[0] if len(places) == 1 else None


def read_state(installation: Installation) -> tuple[list[Patch], dict[str, str]]:
    """The patches that are applied, and the released text of every file that a patch changes.

    Raises ValueError for a file changed by other hands, or when a patch is in some of its files only.
    """
    patches = load_patches(installation.version)
    sums = json.loads((patches_folder() / installation.version / "SHA256SUMS.json").read_text())
    released, patched_files = {}, {patch.number: set() for patch in patches}
    for file, expected in sums.items():
        path = installation.root / file
        if not path.is_file():
            raise ValueError(f"{path} is missing: reinstall openrlhf=={installation.version}")
        text = path.read_bytes().decode("utf-8", errors="surrogateescape")
        for patch in reversed(patches):
            undone = patch_text(text, patch.hunks[file], reverse=True) if file in patch.hunks else None
            if undone is not None:
                text = undone
                patched_files[patch.number].add(file)
        if hashlib.sha256(text.encode("utf-8", errors="surrogateescape")).hexdigest() != expected:
            raise ValueError(f"{path} was changed locally: reinstall openrlhf=={installation.version} first")
        released[file] = text
    for patch in patches:
        if missing := patched_files[patch.number] and set(patch.hunks) - patched_files[patch.number]:
            raise ValueError(f"patch {patch.number} is missing from {sorted(missing)[0]}: reinstall openrlhf first")
    return [patch for patch in patches if patched_files[patch.number]], released


def apply(installation: Installation, only: Iterable[str] | None = None) -> list[Patch]:
    """Apply all patches, or those with the numbers `only`; the patches that were not there before are returned."""
    applied, released = read_state(installation)
    wanted = select(installation, only)
    target = [patch for patch in load_patches(installation.version) if patch in applied or patch in wanted]
    _write(installation, released, target)
    return [patch for patch in target if patch not in applied]


def revert(installation: Installation, only: Iterable[str] | None = None) -> list[Patch]:
    """Take back all patches, or those with the numbers `only`; the patches that were there before are returned."""
    applied, released = read_state(installation)
    unwanted = select(installation, only)
    _write(installation, released, [patch for patch in applied if patch not in unwanted])
    return [patch for patch in applied if patch in unwanted]


def select(installation: Installation, only: Iterable[str] | None) -> list[Patch]:
    """The patches with the numbers `only`, all of them for None. Raises ValueError for a number that does not exist."""
    patches = load_patches(installation.version)
    if only is None:
        return patches
    known = {patch.number: patch for patch in patches}
    for number in only:
        if number not in known:
            raise ValueError(f"there is no patch {number}: {', '.join(known)}")
    return [known[number] for number in known if number in only]


def _write(installation: Installation, released: dict[str, str], target: list[Patch]) -> None:
    texts = dict(released)
    for patch in target:
        for file, hunks in patch.hunks.items():
            changed = patch_text(texts[file], hunks)
            if changed is None:
                before = (
                    ", ".join(other.number for other in target if other.number < patch.number) or "none of the others"
                )
                raise ValueError(f"patch {patch.number} does not fit {file} with {before} applied; nothing was changed")
            texts[file] = changed
    replacements = []
    for file, text in texts.items():
        path, content = installation.root / file, text.encode("utf-8", errors="surrogateescape")
        if path.read_bytes() != content:
            draft = path.with_name(path.name + ".new")
            draft.write_bytes(content)
            shutil.copymode(path, draft)
            replacements.append((draft, path))
    for draft, path in replacements:
        os.replace(draft, path)
