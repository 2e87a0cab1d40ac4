#!/usr/bin/env bash
# Build .venv for CPU from requirements/cpu.lock, install this project into it and patch OpenRLHF. VENV: another folder.
# Does nothing when it already matches the lock, the packaging and the patches.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3.11}
venv=${VENV:-.venv}
stamp=$venv/.setup-stamp
# The path is part of it: a virtual environment cannot be moved.
wanted=$({ pwd; cat requirements/cpu.lock pyproject.toml setup.py scripts/setup.sh patches/openrlhf/*/*; } | sha256sum | cut -d' ' -f1)

if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    echo "setup: $venv is up to date"
    exit 0
fi

stop() {
    echo "setup: $1" >&2
    exit 1
}

command -v "$python" >/dev/null || stop "$python is missing; install Python 3.11 or pass PYTHON=/path/to/python3.11"
[ "$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = 3.11 ] ||
    stop "$python is not Python 3.11; pass PYTHON=/path/to/python3.11"
"$python" -c 'import ensurepip, venv' 2>/dev/null || stop "$python has no venv module (Debian: apt-get install python3.11-venv)"
command -v g++ >/dev/null || stop "g++ is missing; PyTorch and DeepSpeed compile with it (Debian: apt-get install g++)"

rm -f "$stamp"
"$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$python" -m venv "$venv"

# pip's own progress is long: it goes to a file, whose end is shown when pip fails.
log=$venv/setup.log
: >"$log"
pip_install() {
    DS_BUILD_OPS=0 DS_ACCELERATOR=cpu "$venv/bin/python" -m pip install --disable-pip-version-check --no-input "$@" >>"$log" 2>&1
}
failed() {
    tail -n 15 "$log" >&2
    stop "$1 (all of pip's output: $log)"
}

torch=$(grep '^torch==' requirements/cpu.lock)
echo "setup: installing $torch into $venv"
pip_install --no-deps "$torch" ||
    pip_install --no-deps --index-url https://download.pytorch.org/whl/cpu "$torch" ||
    failed "could not install $torch"

echo "setup: installing $(grep -c '^[a-zA-Z]' requirements/cpu.lock) packages from requirements/cpu.lock (a few minutes)"
pip_install --no-deps -r requirements/cpu.lock || failed "could not install requirements/cpu.lock"

echo "setup: installing this project"
pip_install --no-deps -e . || failed "could not install this project"

echo "setup: patching OpenRLHF for CPU"
openrlhf=$(grep '^openrlhf==' requirements/cpu.lock)
if ! "$venv/bin/python" -m openrlhf_prm.cli.patch check >>"$log" 2>&1; then
    # The released files first: an earlier setup may have put in an earlier version of the patches.
    pip_install --no-deps --force-reinstall "$openrlhf" || failed "could not reinstall $openrlhf"
    "$venv/bin/python" -m openrlhf_prm.cli.patch apply >>"$log" 2>&1 || failed "could not patch $openrlhf"
fi

# Python collects garbage once per 700 new objects, which is a sixth of the time that importing vLLM takes; every run here
# imports it in some eight processes.
packages=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
echo "import gc; gc.set_threshold(50_000, 20, 50)" >"$packages/rarer_garbage_collection.pth"
# Bytecode of what was not installed by pip: each of those processes would compile it where it may not write.
"$venv/bin/python" -m compileall -q openrlhf_prm vllm_prm "$packages/openrlhf" >>"$log" 2>&1 || failed "could not compile"

echo "$wanted" >"$stamp"
echo "setup: done"
