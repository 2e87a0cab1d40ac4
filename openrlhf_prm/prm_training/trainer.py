"""Trains a process reward model on OpenRLHF's DeepSpeed strategy, whatever its head (`prm_heads`).

    loss = mean over the targets of the update of the binary cross-entropy of the head's log-odds and the label

in fp32; the mean runs over all targets of an update (steps, or solutions where the head learns from outcomes), so it
does not depend on how the update is split into micro-batches or ranks. Hard labels are 0 or 1, soft labels between.

A run that is killed and goes on from its last DeepSpeed checkpoint ends where it would have ended: the order of the
data follows from the number of solutions seen, the random numbers of an update (dropout) from the update's number, and
when to evaluate from both.

Shapes: B solutions, S steps of a batch, R numbers read per step, N targets.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.distributed as dist
from openrlhf.utils.distributed_sampler import DistributedSampler
from openrlhf.utils.loss_utils import iter_grad_accum_global_norm
from tqdm import tqdm

from openrlhf_prm.measures.agreement import LOWER_IS_BETTER, step_metrics
from openrlhf_prm.prm_training.dataset import StepBatch
from openrlhf_prm.prm_training.heads import PRMHead
from openrlhf_prm.prm_training.model import read_record, save_prm


def step_losses(log_odds: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy per target, fp32: (N,) and (N,) -> (N,)."""
    return torch.nn.functional.binary_cross_entropy_with_logits(log_odds.float(), targets, reduction="none")


@dataclass
class Progress:
    """What a checkpoint keeps of a run beside model, optimizer and schedule. `data`: what the order of the data rests
    on; a run with other data cannot go on."""

    data: dict
    consumed_samples: int = 0
    losses: list[float] = field(default_factory=list)
    metrics: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluated:
    """One held-out solution: its step scores as the family gives them, its labels, and the probabilities that are
    compared with the labels."""

    scores: list[float]
    labels: list[float]
    probabilities: list[float]
    loss: float


