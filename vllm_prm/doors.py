"""Who may reach `vllm-prm serve`: this machine alone unless `--host` says more, and keys that no process list shows."""

import argparse
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vllm_prm.api_keys import checked_key, key_from

API_KEY = "VLLM_API_KEY"
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Doors:
    """`flags` and `environment` of the server, and what to warn of."""

    flags: list[str]
    environment: dict[str, str]
    warnings: list[str]


def doors(flags: Sequence[str], environment: Mapping[str, str]) -> Doors:
    """vLLM's `flags` with a host, and its one key in the environment, where other users of the machine do not see it.

    Raises ValueError for a key that is none.
    """
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False, exit_on_error=False)
    parser.add_argument("--host")
    parser.add_argument("--uds")
    parser.add_argument("--api-key", "--api_key", nargs="*", default=[])
    try:
        given, rest = parser.parse_known_args(list(flags))
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from error
    kept, warnings = list(flags), []
    environment = {**environment}
    if len(given.api_key) == 1:
        environment[API_KEY] = checked_key(given.api_key[0], "--api-key")
        kept = [*rest, *(f"--{name}={value}" for name in ("host", "uds") if (value := getattr(given, name)))]
    elif given.api_key:
        warnings.append("the keys of --api-key stand in the process list; one key may come from VLLM_API_KEY instead")
    key = key_from(API_KEY, environment)
    if key is not None:
        environment[API_KEY] = key
    if given.host is None and given.uds is None:
        kept += ["--host", LOOPBACK]
    elif given.uds is None and not _is_loopback(given.host) and key is None and not given.api_key:
        warnings.append(
            f"--host {given.host} lets every machine in that reaches this one; VLLM_API_KEY, or a file in "
            "VLLM_API_KEY_FILE, asks them for a key"
        )
    return Doors(kept, environment, warnings)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
