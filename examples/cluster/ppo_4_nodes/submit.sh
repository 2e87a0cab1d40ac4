#!/usr/bin/env bash
# train.sh as a job of a running Ray cluster, RAY_ADDRESS, from any machine that reaches its dashboard. CHECKOUT: where this
# repository lies on the cluster's nodes. Keys (HF_TOKEN, WANDB_API_KEY) are read from the environment of the nodes.
name=ppo_4_nodes
NODES=${NODES:-4}
# shellcheck source=examples/cluster/common.sh
. "$(dirname "$0")/../common.sh"
CHECKOUT=${CHECKOUT:-$(realpath "$here/../..")}

if [ "$mode" = dry ]; then
    bash "$here/ppo_4_nodes/train.sh" --dry-run
    exit
fi
settings=()
for variable in MODEL PRM DATA OUT INPUT_KEY LABEL_KEY NODES GPUS TP SMOKE SMOKE_FILES; do
    [ -z "${!variable:-}" ] || settings+=("$variable=$(absolute "${!variable}")")
done
if [ "$mode$SMOKE" = run1 ]; then
    # shellcheck source=examples/cluster/ppo_4_nodes/this_machine.sh
    . "$here/ppo_4_nodes/this_machine.sh"
    start_ray
fi
job=(
    ray job submit --address "${RAY_ADDRESS:-http://127.0.0.1:8265}" --
    env "${settings[@]}" bash "$CHECKOUT/examples/cluster/ppo_4_nodes/train.sh"
)
if [ "$mode" = print ]; then
    printf '%q ' "${job[@]}" && echo
else
    "${job[@]}"
fi
