#!/usr/bin/env bash
# Length control of Qwen2.5-Math-7B on 8 GPUs: a price on tokens, learned so that responses have 600 tokens in the mean.
# shellcheck source=examples/cluster/ppo.sh
. "$(dirname "$0")/ppo.sh"

run openrlhf-prm train-ppo "${ppo[@]}" "${colocated[@]}" \
    --vllm.gpu_memory_utilization 0.8 \
    --algo.advantage.estimator rloo \
    --length_penalty.kind lagrangian --length_penalty.target 600 --length_penalty.rate 0.01 \
    --algo.kl.init_coef 0
