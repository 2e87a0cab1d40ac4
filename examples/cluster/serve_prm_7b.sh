#!/usr/bin/env bash
# Qwen2.5-Math-PRM-7B on one GPU, at /v1/step_rewards of port PORT. VLLM_API_KEY, where it is set, guards it; HOST=0.0.0.0 lets others in.
GPUS=${GPUS:-1}
# shellcheck source=examples/cluster/common.sh
. "$(dirname "$0")/common.sh"

serve "${PRM:-Qwen/Qwen2.5-Math-PRM-7B}" --max-model-len 4096 --gpu-memory-utilization 0.9
