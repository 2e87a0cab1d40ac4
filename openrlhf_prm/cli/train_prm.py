"""Trains a process reward model from labelled solutions: `python -m openrlhf_prm.cli.train_prm`.

Runs as a plain process on one device, or on several under torchrun or `deepspeed --module openrlhf_prm.cli.train_prm`.
Flags and their meaning are OpenRLHF's (`openrlhf.cli.train_sft`) where it has them; the names they had in OpenRLHF
<= 0.9.5's `train_prm` are understood, too. The checkpoint declares its family in config.json, so `vllm_prm` serves it
as it is. The last line on stdout is a JSON summary.

Exit code 2: a flag, the tokenizer or a row is wrong; said in one line before training starts. 130: interrupted.
"""

import json
import math
import os
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

from openrlhf_prm.cli.parser import FlagParser, nested
from openrlhf_prm.cluster.accelerator import on_cpu, prepare_environment
from openrlhf_prm.cluster.checks import require_at_least_one, require_checkpoint
from openrlhf_prm.data.formats_in import ROW_FORMATS
from openrlhf_prm.measures.agreement import METRICS
from openrlhf_prm.prm_training.heads import PRM_HEADS, resolve_flags
from vllm_prm.json_flags import json_object

HEAD_FLAGS = ("placeholder_token", "reward_tokens", "step_separator", "reference", "beta")


def build_parser() -> FlagParser:
    """The flags of this command."""
    parser = FlagParser(prog="train_prm", description="Train a process reward model on labelled solutions.")
    add = parser.add_argument
    add("--model.model_name_or_path", "--pretrain", required=True, help="causal LM, or a PRM, to start from")
    checkpointing = "recompute activations to save memory"
    add("--model.gradient_checkpointing_enable", "--gradient_checkpointing", action="store_true", help=checkpointing)
    _add_head_flags(add)
    _add_data_flags(add)
    add("--train.batch_size", "--train_batch_size", type=int, default=128, help="solutions per update, all devices")
    per_device = "solutions per device and forward pass"
    add("--train.micro_batch_size", "--micro_train_batch_size", type=int, default=8, help=per_device)
    add("--train.max_epochs", "--max_epochs", type=int, default=1, help="times all solutions are seen")
    add("--train.seed", "--seed", type=int, default=42, help="of the data's order, new weights and dropout")
    kernels = "reproducible kernels, slower"
    add("--train.full_determinism_enable", "--full_determinism", action="store_true", help=kernels)
    add("--adam.lr", "--learning_rate", type=float, default=1e-6, help="highest learning rate")
    add("--adam.betas", "--adam_betas", type=float, nargs=2, default=(0.9, 0.95))
    add("--adam.eps", type=float, default=1e-8)
    add("--adam.weight_decay", "--l2", type=float, default=0.0)
    add("--lr_scheduler", default="cosine_with_min_lr", help="a name of transformers' get_scheduler")
    add("--lr_warmup_ratio", type=float, default=0.03, help="share of the updates")
    add("--min_lr_ratio", type=float, default=0.1, help="lowest learning rate, as a share of the highest")
    add("--max_norm", type=float, default=1.0, help="gradient clipping")
    _add_checkpoint_flags(add)
    _add_device_flags(add)
    add("--logger.tensorboard_dir", "--use_tensorboard", help="folder for TensorBoard")
    add("--logger.logging_steps", "--logging_steps", type=int, default=1, help="updates between TensorBoard's points")
    return parser


def _add_head_flags(add) -> None:
    of = {name: ", ".join(h.name for h in PRM_HEADS.values() if name in h.defaults) for name in HEAD_FLAGS}

    def described(name: str, text: str) -> dict:
        defaults = ", ".join(
            f"{head.name} {head.defaults[name]!r}" for head in PRM_HEADS.values() if head.defaults.get(name) is not None
        )
        # %(default)s is None: argparse then adds no default of its own.
        return {"help": f"{of[name]}: {text}" + (f" (%(default)s: {defaults})" if defaults else "")}

    add("--prm.head", "--model.head", default="placeholder", choices=list(PRM_HEADS), help="how a score is read")
    token = "token after each step at which the score is read"
    add("--prm.placeholder_token", "--placeholder_token", **described("placeholder_token", token))
    added = "add the placeholder to the vocabulary where it is no token yet, and a row to the embeddings"
    add("--prm.add_placeholder_token", action="store_true", help=added)
    verdicts = {"nargs": 2, "metavar": ("POSITIVE", "NEGATIVE"), **described("reward_tokens", "the two verdicts")}
    add("--prm.reward_tokens", "--reward_tokens", **verdicts)
    add("--prm.step_separator", **described("step_separator", "text written after each step"))
    frozen = "frozen reference model; the model to start from if left out"
    add("--prm.reference", **described("reference", frozen))
    add("--prm.beta", type=float, **described("beta", "coefficient of the log-ratio"))
    more = "further options of the head's family as JSON, as `vllm-prm --family-options` takes them"
    add("--prm.options", default="{}", metavar="JSON", help=more)


