# shellcheck shell=bash
# Sourced by every script of this folder, with the script's arguments: no argument runs its command, --print only shows
# it, --dry-run says what it would take and whether NODES machines with GPUS GPUs of GPU_GB GiB have it.
#
# Variables from outside (MODEL, PRM, DATA, OUT ...) win over the defaults of a script. With SMOKE=1 tiny.py says what
# they are instead, and its flags come after the script's own: of a flag given twice the last one counts.

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
me=$(basename "$0")
mode=run
for argument in "$@"; do
    case $argument in
        --dry-run) mode=dry ;;
        --print) mode=print ;;
        *)
            echo "$me: error: $argument: the only arguments are --dry-run and --print; variables set the rest" >&2
            exit 2
            ;;
    esac
done

# The absolute path of a file or folder, because actors have other working folders; any other name as it is.
absolute() { if [ -e "$1" ]; then realpath "$1"; else printf '%s\n' "$1"; fi; }

# The same of a model, which for a dry run is its shape.
model() { if [ "$mode" = dry ] && [ ! -e "$1" ]; then python "$here/shapes.py" "$scratch" "$1"; else absolute "$1"; fi; }

# What is in the background ends with the script, and what lies in `scratch` goes.
finish() {
    local started
    started=$(jobs -p)
    # shellcheck disable=SC2086
    [ -z "$started" ] || { kill $started && wait $started; } 2>/dev/null || true
    rm -rf "$scratch"
}
scratch=$(mktemp -d /tmp/prm-XXXXXX)
trap finish EXIT

SMOKE=${SMOKE:-0}
name=${name:-${me%.*}}
if [ "$SMOKE" = 1 ]; then
    [ ! -x "$here/../../.venv/bin/python" ] || PATH=$(realpath "$here/../../.venv/bin"):$PATH
    SMOKE_FILES=$(realpath -m "${SMOKE_FILES:-runs/smoke}")
    smoke=$(python "$here/tiny.py" "$SMOKE_FILES")
    eval "$smoke"
    # Ray's files, in whose usual folder a run would find another Ray of this machine and join it.
    [ -n "${RAY_ADDRESS:-}" ] || export RAY_TMPDIR=$scratch
    if [ -z "${OUT:-}" ]; then
        OUT=$SMOKE_FILES/out/$name
        [ "$mode" != run ] || rm -rf "$OUT"
    fi
fi
INPUT_KEY=${INPUT_KEY:-problem}
LABEL_KEY=${LABEL_KEY:-answer}
GPUS=${GPUS:-8}
NODES=${NODES:-1}
machines=${NODES}x${GPUS}x${GPU_GB:-80}
OUT=$(realpath -m "${OUT:-runs/$name}")

# run COMMAND...: does with a command what the mode says.
run() {
    prepare "$@"
    case $mode in
        print) printf '%q ' "${words[@]}" && echo ;;
        dry) "${words[@]}" --dry_run --dry_run.gpus "$machines" ;;
        run) "${words[@]}" ;;
    esac
}

# The command's words, those of a smoke run included.
prepare() {
    words=("$@")
    [ "$SMOKE" != 1 ] || mapfile -d '' -t words < <(python "$here/tiny.py" --command "$@")
}

# run_on_gpus COMMAND FLAG...: `openrlhf-prm COMMAND` as GPUS processes under torchrun; a dry run needs one only.
run_on_gpus() {
    if [ "$mode" = dry ]; then
        run openrlhf-prm "$@"
    else
        run torchrun --standalone --nproc_per_node "$GPUS" -m "openrlhf_prm.cli.${1//-/_}" "${@:2}"
    fi
}

# serve MODEL FLAG...: `vllm-prm serve`. A smoke run waits until it answers, asks for step rewards, and ends it.
serve() {
    local port=${PORT:-8000}
    if [ "$mode" = dry ]; then
        python "$here/serving_room.py" "$machines" "$(model "$1")" "${@:2}"
        return
    elif [ "$mode$SMOKE" != run1 ]; then
        run vllm-prm serve "$(absolute "$1")" --host "${HOST:-127.0.0.1}" --port "$port" "${@:2}"
        return
    fi
    prepare vllm-prm serve "$1" --port "$port" "${@:2}"
    "${words[@]}" & # no function, whose shell would be the job
    until curl --silent --fail --output /dev/null "http://127.0.0.1:$port/health"; do
        kill -0 $! || exit 1
        sleep 1
    done
    curl --silent --show-error --fail "http://127.0.0.1:$port/v1/step_rewards" \
        --header 'content-type: application/json' \
        --data '{"question": "Q: 36+22=?", "steps": ["36+22=58", "Answer: 58"], "aggregate": "min"}'
    echo
}
