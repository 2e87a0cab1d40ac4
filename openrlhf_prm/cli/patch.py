"""Apply the patches of this project to the installed OpenRLHF, take them back, or say which are there."""

import argparse
import sys
from pathlib import Path

from openrlhf_prm import patching
from openrlhf_prm.cli.parser import program_name

_DESCRIPTION = """\
Small patches to the installed OpenRLHF, written to be sent upstream (see patches/openrlhf):

{patches}

On a GPU only the plugin seam is of use, and it is optional. On CPU all of them are needed.
Commands may be repeated; a file that was changed by other hands is never touched.
"""


def _description() -> str:
    """The patches that there are, of every version of OpenRLHF."""
    versions = patching.patched_versions()
    blocks = []
    for version in versions:
        heading = [f"OpenRLHF {version}:"] if len(versions) > 1 else []
        titles = [f"  {patch.number}  {patch.title}" for patch in patching.load_patches(version)]
        blocks.append("\n".join(heading + titles))
    return _DESCRIPTION.format(patches="\n\n".join(blocks))


def build_parser() -> argparse.ArgumentParser:
    """The flags of this command; its help lists what lies in `patches/`."""
    parser = argparse.ArgumentParser(
        prog=program_name("patch"),
        description=_description(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "command",
        choices=["apply", "revert", "check"],
        help="apply: put the patches in; revert: restore the released files; check: exit code 0 if they are in, else 1",
    )
    parser.add_argument("--only", nargs="+", metavar="NUMBER", help="these patches only, for example --only 0003")
    parser.add_argument(
        "--site_packages", type=Path, metavar="DIR", help="the OpenRLHF in DIR instead of the one of this Python"
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0 when done, 1 when `check` finds a patch missing, 2 for another version or a changed file."""
    args = build_parser().parse_args(arguments)
    try:
        installation = patching.find_installation(args.site_packages)
        wanted = patching.select(installation, args.only)
        if args.command == "check":
            return _check(installation, wanted)
        change = patching.apply if args.command == "apply" else patching.revert
        changed = change(installation, args.only)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    done, already = ("applied", "already applied") if args.command == "apply" else ("reverted", "not applied")
    for patch in wanted:
        print(f"{patch.number}  {done if patch in changed else already:15}  {patch.title}")
    return 0


def _check(installation: patching.Installation, wanted: list[patching.Patch]) -> int:
    applied, _ = patching.read_state(installation)
    print(f"OpenRLHF {installation.version} in {installation.root}")
    for patch in wanted:
        print(f"{patch.number}  {'applied' if patch in applied else 'not applied':15}  {patch.title}")
    return 0 if all(patch in applied for patch in wanted) else 1


if __name__ == "__main__":
    sys.exit(main())
