#!/usr/bin/env bash
# VinePPO of Qwen2.5-Math-7B on 8 GPUs without a PRM: what a step is worth is measured by branches from it.
# shellcheck source=examples/cluster/ppo.sh
. "$(dirname "$0")/ppo.sh"

run openrlhf-prm train-ppo "${ppo[@]}" "${colocated[@]}" \
    --vllm.gpu_memory_utilization 0.8 \
    --algo.advantage.estimator vine --algo.advantage.no_std_norm \
    --vine.k 9 --vine.k_min 3 --vine.half_width 0.2 --vine.max_new_tokens 1024 \
    --algo.kl.init_coef 0.0001
