"""Trains a process reward model from labelled solutions: `python -m openrlhf_prm.cli.train_prm`.

Runs as a plain process on one device, or on several under torchrun or `deepspeed --module openrlhf_prm.cli.train_prm`.
Flags and their meaning are OpenRLHF's (`openrlhf.cli.train_sft`) where it has them; the names they had in OpenRLHF
<= 0.9.5's `train_prm` are understood, too. The checkpoint declares its family in config.json, so `vllm_prm` serves it
as it is. The last line on stdout is a JSON summary.

Exit code 2: a flag, the tokenizer or a row is wrong; said in one line before training starts, once per node. 130:
interrupted.
"""

import json
import math
import os
import sys
from pathlib import Path
from types import SimpleNamespace

from openrlhf_prm.cli.launched import LaunchedParser, speaks
from openrlhf_prm.cli.parser import nested, told_of_disks
from openrlhf_prm.cluster.accelerator import prepare_environment
from openrlhf_prm.cluster.checks import require_at_least_one, require_checkpoint
from openrlhf_prm.cluster.dry_run import add_dry_run_flags, asked_for
from openrlhf_prm.hosts import require_flash_attn, require_openrlhf
from openrlhf_prm.measures.agreement import METRICS
from openrlhf_prm.options import add_flags
from openrlhf_prm.prm_training import dry_run as prm_dry_run
from openrlhf_prm.prm_training.heads import PRM_HEADS
from openrlhf_prm.prm_training.training_options import (
    DataOptions,
    EvaluationOptions,
    HeadChoice,
    TrainingOptions,
    read_options,
)
from vllm_prm.interrupts import end_as_after_ctrl_c


def build_parser() -> LaunchedParser:
    """The flags of this command."""
    parser = LaunchedParser(prog="train_prm", description="Train a process reward model on labelled solutions.")
    _add_model_flags(parser.add_argument)
    add_flags(parser, "prm", HeadChoice)
    add_flags(parser, "prm", {name: head.Options for name, head in PRM_HEADS.items()})
    add_flags(parser, "data", DataOptions)
    add_flags(parser, "eval", EvaluationOptions)
    _add_training_flags(parser.add_argument)
    _add_checkpoint_flags(parser.add_argument)
    _add_device_flags(parser.add_argument)
    add_dry_run_flags(parser)
    return parser


# The flags below have OpenRLHF's names, under which its classes read them.


def _add_model_flags(add) -> None:
    add("--model.model_name_or_path", "--pretrain", required=True, help="causal LM, or a PRM, to start from")
    checkpointing = {"dest": "model.gradient_checkpointing_enable", "default": None}
    on = "recompute activations to save memory; the default on GPUs"
    add(
        "--model.gradient_checkpointing_enable",
        "--gradient_checkpointing",
        action="store_true",
        help=on,
        **checkpointing,
    )
    off = "keep activations, a third faster for ten times their memory; the default on CPUs"
    add("--model.no_gradient_checkpointing", action="store_false", help=off, **checkpointing)


def _add_training_flags(add) -> None:
    add("--train.batch_size", "--train_batch_size", type=int, default=128, help="solutions per update, all devices")
    per_device = "solutions per device and forward pass; default: 4, on CPUs 8, or the power of two below that divides"
    add("--train.micro_batch_size", "--micro_train_batch_size", type=int, help=per_device)
    add("--train.max_epochs", "--max_epochs", type=int, default=1, help="times all solutions are seen")
    add("--train.seed", "--seed", type=int, default=42, help="of the data's order, new weights and dropout")
    kernels = "reproducible kernels, slower"
    add("--train.full_determinism_enable", "--full_determinism", action="store_true", help=kernels)
    add("--adam.lr", "--learning_rate", type=float, help=_rate_help())
    moments = "decay of the means of gradients and of their squares"
    add("--adam.betas", "--adam_betas", type=float, nargs=2, default=(0.9, 0.95), help=moments)
    add("--adam.eps", type=float, default=1e-8, help="added to the root of the mean square before dividing by it")
    decay = "share of every weight that an update of learning rate 1 takes away"
    add("--adam.weight_decay", "--l2", type=float, default=0.0, help=decay)
    add("--lr_scheduler", default="cosine_with_min_lr", help="a name of transformers' get_scheduler")
    add("--lr_warmup_ratio", type=float, default=0.03, help="share of the updates over which the rate rises")
    add("--min_lr_ratio", type=float, default=0.1, help="lowest learning rate, as a share of the highest")
    add("--max_norm", type=float, default=1.0, help="longer gradients are clipped to this norm")
    add("--logger.tensorboard_dir", "--use_tensorboard", help="folder for TensorBoard")
    add("--logger.logging_steps", "--logging_steps", type=int, default=1, help="updates between TensorBoard's points")


