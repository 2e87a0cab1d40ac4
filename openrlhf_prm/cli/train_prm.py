"""Trains a process reward model from step labels: `python -m openrlhf_prm.cli.train_prm`.

Runs as a plain process on one device, or on several under torchrun or `deepspeed --module openrlhf_prm.cli.train_prm`.
Flags and their meaning are OpenRLHF's (`openrlhf.cli.train_sft`) where it has them. The checkpoint declares its family
in config.json, so `vllm_prm` serves it as it is. The last line on stdout is a JSON summary.

Exit code 2: a flag, the tokenizer or a row is wrong; said in one line before training starts.
"""

import json
import os
import socket
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from openrlhf_prm.accelerator import on_cpu, prepare_environment
from openrlhf_prm.cli.flags import FlagParser, nested

LABEL_KEYS = {"hard": "hard_labels", "soft": "soft_labels"}


def build_parser() -> FlagParser:
    """The flags of this command."""
    parser = FlagParser(prog="train_prm", description="Train a process reward model on labelled steps.")
    add = parser.add_argument
    add("--model.model_name_or_path", required=True, help="causal LM to start from")
    add("--model.gradient_checkpointing_enable", action="store_true", help="recompute activations to save memory")
    add("--data.dataset", required=True, help="JSONL files (comma-separated) or datasets with one solution per row")
    add("--data.max_samples", type=int, help="use the first N solutions only")
    add("--data.max_len", type=int, default=2048, help="tokens per solution; steps beyond are left out")
    add("--data.question_key", default="question", help="key of the question")
    add("--data.steps_key", default="steps", help="key of the list of steps")
    add("--data.label_kind", default="hard", choices=list(LABEL_KEYS), help="0/1 labels, or probabilities")
    add("--data.label_key", help="key of the list of labels (None: hard_labels or soft_labels)")
    add("--data.apply_chat_template", action="store_true", help="write the question through the chat template")
    add("--data.strict", action="store_true", help="stop at a bad row instead of leaving it out")
    add("--eval.dataset", help="like --data.dataset; evaluated after every epoch")
    add("--prm.head", default="placeholder", choices=["placeholder"], help="how a score is read from the model")
    add("--prm.placeholder_token", default="<step>", help="token after each step at which the score is read")
    added = "add the placeholder to the vocabulary where it is no token yet, and a row to the embeddings"
    add("--prm.add_placeholder_token", action="store_true", help=added)
    add("--prm.reward_tokens", nargs=2, default=["+", "-"], metavar=("POSITIVE", "NEGATIVE"), help="the two verdicts")
    add("--prm.step_separator", default="\n", help="text written after each step")
    add("--train.batch_size", type=int, default=128, help="solutions per update, over all devices")
    add("--train.micro_batch_size", type=int, default=8, help="solutions per device and forward pass")
    add("--train.max_epochs", type=int, default=1)
    add("--train.seed", type=int, default=42)
    add("--train.full_determinism_enable", action="store_true", help="reproducible kernels, slower")
    add("--adam.lr", type=float, default=1e-6)
    add("--adam.betas", type=float, nargs=2, default=(0.9, 0.95))
    add("--adam.eps", type=float, default=1e-8)
    add("--adam.weight_decay", type=float, default=0.0)
    add("--lr_scheduler", default="cosine_with_min_lr")
    add("--lr_warmup_ratio", type=float, default=0.03)
    add("--min_lr_ratio", type=float, default=0.1)
    add("--max_norm", type=float, default=1.0, help="gradient clipping")
    add("--ckpt.output_dir", default="./ckpt/prm", help="Hugging Face checkpoint; must not exist yet")
    add("--ckpt.path", default="./ckpt/checkpoints_prm", help="DeepSpeed checkpoints of an unfinished run")
    add("--ckpt.save_steps", type=int, default=-1, help="updates between DeepSpeed checkpoints; -1 for none")
    add("--ckpt.load_enable", action="store_true", help="go on from the last DeepSpeed checkpoint, if there is one")
    add("--ckpt.max_num", type=int, default=3, help="DeepSpeed checkpoints kept")
    add("--ckpt.max_mem", type=int, default=int(1e8), help="GB of DeepSpeed checkpoints kept")
    add("--ds.zero_stage", type=int, default=2)
    add("--ds.param_dtype", default="bf16", choices=["bf16", "fp16"], help="data type of weights and computation")
    attention = "None: flash_attention_2 on CUDA, else sdpa"
    add("--ds.attn_implementation", help=attention)
    add("--ds.adam_offload", action="store_true")
    add("--ds.zpg", type=int, default=1, help="ZeRO++ max partition size")
    add("--ds.grad_accum_dtype")
    add("--ds.overlap_comm", action="store_true")
    add("--ds.packing_samples", action="store_true", help="no padding in the forward pass; needs flash attention")
    add("--ds.tensor_parallel_size", type=int, default=1)
    add("--logger.tensorboard_dir", help="folder for TensorBoard")
    add("--local_rank", type=int, default=-1, help="set by the deepspeed launcher")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = build_parser()
    args = nested(parser.parse_args(argv))
    try:
        check(args)
    except ValueError as error:
        parser.error(str(error))
    prepare_environment()
    if args.ds.attn_implementation is None:
        args.ds.attn_implementation = "sdpa" if on_cpu() else "flash_attention_2"
    _single_process_defaults()
    try:
        family, tokenizer, train_data, eval_data = load(args)
    except ValueError as error:
        parser.error(str(error))
    summary = train(args, family, tokenizer, train_data, eval_data)
    if int(os.environ["RANK"]) == 0:
        print(json.dumps(summary))
    return 0


