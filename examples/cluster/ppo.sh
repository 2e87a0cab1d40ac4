# shellcheck shell=bash disable=SC2034
# Sourced by the PPO scripts of this folder: what their runs have in common, as arrays of flags.
#
#   ppo        model, questions, lengths, batches, saving
#   guided     a PRM that is not trained, with the recipe for public PRMs
#   colocated  policy, reference and vLLM take turns on NODES x GPUS GPUs; TP of them share an engine

# shellcheck source=examples/cluster/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

MODEL=$(model "${MODEL:-Qwen/Qwen2.5-Math-7B}")
PRM=$(model "${PRM:-Qwen/Qwen2.5-Math-PRM-7B}")
DATA=$(absolute "${DATA:-math_train.jsonl}")
TP=${TP:-1}

ppo=(
    --actor.model_name_or_path "$MODEL"
    --data.prompt_dataset "$DATA" --data.input_key "$INPUT_KEY" --data.label_key "$LABEL_KEY"
    --data.apply_chat_template --data.max_len 3072 --rollout.max_new_tokens 2048
    --reward.remote_url math
    --rollout.batch_size 128 --rollout.n_samples_per_prompt 8 --train.batch_size 256 --train.num_episodes 3
    --ds.packing_samples --train.dynamic_batch_enable
    --train.max_tokens_per_gpu 8192 --rollout.max_tokens_per_gpu 16384
    --ds.zero_stage 3 --actor.gradient_checkpointing_enable
    --actor.adam.lr 1e-6 --actor.lr_warmup_ratio 0.05
    --vllm.enable_prefix_caching
    --ckpt.output_dir "$OUT/policy" --ckpt.path "$OUT/checkpoints" --ckpt.save_steps 20 --ckpt.max_num 2
    --ckpt.load_enable
    --logger.tensorboard_dir "$OUT/tensorboard"
)
# The key itself stays in the environment, where wandb finds it: a process list shows every command line.
[ -z "${WANDB_API_KEY:-}" ] || ppo+=(--logger.wandb.key from-the-environment)

guided=(
    --prm.model_name_or_path "$PRM" --prm.max_model_len 4096
    --prm.question_pattern '<\|im_start\|>user\n(.*?)<\|im_end\|>'
    --process_reward.shaping min_form --algo.advantage.estimator min_form_rloo
)

colocated=(
    --train.colocate_all --vllm.enable_sleep --ds.enable_sleep
    --actor.num_nodes "$NODES" --actor.num_gpus_per_node "$GPUS"
    --ref.num_nodes "$NODES" --ref.num_gpus_per_node "$GPUS"
    --vllm.num_engines $((NODES * GPUS / TP)) --vllm.tensor_parallel_size "$TP"
)