class PRMTrainer:
    """Trains `actor` (OpenRLHF's `Actor`, prepared by `strategy`) on batches of a `StepLabelDataset`.

    `reference`: the frozen model that the head asks for, or None. `writer`: a TensorBoard `SummaryWriter` or None.
    `on_best` is called on every rank with the evaluation of each new best checkpoint.
    """

    def __init__(
        self,
        head: PRMHead,
        actor,
        strategy,
        optimizer,
        scheduler,
        train_loader,
        eval_loader,
        *,
        tokenizer,
        reference=None,
        writer=None,
        on_best=lambda evaluated: None,
    ):
        self.head = head
        self.actor = actor
        self.reference = reference
        self.strategy = strategy
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.train_loader = train_loader
        self.eval_loader = eval_loader
        self.tokenizer = tokenizer
        self.on_best = on_best
        self.writer = writer if strategy.is_rank_0() else None
        self.evaluated: dict[int, Evaluated] = {}
        """The last evaluation, by number of the solution; on every rank."""

    def fit(self, args, progress: Progress) -> None:
        """Trains for `args.train.max_epochs` from where `progress` stands, and keeps it up to date.

        As in OpenRLHF's SFT trainer a window of micro-batches may span two epochs and a last incomplete window is not
        trained on. Evaluated is every `args.eval.steps` updates, or else where an epoch ends, and at the end.
        """
        windows = self.strategy.accumulated_gradient
        epoch_samples = len(self.train_loader) * (args.train.batch_size // windows)
        total = epoch_samples * args.train.max_epochs // args.train.batch_size * args.train.batch_size
        start, consumed_in_epoch = divmod(progress.consumed_samples, epoch_samples)
        window: list[StepBatch] = []
        for epoch in range(start, args.train.max_epochs):
            if isinstance(self.train_loader.sampler, DistributedSampler):
                self.train_loader.sampler.set_epoch(epoch, consumed_in_epoch if epoch == start else 0)
            with tqdm(
                self.train_loader, f"epoch {epoch + 1}/{args.train.max_epochs}", disable=not self.strategy.is_rank_0()
            ) as bar:
                for batch in bar:
                    window.append(batch)
                    if len(window) < windows:
                        continue
                    logs = self._update(window, args.train.seed)
                    window.clear()
                    before = progress.consumed_samples
                    progress.consumed_samples += args.train.batch_size
                    progress.losses.append(logs["loss"])
                    bar.set_postfix({name: f"{value:.4g}" for name, value in logs.items()}, refresh=False)
                    update = self.actor.model.global_steps
                    if update % args.logger.logging_steps == 0:
                        self._log("train", logs, update)
                    epoch_ended = progress.consumed_samples // epoch_samples > before // epoch_samples
                    due = update % args.eval.steps == 0 if args.eval.steps > 0 else epoch_ended
                    if due or progress.consumed_samples >= total:
                        self._evaluate_and_keep_best(args, progress)
                    # After the evaluation, so that a run which goes on from here has had it too.
                    if args.ckpt.save_steps > 0 and update % args.ckpt.save_steps == 0:
                        self._save_checkpoint(args, progress, update)

    def _update(self, window: list[StepBatch], seed: int) -> dict[str, float]:
        self.actor.train()
        # A tuple of whole numbers has the same hash in every process.
        torch.manual_seed(hash((seed, self.actor.model.global_steps, dist.get_rank())) % 2**63)
        total = 0.0
        for batch, norm in iter_grad_accum_global_norm(
            window, self.strategy, len(window), lambda batch: torch.ones(len(batch.targets), 1)
        ):
            batch = batch.to(self._device())
            losses = step_losses(self._log_odds(batch)[1], batch.targets)
            loss = losses.sum() / norm["batch_num_tokens"] * norm["dp_size"]
            self.strategy.backward(loss, self.actor, self.optimizer)
            self.strategy.optimizer_step(self.optimizer, self.actor, self.scheduler)
            total += loss.item() / len(window)
        return {
            "loss": self.strategy.all_reduce(total),
            "lr": self.scheduler.get_last_lr()[0],
            "grad_norm": self.strategy.get_grad_norm(self.actor),
        }

    def _save_checkpoint(self, args, progress: Progress, update: int) -> None:
        self.strategy.save_ckpt(
            self.actor.model,
            args.ckpt.path,
            f"global_step{update}",
            args.ckpt.max_num,
            args.ckpt.max_mem,
            {"prm": asdict(progress)},
        )

    def _evaluate_and_keep_best(self, args, progress: Progress) -> None:
        update = self.actor.model.global_steps
        progress.metrics = self.evaluate(f"update {update}")
        key = args.ckpt.best_metric_key
        if not key or not progress.metrics:
            return
        value, folder = progress.metrics[key], best_folder(args)
        # Rank 0 decides: it alone is sure to see the folder.
        decision = [value is not None and ((best := read_record(folder)) is None or better(key, value, best[key]))]
        dist.broadcast_object_list(decision, src=0)
        if not decision[0]:
            return
        save_prm(
            self.actor,
            self.tokenizer,
            self.strategy,
            folder,
            self.head.declared(),
            replace=True,
            record={"update": update, **progress.metrics},
        )
        self.on_best(self.evaluated)
        self.strategy.print(f"best {key} so far: {value:.4g} after update {update}")

    @torch.no_grad()
    def evaluate(self, when: str) -> dict[str, float | None]:
        """Loss and `step_metrics` over the evaluation set; {} without one. `evaluated` holds the scores."""
        if self.eval_loader is None:
            return {}
        self.actor.eval()
        found: dict[int, Evaluated] = {}
        for batch in self.eval_loader:
            raw, log_odds = self._log_odds(batch.to(self._device()))
            probabilities, losses = log_odds.sigmoid(), step_losses(log_odds, batch.targets.to(log_odds.device))
            targets = [1] * len(batch.rows) if self.head.outcome else batch.steps
            parts = [tensor.cpu().split(targets) for tensor in (batch.targets, probabilities, losses)]
            for row, read, labels, chances, loss in zip(batch.rows, raw.cpu().split(batch.steps), *parts, strict=True):
                scores = self.head.family.decode(read.tolist())
                found[row] = Evaluated(scores, labels.tolist(), chances.tolist(), loss.sum().item())
        if dist.get_world_size() > 1:
            # Each rank has its share; the sampler repeats a few solutions to make the shares equal.
            shares: list = [None] * dist.get_world_size()
            dist.all_gather_object(shares, found)
            found = {row: result for share in shares for row, result in share.items()}
        self.evaluated = found
        results = [found[row] for row in sorted(found)]
        metrics = step_metrics([result.probabilities for result in results], [result.labels for result in results])
        metrics["loss"] = sum(result.loss for result in results) / metrics["steps"]
        self.strategy.print(f"evaluation after {when}: " + ", ".join(f"{k} {_short(v)}" for k, v in metrics.items()))
        self._log("eval", {k: v for k, v in metrics.items() if v is not None}, self.actor.model.global_steps)
        return metrics

    def _log_odds(self, batch: StepBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """What the head reads, (S, R), and its log-odds, (N,), fp32."""
        raw = self.head.raw(self.actor, self.reference, batch)
        return raw, self.head.log_odds(raw, batch)

    def _device(self) -> torch.device:
        return next(self.actor.parameters()).device

    def _log(self, kind: str, values: dict[str, float], step: int) -> None:
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(f"{kind}/{name}", value, step)


def better(key: str, value: float, than: float) -> bool:
    """Whether `value` of the metric `key` is better; equal is not."""
    return value < than if key in LOWER_IS_BETTER else value > than


def best_folder(args) -> Path:
    """Where the best checkpoint of a run that is not finished stands."""
    output = Path(args.ckpt.output_dir)
    return output.with_name(f"{output.name}.best")


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
