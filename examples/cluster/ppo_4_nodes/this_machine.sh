# shellcheck shell=bash disable=SC2034,SC2154,SC2329
# Sourced by the launchers of this folder, after common.sh, for SMOKE=1: this machine is the cluster.

free_port() {
    python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# A Ray of one node that takes jobs; RAY_ADDRESS is where. Its agent, which starts them, has a port of its own: with Ray's
# usual one, which another Ray of this machine may have, it would take none.
start_ray() {
    local dashboard agent
    dashboard=$(free_port) agent=$(free_port)
    ray start --head --node-ip-address=127.0.0.1 --port="$(free_port)" --dashboard-port="$dashboard" \
        --dashboard-agent-listen-port="$agent" --block >"$scratch/log" 2>&1 &
    export RAY_ADDRESS=http://127.0.0.1:$dashboard
    until_answered dashboard "$RAY_ADDRESS/api/version"
    until_answered agent "http://127.0.0.1:$agent/api/local_raylet_healthz"
}

# until_answered PART URL: returns when that part of the Ray in the background answers; ends the script with Ray's log where
# Ray ends or ten minutes are over.
until_answered() {
    local deadline=$((SECONDS + 600)) fault=
    until curl --silent --fail --output /dev/null "$2"; do
        kill -0 $! 2>/dev/null || fault="Ray ended"
        [ $SECONDS -lt $deadline ] || fault="Ray's $1 did not answer in ten minutes"
        if [ -n "$fault" ]; then
            cat "$scratch/log" >&2
            echo "$me: error: $fault" >&2
            exit 1
        fi
        sleep 1
    done
}

# SLURM's commands for an allocation of two nodes, which are both this machine.
act_as_slurm() {
    SLURM_JOB_NODELIST=127.0.0.1,localhost
    RAY_PORT=$(free_port)
    scontrol() { tr , '\n' <<<"$3"; }
    # In the background, where the shell's job is then the command itself, which ends with the script.
    srun() {
        while [[ $1 == --* ]]; do shift; done
        exec "$@"
    }
}
