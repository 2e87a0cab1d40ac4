#!/usr/bin/env bash
# rayjob.yaml on the cluster of the current kubectl context. A smoke run submits its entrypoint, as KubeRay does, to a Ray on
# this machine.
name=ppo_4_nodes
NODES=${NODES:-4}
# shellcheck source=examples/cluster/common.sh
. "$(dirname "$0")/../common.sh"

if [ "$mode" = dry ]; then
    bash "$here/ppo_4_nodes/train.sh" --dry-run
    exit
elif [ "$mode" = print ]; then
    printf '%q ' kubectl create -f "$here/ppo_4_nodes/rayjob.yaml" && echo
elif [ "$SMOKE" = 0 ]; then
    kubectl create -f "$here/ppo_4_nodes/rayjob.yaml"
else
    # shellcheck source=examples/cluster/ppo_4_nodes/this_machine.sh
    . "$here/ppo_4_nodes/this_machine.sh"
    export SMOKE SMOKE_FILES OUT
    start_ray
    entrypoint=$(sed -n 's/^  entrypoint: //p' "$here/ppo_4_nodes/rayjob.yaml")
    # shellcheck disable=SC2086
    ray job submit --address "$RAY_ADDRESS" -- ${entrypoint//\/opt\/openrlhf-prm/$(realpath "$here/../..")}
fi
