"""One training of a process reward model, from its flags to the saved checkpoint."""

import json
import os
import shutil
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from openrlhf_prm.data.formats_in import ROW_FORMATS, RowKeys, with_format
from openrlhf_prm.prm_training.dataset import DataReport, StepLabelDataset, read_source, usable_rows
from openrlhf_prm.prm_training.heads import PRM_HEADS, PRMHead
from vllm_prm.durable_file import write_atomically


class UserError(ValueError):
    """A flag, a row, the tokenizer or the model is not usable; the message names it. Said to the user in one line."""


@dataclass(frozen=True)
class Loaded:
    """What a training starts from."""

    head: PRMHead
    tokenizer: Any
    train_data: StepLabelDataset
    eval_data: StepLabelDataset | None


def load(args: SimpleNamespace) -> Loaded:
    """Tokenizer, head and data. Raises UserError naming the flag, token, file or line."""
    from openrlhf.utils import get_tokenizer

    try:
        tokenizer = get_tokenizer(args.model.model_name_or_path, None, "right")
        head = PRM_HEADS[args.prm.head](args, tokenizer)
        train_data = _dataset(args, "--data.dataset", args.data.dataset, args.data.dataset_split, head, tokenizer)
        eval_data = None
        if args.eval.dataset:
            eval_data = _dataset(args, "--eval.dataset", args.eval.dataset, args.eval.split, head, tokenizer)
    except (ValueError, OSError) as error:
        raise UserError(" ".join(str(error).split())) from error
    if len(train_data) < args.train.batch_size:
        raise UserError(f"--train.batch_size {args.train.batch_size} is more than the {len(train_data)} solutions")
    if args.data.report and os.environ["RANK"] == "0":
        reports = {"--data.dataset": train_data.report}
        if eval_data is not None:
            reports["--eval.dataset"] = eval_data.report
        write_atomically(
            Path(args.data.report), json.dumps({flag: r.as_dict() for flag, r in reports.items()}, indent=2) + "\n"
        )
    return Loaded(head, tokenizer, train_data, eval_data)


def _dataset(args: SimpleNamespace, flag: str, source: str, split: str, head: PRMHead, tokenizer) -> StepLabelDataset:
    keys = RowKeys(
        question=args.data.question_key,
        steps=args.data.steps_key,
        label=args.data.label_key,
        input=args.data.input_key,
        outcome=head.outcome,
        soft=args.data.label_kind == "soft",
        **{
            name: getattr(args.prm, name)
            for name in ("placeholder_token", "reward_tokens")
            if getattr(args.prm, name) is not None
        },
    )
    training = flag == "--data.dataset"
    try:
        rows = read_source(source, split)
        form = args.data.format
        if form == "auto":
            form, rows = with_format(rows, keys)
        read = partial(ROW_FORMATS[form], keys=keys)
        limit = args.data.max_samples if training else None
        found, report = usable_rows(rows, read, strict=args.data.strict, max_samples=limit)
        data = StepLabelDataset(
            found,
            report,
            head.family,
            tokenizer.pad_token_id,
            args.data.max_len,
            outcome=head.outcome,
            strict=args.data.strict,
        )
    except ValueError as error:
        raise ValueError(f"{flag}: {error}") from None
    if os.environ["RANK"] == "0":
        print(f"{flag} ({form}): {data.report}", flush=True)
    return data