def _add_data_flags(add) -> None:
    add("--data.dataset", "--dataset", required=True, help="JSONL or Parquet files (comma-separated), or data sets")
    add("--data.dataset_split", "--dataset_split", default="train", help="split of data sets that have several")
    known = "form of the rows; auto: what the first row looks like"
    add("--data.format", default="auto", choices=["auto", *ROW_FORMATS], help=known)
    add("--data.max_samples", "--max_samples", type=int, help="use the first N solutions only")
    add("--data.max_len", "--max_len", type=int, default=2048, help="tokens per solution; steps beyond are left out")
    add("--data.question_key", default="question", help="records: key of the question")
    add("--data.steps_key", default="steps", help="records: key of the list of steps")
    add("--data.input_key", "--input_key", default="input", help="openrlhf, math_shepherd: key of the text")
    add("--data.label_kind", default="hard", choices=["hard", "soft"], help="records: 0/1 labels, or probabilities")
    label = "key of the labels (None: hard_labels or soft_labels; trl labels; openrlhf label; outcomes correct)"
    add("--data.label_key", "--label_key", help=label)
    add("--data.apply_chat_template", action="store_true", help="write the question through the chat template")
    strict = "stop at a bad row, or one that loses labels beyond --data.max_len, instead of leaving them out"
    add("--data.strict", action="store_true", help=strict)
    add("--data.report", metavar="FILE", help="write every row that was left out or cut, with its line, as JSON")
    add("--eval.dataset", "--eval_dataset", help="like --data.dataset; evaluated during training")
    add("--eval.split", "--eval_split", default="train", help="split of data sets that have several")
    every = "updates between evaluations; -1: at the end of each epoch"
    add("--eval.steps", "--eval_steps", type=int, default=-1, help=every)
    add("--eval.output", metavar="FILE", help="write the evaluated solutions with their step scores as JSONL")


def _add_checkpoint_flags(add) -> None:
    add("--ckpt.output_dir", "--save_path", default="./ckpt/prm", help="Hugging Face checkpoint; must not exist yet")
    best = "save the weights that were best by this measure of --eval.dataset (None: the last ones)"
    add("--ckpt.best_metric_key", choices=METRICS, help=best)
    unfinished = "DeepSpeed checkpoints of an unfinished run"
    add("--ckpt.path", "--ckpt_path", default="./ckpt/checkpoints_prm", help=unfinished)
    every = "updates between DeepSpeed checkpoints; -1 for none"
    add("--ckpt.save_steps", "--save_steps", type=int, default=-1, help=every)
    resume = "go on from the last DeepSpeed checkpoint, if there is one"
    add("--ckpt.load_enable", "--load_checkpoint", action="store_true", help=resume)
    add("--ckpt.max_num", "--max_ckpt_num", type=int, default=3, help="DeepSpeed checkpoints kept")
    add("--ckpt.max_mem", "--max_ckpt_mem", type=int, default=int(1e8), help="GB of DeepSpeed checkpoints kept")


