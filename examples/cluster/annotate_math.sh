#!/usr/bin/env bash
# Step labels for MATH by OmegaPRM: eight engines, one a GPU, search the first errors in solutions of the policy.
# shellcheck source=examples/cluster/common.sh
. "$(dirname "$0")/common.sh"

MODEL=$(model "${MODEL:-Qwen/Qwen2.5-Math-7B-Instruct}")
DATA=$(absolute "${DATA:-math_train.jsonl}")

run openrlhf-prm annotate --annotator omega_prm \
    --actor.model_name_or_path "$MODEL" --data.apply_chat_template \
    --data.input "$DATA" --data.input_key "$INPUT_KEY" --data.label_key "$LABEL_KEY" \
    --data.output "$OUT/labels.jsonl" \
    --annotation.rollouts 8 --annotation.filter_rollouts 32 --annotation.searches 100 \
    --rollout.max_new_tokens 2048 \
    --vllm.num_engines "$GPUS" --vllm.max_model_len 4096
