# shellcheck shell=bash disable=SC2034,SC2154,SC2329
# Sourced by the launchers of this folder, after common.sh, for SMOKE=1: this machine is the cluster.

free_port() {
    python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# A Ray of one node that takes jobs; RAY_ADDRESS is where.
start_ray() {
    local dashboard
    dashboard=$(free_port)
    ray start --head --port="$(free_port)" --dashboard-port="$dashboard" --block >"$scratch/log" 2>&1 &
    export RAY_ADDRESS=http://127.0.0.1:$dashboard
    until curl --silent --fail --output /dev/null "$RAY_ADDRESS/api/version"; do
        kill -0 $! || { cat "$scratch/log" && exit 1; }
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
