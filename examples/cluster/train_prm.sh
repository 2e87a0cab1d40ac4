#!/usr/bin/env bash
# A 7B PRM from step labels on 8 GPUs, ZeRO-3: Qwen2.5-Math-PRM's head on Qwen2.5-Math-7B-Instruct.
# shellcheck source=examples/cluster/common.sh
. "$(dirname "$0")/common.sh"

BASE=$(model "${BASE:-Qwen/Qwen2.5-Math-7B-Instruct}")
LABELS=$(absolute "${LABELS:-runs/annotate_math/labels.jsonl}")

run_on_gpus train-prm \
    --model.model_name_or_path "$BASE" --prm.head qwen_prm --data.dataset "$LABELS" --data.max_len 4096 \
    --ds.zero_stage 3 --ds.packing_samples --train.batch_size 256 \
    --ckpt.save_steps 100 --ckpt.load_enable --ckpt.path "$OUT/checkpoints" --ckpt.output_dir "$OUT/prm" \
    --logger.tensorboard_dir "$OUT/tensorboard"