def _add_device_flags(add) -> None:
    add("--ds.zero_stage", "--zero_stage", type=int, default=2, help="0 to 3: what is spread over the devices")
    dtype = "data type of weights and computation; bf16 where it is not given, on CPU fp32"
    add("--ds.param_dtype", "--param_dtype", choices=["bf16", "fp16", "fp32"], help=dtype)
    add("--bf16", dest="ds.param_dtype", action="store_const", const="bf16", help="the same as --ds.param_dtype bf16")
    attention = "None: flash_attention_2 on CUDA, else sdpa"
    add("--ds.attn_implementation", "--attn_implementation", help=attention)
    flash = "the same as --ds.attn_implementation flash_attention_2"
    add("--flash_attn", dest="ds.attn_implementation", action="store_const", const="flash_attention_2", help=flash)
    add("--ds.adam_offload", "--adam_offload", action="store_true", help="keep the optimizer's state on the CPU")
    add("--ds.zpg", "--zpg", type=int, default=1, help="ZeRO++ max partition size")
    add("--ds.grad_accum_dtype", "--grad_accum_dtype", help="data type of accumulated gradients")
    add("--ds.overlap_comm", "--overlap_comm", action="store_true", help="communicate during the backward pass")
    packing = "forward passes without padding; without flash attention its cost grows with the batch's whole length"
    add("--ds.packing_samples", "--packing_samples", action="store_true", help=packing)
    add("--ds.tensor_parallel_size", "--ds_tensor_parallel_size", type=int, default=1)
    add("--ds.lora.rank", "--lora_rank", type=int, default=0, help="LoRA; 0 trains all weights")
    add("--ds.lora.alpha", "--lora_alpha", type=int, default=16)
    add("--ds.lora.dropout", "--lora_dropout", type=float, default=0.0)
    add("--ds.lora.target_modules", "--target_modules", nargs="*", default="all-linear")
    add("--local_rank", type=int, default=-1, help="set by the deepspeed launcher")


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = build_parser()
    args = nested(parser.parse_args(argv))
    try:
        check(args)
    except ValueError as error:
        parser.error(str(error))
    prepare_environment()
    if args.ds.param_dtype is None:
        args.ds.param_dtype = "fp32" if on_cpu() else "bf16"
    if args.ds.attn_implementation is None:
        args.ds.attn_implementation = "sdpa" if on_cpu() else "flash_attention_2"
    _single_process_defaults()
    try:
        # Imports torch and the host, which a wrong flag need not wait for.
        from openrlhf_prm.prm_training import run as prm_run

        try:
            summary = prm_run.train(args, prm_run.load(args))
        except prm_run.UserError as error:
            parser.error(str(error))
    except KeyboardInterrupt:
        again = "the same command with --ckpt.load_enable goes on from the last checkpoint"
        lost = "no checkpoint was asked for (--ckpt.save_steps)"
        print(f"train_prm: interrupted; {again if args.ckpt.save_steps > 0 else lost}", file=sys.stderr)
        return 130
    if int(os.environ["RANK"]) == 0:
        print(json.dumps(summary))
    return 0


def check(args: SimpleNamespace) -> None:
    """Raises ValueError naming the flag that is wrong, and fills in the head's flags; touches no model."""
    require_at_least_one(
        args,
        "train.batch_size",
        "train.micro_batch_size",
        "train.max_epochs",
        "data.max_len",
        "data.max_samples",
        "logger.logging_steps",
        "ds.tensor_parallel_size",
    )
    per_pass = args.train.micro_batch_size * int(os.environ.get("WORLD_SIZE", "1")) // args.ds.tensor_parallel_size
    if args.train.batch_size % per_pass:
        raise ValueError(
            f"--train.batch_size {args.train.batch_size} must be a multiple of {per_pass}, which is "
            "--train.micro_batch_size times the number of data-parallel devices"
        )
    if not (math.isfinite(args.adam.lr) and args.adam.lr > 0):
        raise ValueError(f"--adam.lr must be above 0, got {args.adam.lr}")
    if args.ds.lora.rank < 0:
        raise ValueError(f"--ds.lora.rank must be at least 0, got {args.ds.lora.rank}")
    if not 0 <= args.ds.lora.dropout < 1:
        raise ValueError(f"--ds.lora.dropout must be in [0, 1), got {args.ds.lora.dropout}")
    if args.prm.beta is not None and not (math.isfinite(args.prm.beta) and args.prm.beta > 0):
        raise ValueError(f"--prm.beta must be above 0, got {args.prm.beta}")
    args.prm.options = json_object("--prm.options", args.prm.options)
    resolve_flags(PRM_HEADS[args.prm.head], args.prm, HEAD_FLAGS)
    if args.data.apply_chat_template and not PRM_HEADS[args.prm.head].reads_chat_template:
        raise ValueError(
            f"--data.apply_chat_template is not read by --prm.head {args.prm.head}, which always uses the template"
        )
    output = Path(args.ckpt.output_dir)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"--ckpt.output_dir {output} already exists; remove it or choose another")
    if not args.eval.dataset:
        for flag, given in (("--eval.output", args.eval.output), ("--ckpt.best_metric_key", args.ckpt.best_metric_key)):
            if given:
                raise ValueError(f"{flag} needs --eval.dataset")
    # Last, because a model of the hub is looked up there.
    if args.prm.reference:
        require_checkpoint("--prm.reference", args.prm.reference)
    require_checkpoint("--model.model_name_or_path", args.model.model_name_or_path)


def _single_process_defaults() -> None:
    """What a launcher would set, for a run without one."""
    if "RANK" not in os.environ:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))


if __name__ == "__main__":
    sys.exit(main())
