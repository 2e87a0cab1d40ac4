"""Says whether this machine, and the Ray cluster behind it, can serve a PRM, train one, and run PPO.

A line for everything that was looked at, what to do about what is wrong, and a line for each use. Nothing is changed,
no GPU is needed, and what takes longer than `--timeout` is ended and named.

With `--run DIR` the ledger of a run is added up instead: what went in is what came out, and what was left out why.

Exit code: the sum of 4 where serving cannot run, 8 where PRM training cannot, 16 where PPO cannot; 0 where all can; 2
for a wrong flag; 32 for a ledger that does not balance.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor

from openrlhf_prm.cli.parser import FlagParser
from openrlhf_prm.data.ledger import balances
from openrlhf_prm.diagnosis import child, machine, machine_facts, nodes, packages
from openrlhf_prm.diagnosis.finding import EVERY_USE, Finding, exit_code, summary, table
from vllm_prm.serve import ENTRY_POINT_GROUPS

UNBALANCED = 32


def build_parser() -> FlagParser:
    """The flags of this command."""
    parser = FlagParser(prog="doctor", description="Say what this machine and its Ray cluster can run.")
    add = parser.add_argument
    add("--for", dest="uses", nargs="+", choices=EVERY_USE, default=EVERY_USE, help="what the exit code speaks of")
    paths = "files and model folders that a run will read, which every node must see"
    add("--paths", nargs="+", default=[], metavar="PATH", help=paths)
    add("--run", metavar="DIR", help="add up the ledger of a run instead: all that went in came out, or is named")
    add("--timeout", type=float, default=300.0, help="seconds after which whatever has not answered is ended")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.timeout <= 0:
        parser.error(f"--timeout must be above 0, got {args.timeout:g}")
    if args.run is not None:
        try:
            return add_up(args.run)
        except ValueError as error:
            parser.error(f"--run: {error}")
    findings = examine([os.path.abspath(path) for path in args.paths], args.timeout)
    print(table(findings))
    print()
    print(summary(findings, args.uses))
    return exit_code(findings, args.uses)


def add_up(folder: str) -> int:
    """Prints what the ledger in a folder comes to; returns the exit code."""
    code = 0
    for balance in balances(folder):
        print(f"{'not ok' if balance.faults else 'ok':7}{balance}")
        for fault in balance.faults:
            print(f"{'':7}{fault}")
        code = UNBALANCED if balance.faults else code
    return code


def examine(paths: list[str], limit_s: float) -> list[Finding]:
    """All that is looked at, in order. What may crash or hang is asked in processes of their own, all at once."""
    groups = list(ENTRY_POINT_GROUPS)
    # Ray's nodes get most of the time, so that one which does not answer is named before the whole is ended.
    arguments = {"nodes": (paths, groups, 0.7 * limit_s)}
    with ThreadPoolExecutor() as asking:
        asked = {topic: asking.submit(child.ask, topic, limit_s, *arguments.get(topic, ())) for topic in child.TOPICS}
    answers = {topic: answer.result() for topic, answer in asked.items()}
    device, device_fault = answers["device"]
    here = machine_facts.collect(paths, groups)
    cpu = device is not None and device["cuda"] is None
    applied, patch_fault = packages.patches_applied()
    return [
        *packages.of_versions(here["versions"]),
        *packages.of_vllm_names(*answers["names of vllm_prm"]),
        *packages.of_host_names(*answers["names of openrlhf_prm"]),
        packages.of_plugins(here["plugins"]),
        packages.of_patches(applied, patch_fault, cpu),
        *([packages.of_flash_attn(device["flash_attn_fault"], applied, cpu)] if device else []),
        *machine.of_device(device, device_fault),
        *nodes.of_nodes(*answers["nodes"], here, cpu),
        *machine.of_paths(here["missing"], paths),
        *machine.of_ports(),
        *machine.of_folders(here["folders"]),
    ]


if __name__ == "__main__":
    sys.exit(main())
