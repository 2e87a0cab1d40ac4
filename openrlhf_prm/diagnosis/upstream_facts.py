"""Which names of the hosts are missing, and whether vLLM takes up the plugin. Imports them: for a process apart."""

import openrlhf_prm.hosts
import vllm_prm.hosts
from openrlhf_prm.cluster.accelerator import prepare_environment
from vllm_prm.architectures import step_architectures


def missing_of_vllm_prm() -> dict:
    """`missing`: names of vLLM that `vllm_prm` uses; `not_registered`: its architectures that vLLM does not know after
    loading its plugins, as an engine does.
    """
    prepare_environment()
    missing = vllm_prm.hosts.missing_names(vllm_prm.hosts.NAMES)
    if any(name.startswith("vllm (") for name in missing):
        return {"missing": missing, "not_registered": []}
    from vllm import ModelRegistry
    from vllm.plugins import load_general_plugins

    load_general_plugins()
    known = set(ModelRegistry.get_supported_archs())
    return {
        "missing": missing,
        "not_registered": [name for name in step_architectures(known) if name not in known],
    }


def missing_of_openrlhf_prm() -> list[str]:
    """Names of OpenRLHF, DeepSpeed, Ray and vLLM that `openrlhf_prm` uses and the installed ones lack."""
    prepare_environment()
    return vllm_prm.hosts.missing_names(openrlhf_prm.hosts.NAMES)
