#!/usr/bin/env bash
# PRM-guided PPO of Qwen2.5-Math-7B on 4 nodes of 8 GPUs: 2 nodes train and hold the reference, 12 GPUs write, 4 score.
# Runs on a node of the Ray cluster; submit.sh, slurm.sbatch and rayjob.yaml bring it there.
name=ppo_4_nodes
NODES=${NODES:-4}
# shellcheck source=examples/cluster/ppo.sh
. "$(dirname "$0")/../ppo.sh"

run openrlhf-prm train-ppo "${ppo[@]}" "${guided[@]}" \
    --train.colocate_actor_ref --actor.num_nodes 2 --actor.num_gpus_per_node 8 \
    --ref.num_nodes 2 --ref.num_gpus_per_node 8 \
    --vllm.num_engines 12 --vllm.gpu_memory_utilization 0.9 \
    --prm.num_engines 4 \
    --algo.kl.init_coef 0.001 --algo.advantage.is_correction_level token
