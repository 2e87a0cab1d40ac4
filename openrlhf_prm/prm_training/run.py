"""One training of a process reward model, from its options to the saved checkpoint."""

import json
import os
import shutil
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from openrlhf_prm.cluster.checkpoints import CheckpointError
from openrlhf_prm.data.formats_in import ROW_FORMATS, with_format
from openrlhf_prm.prm_training.dataset import DataReport, StepLabelDataset, read_source, usable_rows
from openrlhf_prm.prm_training.heads import PRMHead
from openrlhf_prm.prm_training.open_flags import fill_in
from openrlhf_prm.prm_training.rendered import once_per_node
from openrlhf_prm.prm_training.training_options import TrainingOptions
from vllm_prm.durable_file import write_atomically


class UserError(ValueError):
    """A flag, a row, the tokenizer or the model is not usable; the message names it. Said to the user in one line."""


@dataclass(frozen=True)
class TrainingInputs:
    """What a training starts from."""

    head: PRMHead
    tokenizer: Any
    train_data: StepLabelDataset
    eval_data: StepLabelDataset | None


@dataclass(frozen=True)
class PreparedModels:
    """What is trained, as the strategy prepared it, and the frozen model that the head compares it with, or None."""

    actor: Any
    optimizer: Any
    scheduler: Any
    reference: Any


def run(options: TrainingOptions) -> dict:
    """Loads, trains and saves; returns the summary. Raises UserError naming the flag, token, file or line."""
    from openrlhf.utils import get_strategy

    from openrlhf_prm.cluster import guarded_strategy

    guarded_strategy.install()
    try:
        filled = fill_in(options)
    except (ValueError, OSError) as error:
        raise UserError(" ".join(str(error).split())) from error
    if filled and os.environ["RANK"] == "0":
        print("flags left open:", *(f"{flag} {value}" for flag, value in filled.items()), flush=True)
    strategy = get_strategy(options.host)
    if os.environ["WORLD_SIZE"] == "1":
        inputs = load(options)  # first, so that a wrong row is said before DeepSpeed says anything
        strategy.setup_distributed()
    else:
        strategy.setup_distributed()  # first, because one process of each node loads for the others
        inputs = load(options)
    return train(options, inputs, strategy)


def load(options: TrainingOptions) -> TrainingInputs:
    """Tokenizer, head and data. Raises UserError naming the flag, token, file or line."""
    from openrlhf.utils import get_tokenizer

    data = options.data
    try:
        tokenizer = get_tokenizer(options.host.model.model_name_or_path, None, "right")
        head = options.head(
            options.head_options,
            options.host.model.model_name_or_path,
            tokenizer,
            chat_template=data.apply_chat_template,
            add_placeholder_token=options.add_placeholder_token,
            family_options=options.family_options,
        )
        datasets = once_per_node(
            partial(_datasets, options, head, tokenizer),
            lambda datasets, folder: [dataset.save(folder / name) for name, dataset in datasets.items()],
            lambda folder: {
                each.name: StepLabelDataset.mapped(each, tokenizer.pad_token_id) for each in folder.iterdir()
            },
            local_rank=int(os.environ["LOCAL_RANK"]),
        )
    except (ValueError, OSError) as error:
        raise UserError(" ".join(str(error).split())) from error
    batch_size, solutions = options.host.train.batch_size, len(datasets["data"])
    if solutions < batch_size:
        advice = "lower it; several updates an epoch are better than one"
        raise UserError(f"--train.batch_size {batch_size} is more than the {solutions} solutions: {advice}")
    if data.report and os.environ["RANK"] == "0":
        reports = {f"--{name}.dataset": dataset.report.as_dict() for name, dataset in datasets.items()}
        write_atomically(data.report, json.dumps(reports, indent=2) + "\n")
    return TrainingInputs(head, tokenizer, datasets["data"], datasets.get("eval"))


def _datasets(options: TrainingOptions, head: PRMHead, tokenizer) -> dict[str, StepLabelDataset]:
    """`data` and, where one is given, `eval`: the groups of flags that describe them."""
    data, evaluation = options.data, options.evaluation
    read = partial(_dataset, options, head, tokenizer)
    datasets = {"data": read("--data.dataset", data.dataset, data.dataset_split, data.max_samples)}
    if evaluation.dataset:
        datasets["eval"] = read("--eval.dataset", evaluation.dataset, evaluation.split, None)
    return datasets


