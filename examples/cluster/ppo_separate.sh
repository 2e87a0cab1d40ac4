#!/usr/bin/env bash
# PRM-guided PPO of Qwen2.5-Math-7B on 8 GPUs, every role on GPUs of its own: 4 train and hold the reference, 3 write, 1 scores.
# shellcheck source=examples/cluster/ppo.sh
. "$(dirname "$0")/ppo.sh"

run openrlhf-prm train-ppo "${ppo[@]}" "${guided[@]}" \
    --train.colocate_actor_ref --actor.num_gpus_per_node 4 --ref.num_gpus_per_node 4 \
    --vllm.num_engines 3 --vllm.gpu_memory_utilization 0.9 \
    --prm.num_engines 1 \
    --algo.kl.init_coef 0.001 --algo.advantage.is_correction_level token
