#!/usr/bin/env bash
# Install this project with OpenRLHF, vLLM and flash-attn for GPUs into the active Python environment.
#   --without-flash-attn   leave flash-attn out and patch OpenRLHF to do without; then train with --ds.attn_implementation sdpa
#   --resolve FILE         install nothing: write into FILE which versions would be
# PYTHON: another interpreter than python3. uv resolves and installs; it is installed where it is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
flash_attn=1
resolved=

say() { echo "install_gpu: $1"; }
stop() {
    echo "install_gpu: $1" >&2
    exit 2
}

while [ $# -gt 0 ]; do
    case $1 in
    --without-flash-attn) flash_attn= ;;
    --resolve)
        resolved=${2:?--resolve takes a file}
        shift
        ;;
    *) stop "$1 is no option: --without-flash-attn, --resolve FILE" ;;
    esac
    shift
done

command -v "$python" >/dev/null || stop "$python is missing; PYTHON names another interpreter"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || stop "$python is older than Python 3.10"
if [ -z "$resolved" ]; then
    "$python" -c 'import os, sys; sys.exit(sys.prefix == sys.base_prefix and "CONDA_PREFIX" not in os.environ)' ||
        stop "$python is in no virtual environment: python3 -m venv gpu && . gpu/bin/activate"
    # DeepSpeed compiles its Adam when training starts, so nvcc is wanted either way.
    if ! command -v "${CUDA_HOME:+$CUDA_HOME/bin/}nvcc" >/dev/null; then
        [ -z "$flash_attn" ] || stop "nvcc is missing, flash-attn compiles with it: install CUDA's toolkit, or --without-flash-attn"
        say "nvcc is missing: DeepSpeed will need it for its Adam when training starts"
    fi
fi

if "$python" -m uv --version >/dev/null 2>&1; then
    uv=("$python" -m uv)
elif command -v uv >/dev/null; then
    uv=(uv)
else
    [ -z "$resolved" ] || stop "uv is missing; it resolves the versions"
    say "installing uv"
    "$python" -m pip install --quiet uv || stop "could not install uv"
    uv=("$python" -m uv)
fi

# One resolution first, so that what is installed in parts below fits together.
lock=${resolved:-$(mktemp)}
[ -n "$resolved" ] || trap 'rm -f "$lock"' EXIT
resolve=(pip compile --quiet --no-header --no-annotate --python "$python" --extra train --extra report)
[ -n "$flash_attn" ] || resolve+=(--override requirements/without_flash_attn.txt)
"${uv[@]}" "${resolve[@]}" --output-file "$lock" pyproject.toml >/dev/null || stop "the versions could not be resolved"
[ -z "$resolved" ] || exit 0

install() { "${uv[@]}" pip install --python "$python" "$@"; }
version() { grep "^$1==" "$lock"; }

say "1/3 $(version vllm), $(version torch), and what builds flash-attn"
install --constraint "$lock" vllm torch ninja packaging psutil setuptools wheel
if [ -n "$flash_attn" ]; then
    say "2/3 $(version flash-attn): a quarter of an hour and more where it has to be compiled (MAX_JOBS=4 takes less memory)"
    install --no-build-isolation --no-deps "$(version flash-attn)" ||
        stop "flash-attn could not be built: try again with --without-flash-attn"
else
    say "2/3 no flash-attn"
fi
say "3/3 $(version openrlhf) and the rest"
install --no-deps --requirement "$lock" # every package is in it; OpenRLHF would ask for flash-attn again
install --no-deps --editable .
[ -n "$flash_attn" ] || "$python" -m openrlhf_prm.cli.patch apply --only 0001
say "done; openrlhf-prm doctor says what this machine can run"
