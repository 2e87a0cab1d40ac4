# shellcheck shell=bash disable=SC2034,SC2329
# Sourced by the launchers of this folder for SMOKE=1: this machine is the cluster. What is started here ends with the
# script, and Ray's files, which others would find in its usual folder, lie in one of its own.

RAY_TMPDIR=$(mktemp -d /tmp/ray-XXXXXX)
export RAY_TMPDIR
trap 'end_ray' EXIT

# Every Ray that the script started, and its files.
end_ray() {
    local started
    started=$(jobs -p)
    # shellcheck disable=SC2086
    [ -z "$started" ] || { kill $started 2>/dev/null && wait $started 2>/dev/null; } || true
    rm -rf "$RAY_TMPDIR"
}

free_port() {
    python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# A Ray of one node that takes jobs; RAY_ADDRESS is where.
start_ray() {
    local dashboard
    dashboard=$(free_port)
    ray start --head --port="$(free_port)" --dashboard-port="$dashboard" --block >"$RAY_TMPDIR/log" 2>&1 &
    export RAY_ADDRESS=http://127.0.0.1:$dashboard
    until curl --silent --fail --output /dev/null "$RAY_ADDRESS/api/version"; do
        kill -0 $! || { cat "$RAY_TMPDIR/log" && exit 1; }
        sleep 1
    done
}

# SLURM's commands for an allocation of two nodes, which are both this machine.
act_as_slurm() {
    SLURM_JOB_NODELIST=127.0.0.1,localhost
    RAY_PORT=$(free_port)
    scontrol() { tr , '\n' <<<"$3"; }
    srun() {
        while [[ $1 == --* ]]; do shift; done
        "$@"
    }
}
