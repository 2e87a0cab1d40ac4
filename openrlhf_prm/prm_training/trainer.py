"""Trains a process reward model on OpenRLHF's DeepSpeed strategy, whatever its head.

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
from openrlhf_prm.prm_training.dataset import PaddedSolutions
from openrlhf_prm.prm_training.heads import PRMHead
from openrlhf_prm.prm_training.model import read_record, save_prm


def step_losses(log_odds: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy per target, fp32: (N,) and (N,) -> (N,)."""
    return torch.nn.functional.binary_cross_entropy_with_logits(log_odds.float(), targets, reduction="none")


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """How long a training goes on, and what it keeps on the way.

    `batch_size`: solutions per update, over all devices. `eval_steps`, `save_steps`: updates between evaluations and
    between DeepSpeed checkpoints; -1 evaluates where an epoch ends, and saves none. Of the checkpoints in
    `checkpoints` the newest `max_checkpoints` stay, and `max_checkpoint_gb`. `best_metric`: the measure by which the
    best weights are kept beside `output_dir`, or None.
    """

    batch_size: int
    max_epochs: int
    seed: int
    eval_steps: int
    logging_steps: int
    save_steps: int
    checkpoints: str
    max_checkpoints: int
    max_checkpoint_gb: int
    best_metric: str | None
    output_dir: Path


@dataclass
class TrainingState:
    """What a checkpoint keeps of a run beside model, optimizer and schedule. `data`: what the order of the data rests
    on; a run with other data cannot go on."""

    data: dict
    consumed_samples: int = 0
    losses: list[float] = field(default_factory=list)
    metrics: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluatedSolution:
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
        plan: TrainingPlan,
        tokenizer,
        reference=None,
        writer=None,
        on_best=lambda evaluated: None,
    ):
        self.head = head
        self.plan = plan
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
        self.evaluated: dict[int, EvaluatedSolution] = {}
        """The last evaluation, by number of the solution; on every rank."""

    def fit(self, state: TrainingState) -> None:
        """Trains for `plan.max_epochs` from where `state` stands, and keeps it up to date.

        As in OpenRLHF's SFT trainer a window of micro-batches may span two epochs and a last incomplete window is not
        trained on. Evaluated is every `plan.eval_steps` updates, or else where an epoch ends, and at the end.
        """
        plan, windows = self.plan, self.strategy.accumulated_gradient
        epoch_samples = len(self.train_loader) * (plan.batch_size // windows)
        start, consumed_in_epoch = divmod(state.consumed_samples, epoch_samples)
        window: list[PaddedSolutions] = []
        for epoch in range(start, plan.max_epochs):
            if isinstance(self.train_loader.sampler, DistributedSampler):
                self.train_loader.sampler.set_epoch(epoch, consumed_in_epoch if epoch == start else 0)
            title, silent = f"epoch {epoch + 1}/{plan.max_epochs}", not self.strategy.is_rank_0()
            with tqdm(self.train_loader, title, disable=silent) as bar:
                for batch in bar:
                    window.append(batch)
                    if len(window) < windows:
                        continue
                    logs = self._update(window, plan.seed)
                    window.clear()
                    bar.set_postfix({name: f"{value:.4g}" for name, value in logs.items()}, refresh=False)
                    self._after_update(state, logs, epoch_samples)

    def _after_update(self, state: TrainingState, logs: dict[str, float], epoch_samples: int) -> None:
        """Logs, evaluates and saves where that is due."""
        plan, update = self.plan, self.actor.model.global_steps
        before = state.consumed_samples
        state.consumed_samples += plan.batch_size
        state.losses.append(logs["loss"])
        if update % plan.logging_steps == 0:
            self._log("train", logs, update)
        epoch_ended = state.consumed_samples // epoch_samples > before // epoch_samples
        due = update % plan.eval_steps == 0 if plan.eval_steps > 0 else epoch_ended
        total = epoch_samples * plan.max_epochs // plan.batch_size * plan.batch_size
        if due or state.consumed_samples >= total:
            self._evaluate_and_keep_best(state)
        # After the evaluation, so that a run which goes on from here has had it too.
        if plan.save_steps > 0 and update % plan.save_steps == 0:
            self._save_checkpoint(state, update)

    def _update(self, window: list[PaddedSolutions], seed: int) -> dict[str, float]:
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

    def _save_checkpoint(self, state: TrainingState, update: int) -> None:
        self.strategy.save_ckpt(
            self.actor.model,
            self.plan.checkpoints,
            f"global_step{update}",
            self.plan.max_checkpoints,
            self.plan.max_checkpoint_gb,
            {"prm": asdict(state)},
        )

    def _evaluate_and_keep_best(self, state: TrainingState) -> None:
        update = self.actor.model.global_steps
        state.metrics = self.evaluate(f"update {update}")
        key = self.plan.best_metric
        if not key or not state.metrics:
            return
        value, folder = state.metrics[key], best_folder(self.plan.output_dir)
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
            record={"update": update, **state.metrics},
        )
        self.on_best(self.evaluated)
        self.strategy.print(f"best {key} so far: {value:.4g} after update {update}")

    @torch.no_grad()
    def evaluate(self, when: str) -> dict[str, float | None]:
        """Loss and `step_metrics` over the evaluation set; {} without one. `evaluated` holds the scores."""
        if self.eval_loader is None:
            return {}
        self.actor.eval()
        evaluated: dict[int, EvaluatedSolution] = {}
        for batch in self.eval_loader:
            raw, log_odds = self._log_odds(batch.to(self._device()))
            probabilities, losses = log_odds.sigmoid(), step_losses(log_odds, batch.targets.to(log_odds.device))
            targets = [1] * len(batch.rows) if self.head.outcome else batch.steps
            parts = [tensor.cpu().split(targets) for tensor in (batch.targets, probabilities, losses)]
            for row, numbers, labels, chances, loss in zip(
                batch.rows, raw.cpu().split(batch.steps), *parts, strict=True
            ):
                scores = self.head.family.decode(numbers.tolist())
                evaluated[row] = EvaluatedSolution(scores, labels.tolist(), chances.tolist(), loss.sum().item())
        if dist.get_world_size() > 1:
            # Each rank has its share; the sampler repeats a few solutions to make the shares equal.
            shares: list = [None] * dist.get_world_size()
            dist.all_gather_object(shares, evaluated)
            evaluated = {row: result for share in shares for row, result in share.items()}
        self.evaluated = evaluated
        results = [evaluated[row] for row in sorted(evaluated)]
        metrics = step_metrics([result.probabilities for result in results], [result.labels for result in results])
        metrics["loss"] = sum(result.loss for result in results) / metrics["steps"]
        self.strategy.print(f"evaluation after {when}: " + ", ".join(f"{k} {_short(v)}" for k, v in metrics.items()))
        self._log("eval", {k: v for k, v in metrics.items() if v is not None}, self.actor.model.global_steps)
        return metrics

    def _log_odds(self, batch: PaddedSolutions) -> tuple[torch.Tensor, torch.Tensor]:
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


def best_folder(output_dir: Path) -> Path:
    """Where the best checkpoint of a run that is not finished stands."""
    return output_dir.with_name(f"{output_dir.name}.best")


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