def train(args: SimpleNamespace, loaded: Loaded) -> dict:
    """Trains and saves; returns the summary. Raises UserError where a checkpoint of other data stands in its way."""
    import torch.distributed as dist
    from openrlhf.utils import get_strategy

    from openrlhf_prm.prm_training.model import add_lora, load_actor, read_record, save_prm
    from openrlhf_prm.prm_training.trainer import PRMTrainer, Progress, best_folder

    head, tokenizer = loaded.head, loaded.tokenizer
    strategy = get_strategy(args)
    strategy.setup_distributed()
    actor = load_actor(head.load, args.model.model_name_or_path, strategy, args)
    actor.model.config.pad_token_id = tokenizer.pad_token_id
    if len(tokenizer) > actor.model.config.vocab_size:
        actor.model.resize_token_embeddings(len(tokenizer))
    add_lora(actor, head, args.ds.lora)
    if args.model.gradient_checkpointing_enable:
        actor.gradient_checkpointing_enable()
    reference = None
    if head.reference() is not None:
        reference = strategy.prepare(load_actor(head.load, head.reference(), strategy, args)).eval()
    loader = partial(_loader, strategy, args.train.micro_batch_size)
    train_loader, eval_loader = loader(loaded.train_data, True), loader(loaded.eval_data, False)
    schedule = {
        "optim": "adam",
        "adam": vars(args.adam),
        "lr_scheduler": args.lr_scheduler,
        "lr_warmup_ratio": args.lr_warmup_ratio,
        "min_lr_ratio": args.min_lr_ratio,
        "max_norm": args.max_norm,
        "scheduler_steps": len(train_loader) * args.train.max_epochs // strategy.accumulated_gradient,
    }
    actor, optimizer, scheduler = strategy.prepare((actor, schedule))
    facts = _data_facts(args, loaded)
    progress = _resumed(args, strategy, actor, facts)
    if progress is None:
        progress = Progress(facts)
        if strategy.is_rank_0():
            shutil.rmtree(best_folder(args), ignore_errors=True)  # of another run
    writer = None
    if args.logger.tensorboard_dir and strategy.is_rank_0():
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(args.logger.tensorboard_dir)

    def write_evaluated(evaluated: dict) -> None:
        if args.eval.output and strategy.is_rank_0():
            write_atomically(Path(args.eval.output), _evaluated_lines(loaded.eval_data, evaluated))

    trainer = PRMTrainer(
        head,
        actor,
        strategy,
        optimizer,
        scheduler,
        train_loader,
        eval_loader,
        tokenizer=tokenizer,
        reference=reference,
        writer=writer,
        on_best=write_evaluated,
    )
    before, start = len(progress.losses), time.perf_counter()
    trainer.fit(args, progress)
    seconds = time.perf_counter() - start
    if eval_loader is not None and not trainer.evaluated:
        progress.metrics = trainer.evaluate("nothing left to train")
    if writer is not None:
        writer.close()
    # From rank 0, which moves the folder and may do so before another rank looks.
    found = [read_record(best_folder(args)) if args.ckpt.best_metric_key else None]
    dist.broadcast_object_list(found, src=0)
    [best] = found
    record = best or {"update": len(progress.losses), **progress.metrics}
    if best is None:
        save_prm(actor, tokenizer, strategy, args.ckpt.output_dir, head.declared(), record=record)
        write_evaluated(trainer.evaluated)
    elif strategy.is_rank_0():
        _move(best_folder(args), Path(args.ckpt.output_dir))
    dist.barrier()  # no rank ends before the checkpoint is there
    losses = progress.losses
    return {
        "head": head.name,
        "updates": len(losses) - before,
        "updates_in_all": len(losses),
        "seconds": round(seconds, 2),
        "first_loss": losses[0] if losses else None,
        "last_loss": losses[-1] if losses else None,
        "solutions": len(loaded.train_data),
        **_losses_of_data(loaded.train_data.report),
        "eval": progress.metrics,
        **({"best": best} if best else {}),
        "output_dir": args.ckpt.output_dir,
    }


def _loader(strategy, micro_batch_size: int, data: StepLabelDataset | None, training: bool):
    import torch

    if data is None:
        return None
    pin = torch.cuda.is_available()
    return strategy.setup_dataloader(data, micro_batch_size, pin, training, data.collate, drop_last=training)


def _data_facts(args: SimpleNamespace, loaded: Loaded) -> dict:
    """What decides which solutions an update sees."""
    return {
        "head": loaded.head.name,
        "solutions": len(loaded.train_data),
        "tokens": sum(len(item.token_ids) for item in loaded.train_data.items),
        "batch_size": args.train.batch_size,
        "micro_batch_size": args.train.micro_batch_size,
        "devices": int(os.environ["WORLD_SIZE"]),
        "seed": args.train.seed,
    }


def _resumed(args: SimpleNamespace, strategy, actor, data: dict):
    """The progress of the last DeepSpeed checkpoint, which is loaded; None where none is wanted, or there is none."""
    from openrlhf_prm.prm_training.trainer import Progress

    if not (args.ckpt.load_enable and Path(args.ckpt.path).exists()):
        return None
    place, states = strategy.load_ckpt(actor.model, args.ckpt.path)
    if place is None:
        return None
    progress = Progress(**states["prm"])
    if differing := [f"{k} {progress.data[k]} then, {v} now" for k, v in data.items() if progress.data[k] != v]:
        raise UserError(
            f"--ckpt.load_enable: {place} is of another run ({'; '.join(differing)}); give --ckpt.path another folder"
        )
    strategy.print(f"going on from {place}: {progress.consumed_samples} solutions seen")
    return progress


def _losses_of_data(report: DataReport) -> dict[str, int]:
    return {
        "bad_rows": len(report.bad_rows),
        "cut_rows": len(report.cut_rows),
        "dropped_steps": report.dropped_steps,
    }


def _evaluated_lines(data: StepLabelDataset, evaluated: dict) -> str:
    lines = []
    for row in sorted(evaluated):
        solution, result = data.solutions[row], evaluated[row]
        steps = solution.steps[: len(result.scores)]
        line = {"question": solution.question, "steps": steps, "labels": result.labels, "scores": result.scores}
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    return "".join(lines)


def _move(folder: Path, output: Path) -> None:
    if output.is_dir():
        output.rmdir()  # empty: checked before training
    folder.rename(output)
