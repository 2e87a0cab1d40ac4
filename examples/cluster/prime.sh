#!/usr/bin/env bash
# PRIME with Qwen2.5-Math-7B on 8 GPUs: an implicit PRM that learns in the loop, on the GPUs of the policy.
# shellcheck source=examples/cluster/ppo.sh
. "$(dirname "$0")/ppo.sh"

run openrlhf-prm train-ppo "${ppo[@]}" "${colocated[@]}" \
    --vllm.gpu_memory_utilization 0.6 \
    --process_reward.shaping implicit --algo.advantage.estimator prime \
    --online_prm.colocate --online_prm.num_nodes "$NODES" --online_prm.num_gpus_per_node "$GPUS" \
    --online_prm.lr 1e-6 --online_prm.update before --online_prm.save \
    --algo.kl.init_coef 0
