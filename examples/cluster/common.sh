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
model() { if [ "$mode" = dry ] && [ ! -e "$1" ]; then python "$here/shapes.py" "$shapes" "$1"; else absolute "$1"; fi; }
if [ "$mode" = dry ]; then
    shapes=$(mktemp -d)
    trap 'rm -rf "$shapes"' EXIT
fi

SMOKE=${SMOKE:-0}
name=${name:-${me%.*}}
if [ "$SMOKE" = 1 ]; then
    [ ! -x "$here/../../.venv/bin/python" ] || PATH=$(realpath "$here/../../.venv/bin"):$PATH
    SMOKE_FILES=$(realpath -m "${SMOKE_FILES:-runs/smoke}")
    smoke=$(python "$here/tiny.py" "$SMOKE_FILES")
    eval "$smoke"
    if [ -z "${OUT:-}" ]; then
        OUT=$SMOKE_FILES/out/$name
        [ "$mode" != run ] || rm -rf "$OUT"
    fi
fi
INPUT_KEY=${INPUT_KEY:-problem}
LABEL_KEY=${LABEL_KEY:-answer}
GPUS=${GPUS:-8}
NODES=${NODES:-1}
GPU_GB=${GPU_GB:-80}
OUT=$(realpath -m "${OUT:-runs/$name}")

# run COMMAND...: does with a command what the mode says.
run() {
    local words=("$@")
    [ "$SMOKE" != 1 ] || mapfile -d '' -t words < <(python "$here/tiny.py" --command "$@")
    case $mode in
        print) printf '%q ' "${words[@]}" && echo ;;
        dry) "${words[@]}" --dry_run --dry_run.gpus "${NODES}x${GPUS}x${GPU_GB}" ;;
        run) "${words[@]}" ;;
    esac
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
    if [ "$mode$SMOKE" != run1 ]; then
        run vllm-prm serve "$(model "$1")" --port "$port" "${@:2}"
        return
    fi
    run vllm-prm serve "$1" --port "$port" "${@:2}" &
    server=$!
    trap 'kill "$server" 2>/dev/null && wait "$server" || true' EXIT
    until curl --silent --fail --output /dev/null "http://127.0.0.1:$port/health"; do
        kill -0 "$server" || exit 1
        sleep 1
    done
    curl --silent --show-error --fail "http://127.0.0.1:$port/v1/step_rewards" \
        --header 'content-type: application/json' \
        --data '{"question": "Q: 36+22=?", "steps": ["36+22=58", "Answer: 58"], "aggregate": "min"}'
    echo
}