def check(args: SimpleNamespace) -> None:
    """Raises ValueError naming the flag that is wrong; touches no model."""
    at_least_one = {
        "--train.batch_size": args.train.batch_size,
        "--train.micro_batch_size": args.train.micro_batch_size,
        "--train.max_epochs": args.train.max_epochs,
        "--data.max_len": args.data.max_len,
        "--data.max_samples": args.data.max_samples,
    }
    for flag, value in at_least_one.items():
        if value is not None and value < 1:
            raise ValueError(f"{flag} must be at least 1, got {value}")
    per_pass = args.train.micro_batch_size * int(os.environ.get("WORLD_SIZE", "1")) // args.ds.tensor_parallel_size
    if args.train.batch_size % per_pass:
        raise ValueError(
            f"--train.batch_size {args.train.batch_size} must be a multiple of {per_pass}, which is "
            "--train.micro_batch_size times the number of data-parallel devices"
        )
    if args.adam.lr <= 0:
        raise ValueError(f"--adam.lr must be above 0, got {args.adam.lr}")
    model = args.model.model_name_or_path
    if (model.startswith((".", "/")) or Path(model).exists()) and not (Path(model) / "config.json").is_file():
        raise ValueError(f"--model.model_name_or_path: no checkpoint (config.json) in {model}")
    output = Path(args.ckpt.output_dir)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"--ckpt.output_dir {output} already exists; remove it or choose another")
    if args.ds.packing_samples and args.ds.attn_implementation not in (None, "flash_attention_2", "flash_attention_3"):
        raise ValueError("--ds.packing_samples needs --ds.attn_implementation flash_attention_2")
    args.data.label_key = args.data.label_key or LABEL_KEYS[args.data.label_kind]


def load(args: SimpleNamespace):
    """Family, tokenizer, training data, evaluation data or None. Raises ValueError naming the flag, token, file or
    line."""
    from openrlhf.utils import get_tokenizer

    from openrlhf_prm.trainers.prm_data import StepLabelDataset, read_source, usable_rows
    from vllm_prm.families.placeholder import PlaceholderFamily

    tokenizer = get_tokenizer(args.model.model_name_or_path, None, "right")
    if (
        args.prm.add_placeholder_token
        and len(tokenizer.encode(args.prm.placeholder_token, add_special_tokens=False)) != 1
    ):
        tokenizer.add_tokens(args.prm.placeholder_token, special_tokens=True)
    family = PlaceholderFamily(
        tokenizer,
        placeholder_token=args.prm.placeholder_token,
        reward_tokens=args.prm.reward_tokens,
        step_separator=args.prm.step_separator,
        chat_template=args.data.apply_chat_template,
        path=args.model.model_name_or_path,
    )

    def dataset(flag: str, source: str, max_samples: int | None) -> StepLabelDataset:
        keys = {key: getattr(args.data, key) for key in ("question_key", "steps_key", "label_key")}
        try:
            rows, report = usable_rows(read_source(source), **keys, strict=args.data.strict, max_samples=max_samples)
            data = StepLabelDataset(rows, report, family, tokenizer.pad_token_id, args.data.max_len)
        except ValueError as error:
            raise ValueError(f"{flag}: {error}") from None
        if os.environ["RANK"] == "0":
            print(f"{flag}: {data.report}", flush=True)
        return data

    train_data = dataset("--data.dataset", args.data.dataset, args.data.max_samples)
    if len(train_data) < args.train.batch_size:
        raise ValueError(f"--train.batch_size {args.train.batch_size} is more than the {len(train_data)} solutions")
    return (
        family,
        tokenizer,
        train_data,
        dataset("--eval.dataset", args.eval.dataset, None) if args.eval.dataset else None,
    )