def _dataset(
    options: TrainingOptions, head: PRMHead, tokenizer, flag: str, source: str, split: str, max_samples: int | None
) -> StepLabelDataset:
    data, keys = options.data, options.data.keys(head)
    try:
        rows = read_source(source, split)
        form = data.format
        if form == "auto":
            form, rows = with_format(rows, keys)
        read = partial(ROW_FORMATS[form], keys=keys)
        usable, report = usable_rows(rows, read, strict=data.strict, max_samples=max_samples)
        dataset = StepLabelDataset(
            usable,
            report,
            head.family,
            tokenizer.pad_token_id,
            data.max_len,
            outcome=head.outcome,
            strict=data.strict,
        )
    except ValueError as error:
        raise ValueError(f"{flag}: {error}") from None
    if os.environ["RANK"] == "0":
        print(f"{flag} ({form}): {dataset.report}", flush=True)
    return dataset


def train(options: TrainingOptions, inputs: TrainingInputs, strategy) -> dict:
    """Trains and saves; returns the summary. Raises UserError where a checkpoint of other data stands in its way."""
    from openrlhf_prm.prm_training.trainer import PRMTrainer

    host = options.host
    loader = partial(_loader, strategy, host.train.micro_batch_size)
    train_loader, eval_loader = loader(inputs.train_data, True), loader(inputs.eval_data, False)
    updates = len(train_loader) * host.train.max_epochs // strategy.accumulated_gradient
    models = _prepared(options, inputs, strategy, updates)
    state = _state(options, inputs, strategy, models.actor)
    writer = _tensorboard(host, strategy)

    def write_evaluated(evaluated: dict) -> None:
        if options.evaluation.output and strategy.is_rank_0():
            write_atomically(options.evaluation.output, _evaluated_lines(inputs.eval_data, evaluated))

    trainer = PRMTrainer(
        inputs.head,
        models.actor,
        strategy,
        models.optimizer,
        models.scheduler,
        train_loader,
        eval_loader,
        plan=_plan(options),
        tokenizer=inputs.tokenizer,
        reference=models.reference,
        writer=writer,
        on_best=write_evaluated,
    )
    before, start = len(state.losses), time.perf_counter()
    trainer.fit(state)
    seconds = time.perf_counter() - start
    if eval_loader is not None and not trainer.evaluated:
        state.metrics = trainer.evaluate("nothing left to train")
    if writer is not None:
        writer.close()
    best = _saved(options, inputs, strategy, models.actor, state)
    if best is None:
        write_evaluated(trainer.evaluated)
    return _summary(options, inputs, state, best, len(state.losses) - before, seconds)


def _prepared(options: TrainingOptions, inputs: TrainingInputs, strategy, updates: int) -> PreparedModels:
    from openrlhf_prm.prm_training.model import add_lora, load_actor

    head, host = inputs.head, options.host
    vocabulary = {"vocabulary": len(inputs.tokenizer), "added_token_id": head.added_token_id}
    actor = load_actor(head.load, host.model.model_name_or_path, strategy, host, **vocabulary)
    actor.model.config.pad_token_id = inputs.tokenizer.pad_token_id
    add_lora(actor, head, host.ds.lora)
    if host.model.gradient_checkpointing_enable:
        actor.gradient_checkpointing_enable()
    reference = None
    if head.reference() is not None:
        reference = strategy.prepare(load_actor(head.load, head.reference(), strategy, host)).eval()
    schedule = {
        "optim": "adam",
        "adam": vars(host.adam),
        "lr_scheduler": host.lr_scheduler,
        "lr_warmup_ratio": host.lr_warmup_ratio,
        "min_lr_ratio": host.min_lr_ratio,
        "max_norm": host.max_norm,
        "scheduler_steps": updates,
    }
    return PreparedModels(*strategy.prepare((actor, schedule)), reference)


def _plan(options: TrainingOptions):
    from openrlhf_prm.prm_training.trainer import TrainingPlan

    host = options.host
    return TrainingPlan(
        batch_size=host.train.batch_size,
        max_epochs=host.train.max_epochs,
        seed=host.train.seed,
        eval_steps=options.evaluation.steps,
        logging_steps=host.logger.logging_steps,
        save_steps=host.ckpt.save_steps,
        checkpoints=host.ckpt.path,
        max_checkpoints=host.ckpt.max_num,
        max_checkpoint_gb=host.ckpt.max_mem,
        best_metric=host.ckpt.best_metric_key,
        output_dir=Path(host.ckpt.output_dir),
    )


def _loader(strategy, micro_batch_size: int, data: StepLabelDataset | None, training: bool):
    import torch

    if data is None:
        return None
    pin = torch.cuda.is_available()
    return strategy.setup_dataloader(data, micro_batch_size, pin, training, data.collate, drop_last=training)