def _rate_help() -> str:
    by_rate: dict[float, list[str]] = {}
    for name, head in PRM_HEADS.items():
        by_rate.setdefault(head.rate, []).append(name)
    rates = ", ".join(f"{rate:g} ({', '.join(names)})" for rate, names in by_rate.items())
    return f"highest learning rate; default: {rates} x 4096 / the model's hidden size, 10 times that with LoRA"


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
    stage = "0 to 3: what is spread over the devices; default: 2, on GPUs 3 where the model would not fit in 2"
    add("--ds.zero_stage", "--zero_stage", type=int, choices=range(4), metavar="{0,1,2,3}", help=stage)
    dtype = "data type of weights and computation; bf16 where it is not given, on CPU fp32"
    add("--ds.param_dtype", "--param_dtype", choices=["bf16", "fp16", "fp32"], help=dtype)
    add("--bf16", dest="ds.param_dtype", action="store_const", const="bf16", help="the same as --ds.param_dtype bf16")
    attention = "None: flash_attention_2 on CUDA where flash-attn is installed, else sdpa"
    add("--ds.attn_implementation", "--attn_implementation", help=attention)
    flash = "the same as --ds.attn_implementation flash_attention_2"
    add("--flash_attn", dest="ds.attn_implementation", action="store_const", const="flash_attention_2", help=flash)
    offload = {"dest": "ds.adam_offload", "default": None}
    on = "keep the optimizer's state on the CPU; the default on GPUs where the model fits in no other way"
    add("--ds.adam_offload", "--adam_offload", action="store_true", help=on, **offload)
    add("--ds.no_adam_offload", action="store_false", help="keep the optimizer's state on the device", **offload)
    add(
        "--ds.zpg",
        "--zpg",
        type=int,
        default=1,
        help="ZeRO++: devices that hold a whole copy of the weights together; 1 is off",
    )
    add("--ds.grad_accum_dtype", "--grad_accum_dtype", help="data type of accumulated gradients")
    add("--ds.overlap_comm", "--overlap_comm", action="store_true", help="communicate during the backward pass")
    packing = "forward passes without padding; without flash attention its cost grows with the batch's whole length"
    add("--ds.packing_samples", "--packing_samples", action="store_true", help=packing)
    tensor_parallel = "devices that share every layer; bf16 only"
    add("--ds.tensor_parallel_size", "--ds_tensor_parallel_size", type=int, default=1, help=tensor_parallel)
    add("--ds.lora.rank", "--lora_rank", type=int, default=0, help="rank of LoRA's updates; 0 trains all weights")
    add("--ds.lora.alpha", "--lora_alpha", type=int, default=16, help="LoRA: updates are scaled by alpha / rank")
    add("--ds.lora.dropout", "--lora_dropout", type=float, default=0.0, help="LoRA: dropout before the updates")
    targets = "LoRA: names of the layers that it updates"
    add("--ds.lora.target_modules", "--target_modules", nargs="*", default="all-linear", help=targets)
    add("--local_rank", type=int, default=-1, help="set by the deepspeed launcher")


@told_of_disks("train_prm")
def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    end_as_after_ctrl_c()
    parser = build_parser()
    args = nested(parser.parse_args(argv))
    try:
        dry = asked_for(args)
        if dry:
            prm_dry_run.assume_devices(args)
        options = check(args)
        if dry:
            prm_dry_run.dry_run(args, options)
            return 0
    except ValueError as error:
        parser.error(str(error))
    prepare_environment()
    _single_process_defaults()
    try:
        require_flash_attn(options.host.ds.attn_implementation)
    except ValueError as error:
        parser.error(str(error))
    try:
        # Imports torch and the host, which a wrong flag need not wait for.
        from openrlhf_prm.cluster.checkpoints import CheckpointError
        from openrlhf_prm.cluster.guarded_strategy import NotFinite
        from openrlhf_prm.prm_training import run as prm_run

        try:
            summary = prm_run.run(options)
        except prm_run.UserError as error:
            parser.error(str(error))
        except (NotFinite, CheckpointError) as error:
            print(f"{parser.prog}: error: {error}", file=sys.stderr)
            return 1
    except KeyboardInterrupt:
        again = "the same command with --ckpt.load_enable goes on from the last checkpoint"
        lost = "no checkpoint was asked for (--ckpt.save_steps)"
        if speaks():
            print(f"train_prm: interrupted; {again if args.ckpt.save_steps > 0 else lost}", file=sys.stderr)
        return 130
    if int(os.environ["RANK"]) == 0:
        print(json.dumps(summary))
    return 0


def check(args: SimpleNamespace) -> TrainingOptions:
    """What the nested flags ask for. Raises ValueError naming the flag, or the package, that is wrong; touches no
    model.
    """
    require_openrlhf()
    counts = ("train.batch_size", "train.micro_batch_size", "train.max_epochs", "logger.logging_steps")
    require_at_least_one(args, *counts, "ds.tensor_parallel_size")
    devices = int(os.environ.get("WORLD_SIZE", "1")) // args.ds.tensor_parallel_size
    per_pass = (args.train.micro_batch_size or 1) * devices
    if args.train.batch_size % per_pass:
        raise ValueError(
            f"--train.batch_size {args.train.batch_size} must be a multiple of {per_pass}, which is "
            "--train.micro_batch_size times the number of data-parallel devices"
        )
    if args.adam.lr is not None and not (math.isfinite(args.adam.lr) and args.adam.lr > 0):
        raise ValueError(f"--adam.lr must be above 0, got {args.adam.lr}")
    if args.ds.lora.rank < 0:
        raise ValueError(f"--ds.lora.rank must be at least 0, got {args.ds.lora.rank}")
    if not 0 <= args.ds.lora.dropout < 1:
        raise ValueError(f"--ds.lora.dropout must be in [0, 1), got {args.ds.lora.dropout}")
    options = read_options(args)
    output = Path(args.ckpt.output_dir)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"--ckpt.output_dir {output} already exists; remove it or choose another")
    if args.ckpt.best_metric_key and not options.evaluation.dataset:
        raise ValueError("--ckpt.best_metric_key needs --eval.dataset")
    # Last, because a model of the hub is looked up there.
    if args.prm.reference:
        require_checkpoint("--prm.reference", args.prm.reference)
    require_checkpoint("--model.model_name_or_path", args.model.model_name_or_path)
    return options


def _single_process_defaults() -> None:
    """What a launcher would set, for a run without one. PyTorch's store takes a free port of its own for port 0; nobody
    else needs to find it."""
    if "RANK" not in os.environ:
        os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")


if __name__ == "__main__":
    sys.exit(main())
