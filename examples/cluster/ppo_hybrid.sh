#!/usr/bin/env bash
# PRM-guided PPO of Qwen2.5-Math-7B on 8 GPUs, all roles on all of them: the policy writes and the PRM scores while training
# sleeps in host memory, and the other way round.
# shellcheck source=examples/cluster/ppo.sh
. "$(dirname "$0")/ppo.sh"

run openrlhf-prm train-ppo "${ppo[@]}" "${guided[@]}" "${colocated[@]}" \
    --vllm.gpu_memory_utilization 0.45 \
    --prm.colocate --prm.num_engines $((NODES * GPUS)) --prm.gpus_per_engine 0.4 \
    --algo.kl.init_coef 0.001 --algo.advantage.is_correction_level token
