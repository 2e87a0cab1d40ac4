#!/usr/bin/env bash
# Qwen2.5-Math-PRM-72B, split over four GPUs, at /v1/step_rewards of port PORT.
# VLLM_API_KEY, where it is set, guards it; HOST=0.0.0.0 lets others in.
GPUS=${GPUS:-4}
# shellcheck source=examples/cluster/common.sh
. "$(dirname "$0")/common.sh"

serve "${PRM:-Qwen/Qwen2.5-Math-PRM-72B}" --tensor-parallel-size 4 --max-model-len 4096 --gpu-memory-utilization 0.92