def _tensorboard(host: SimpleNamespace, strategy):
    if not (host.logger.tensorboard_dir and strategy.is_rank_0()):
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(host.logger.tensorboard_dir)


def _state(options: TrainingOptions, inputs: TrainingInputs, strategy, actor):
    """Where the training begins: at the last DeepSpeed checkpoint, which is loaded, where one is wanted and there."""
    from openrlhf_prm.prm_training.trainer import TrainingState, best_folder

    ckpt, facts = options.host.ckpt, _data_facts(options, inputs)
    place = None
    if ckpt.load_enable and Path(ckpt.path).exists():
        try:
            place, states = strategy.load_ckpt(actor.model, ckpt.path)
        except CheckpointError as error:
            raise UserError(str(error)) from error
    if place is None:
        if strategy.is_rank_0():
            shutil.rmtree(best_folder(Path(ckpt.output_dir)), ignore_errors=True)  # of another run
        return TrainingState(facts)
    state = TrainingState(**states["prm"])
    if differing := [f"{k} {state.data[k]} then, {v} now" for k, v in facts.items() if state.data[k] != v]:
        raise UserError(
            f"--ckpt.load_enable: {place} is of another run ({'; '.join(differing)}); give --ckpt.path another folder"
        )
    strategy.print(f"going on from {place}: {state.consumed_samples} solutions seen")
    return state


def _data_facts(options: TrainingOptions, inputs: TrainingInputs) -> dict:
    """What decides which solutions an update sees."""
    training = options.host.train
    return {
        "head": inputs.head.name,
        "solutions": len(inputs.train_data),
        "tokens": inputs.train_data.rendered.tokens,
        "batch_size": training.batch_size,
        "micro_batch_size": training.micro_batch_size,
        "devices": int(os.environ["WORLD_SIZE"]),
        "seed": training.seed,
    }


def _saved(options: TrainingOptions, inputs: TrainingInputs, strategy, actor, state) -> dict | None:
    """Puts the result under `--ckpt.output_dir`: the best weights where they were kept, else the last ones. Returns
    update and metrics of the best ones, or None."""
    import torch.distributed as dist

    from openrlhf_prm.prm_training.model import read_record, save_prm
    from openrlhf_prm.prm_training.trainer import best_folder

    ckpt = options.host.ckpt
    output = Path(ckpt.output_dir)
    # From rank 0, which moves the folder and may do so before another rank looks.
    records = [read_record(best_folder(output)) if ckpt.best_metric_key else None]
    dist.broadcast_object_list(records, src=0)
    [best] = records
    if best is None:
        record = {"update": len(state.losses), **state.metrics}
        save_prm(actor, inputs.tokenizer, strategy, output, inputs.head.declared(), record=record)
    elif strategy.is_rank_0():
        if output.is_dir():
            output.rmdir()  # empty: checked before training
        best_folder(output).rename(output)
    dist.barrier()  # no rank ends before the checkpoint is there
    return best


def _summary(
    options: TrainingOptions, inputs: TrainingInputs, state, best: dict | None, updates: int, seconds: float
) -> dict:
    losses = state.losses
    return {
        "head": inputs.head.name,
        "updates": updates,
        "updates_in_all": len(losses),
        "seconds": round(seconds, 2),
        "first_loss": losses[0] if losses else None,
        "last_loss": losses[-1] if losses else None,
        "solutions": len(inputs.train_data),
        **_losses_of_data(inputs.train_data.report),
        "eval": state.metrics,
        **({"best": best} if best else {}),
        "output_dir": options.host.ckpt.output_dir,
    }


def _losses_of_data(report: DataReport) -> dict[str, int]:
    return {
        "bad_rows": len(report.bad_rows),
        "cut_rows": len(report.cut_rows),
        "dropped_steps": report.dropped_steps,
    }


def _evaluated_lines(data: StepLabelDataset, evaluated: dict) -> str:
    """A step without a label has neither label nor score: null."""
    lines = []
    for row in sorted(evaluated):
        solution, result = data.solutions[row], evaluated[row]
        labels, scores, places = result.labels, result.scores, list(range(len(result.scores)))
        if len(labels) == len(scores):  # else there is one label, for all of them
            places = [place for place, target in enumerate(solution.targets) if target is not None][: len(scores)]
            labels = _spread(labels, places)
        steps = solution.steps[: places[-1] + 1]
        line = {"question": solution.question, "steps": steps, "labels": labels, "scores": _spread(scores, places)}
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    return "".join(lines)


def _spread(numbers: list[float], places: list[int]) -> list[float | None]:
    """The numbers at their places, None between them."""
    known = dict(zip(places, numbers, strict=True))
    return [known.get(place) for place in range(places[-1] + 1)]
