"""Which folders become packages; everything else is in pyproject.toml.

`patches/` lies at the top of the repository, where a reader looks for it, and is shipped as `openrlhf_prm/patches`.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["vllm_prm*", "openrlhf_prm*"]), "openrlhf_prm.patches"],
    package_dir={"openrlhf_prm.patches": "patches"},
    package_data={
        "openrlhf_prm.patches": ["openrlhf/*/*.patch", "openrlhf/*/*.json"],
        "openrlhf_prm.generation.chains": ["roles.yaml"],
    },
)