def train(args: SimpleNamespace, family, tokenizer, train_data, eval_data) -> dict:
    """Trains and saves; returns the summary."""
    from openrlhf.models import Actor
    from openrlhf.utils import get_strategy

    from openrlhf_prm.trainers.prm import PRMTrainer, save_prm

    strategy = get_strategy(args)
    strategy.setup_distributed()
    actor = Actor(
        args.model.model_name_or_path,
        attn_implementation=args.ds.attn_implementation,
        param_dtype=args.ds.param_dtype,
        ds_config=strategy.get_ds_train_config(),
        packing_samples=args.ds.packing_samples,
    )
    actor.model.config.pad_token_id = tokenizer.pad_token_id
    if len(tokenizer) > actor.model.config.vocab_size:
        actor.model.resize_token_embeddings(len(tokenizer))
    if args.model.gradient_checkpointing_enable:
        actor.gradient_checkpointing_enable()
    size = args.train.micro_batch_size
    pin = not on_cpu()
    train_loader = strategy.setup_dataloader(train_data, size, pin, True, train_data.collate)
    eval_loader = None
    if eval_data is not None:
        eval_loader = strategy.setup_dataloader(eval_data, size, pin, False, eval_data.collate, drop_last=False)
    updates = len(train_loader) * args.train.max_epochs // strategy.accumulated_gradient
    schedule = {
        "optim": "adam",
        "adam": vars(args.adam),
        "lr_scheduler": args.lr_scheduler,
        "lr_warmup_ratio": args.lr_warmup_ratio,
        "min_lr_ratio": args.min_lr_ratio,
        "max_norm": args.max_norm,
        "scheduler_steps": updates,
    }
    actor, optimizer, scheduler = strategy.prepare((actor, schedule))
    consumed = 0
    if args.ckpt.load_enable and Path(args.ckpt.path).exists():
        place, states = strategy.load_ckpt(actor.model, args.ckpt.path)
        if place is not None:
            consumed = states["consumed_samples"]
            strategy.print(f"going on from {place}: {consumed} solutions seen")
    writer = None
    if args.logger.tensorboard_dir and strategy.is_rank_0():
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(args.logger.tensorboard_dir)
    tokens = family.reward_token_ids
    trainer = PRMTrainer(actor, strategy, optimizer, scheduler, train_loader, eval_loader, tokens, writer)
    start = time.perf_counter()
    metrics = trainer.fit(args, consumed)
    seconds = time.perf_counter() - start
    if writer is not None:
        writer.close()
    declared = {
        "family": "placeholder",
        "placeholder_token": args.prm.placeholder_token,
        "reward_tokens": list(args.prm.reward_tokens),
        "step_separator": args.prm.step_separator,
        **({"chat_template": True} if args.data.apply_chat_template else {}),
    }
    save_prm(actor, tokenizer, strategy, args.ckpt.output_dir, declared)
    losses = trainer.losses
    return {
        "updates": len(losses),
        "seconds": round(seconds, 2),
        "first_loss": losses[0] if losses else None,
        "last_loss": losses[-1] if losses else None,
        "solutions": len(train_data),
        "bad_rows": len(train_data.report.bad_rows),
        "dropped_steps": train_data.report.dropped_steps,
        "eval": metrics,
        "output_dir": args.ckpt.output_dir,
    }


def _single_process_defaults() -> None:
    """What a launcher would set, for a run without one."""
    if "RANK" not in os.environ:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))


if __name__ == "__main__":
    sys.exit(main())
