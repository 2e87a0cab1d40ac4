"""Trains a causal LM to score steps at a placeholder token, on OpenRLHF's DeepSpeed strategy.

With z the logits at the placeholder after step i, restricted to the reward tokens (positive first), and t_i the label:

    loss = mean over the steps of the update of  -( t_i log softmax(z_i)_0 + (1 - t_i) log softmax(z_i)_1 )

in fp32, without a shift: the logits at the placeholder, not those before it. Hard labels are t in {0, 1}, soft labels t
in [0, 1]. Source: OpenRLHF's `train_prm` (arXiv:2405.11143) with Math-Shepherd's tokens (arXiv:2312.08935); the mean
runs over all steps of an update, so it does not depend on how the update is split into micro-batches or ranks.

Shapes: B solutions, T tokens, S steps of a batch.
"""

import shutil
from pathlib import Path

import torch
import torch.distributed as dist
from openrlhf.utils.distributed_sampler import DistributedSampler
from openrlhf.utils.loss_utils import iter_grad_accum_global_norm
from tqdm import tqdm

from openrlhf_prm.trainers.prm_data import StepBatch
from openrlhf_prm.trainers.prm_metrics import step_metrics


def step_losses(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy per step, fp32: reward-token logits (S, 2), positive first, and targets (S,) -> (S,)."""
    log_probs = torch.log_softmax(logits.float(), dim=-1)
    return -(targets * log_probs[:, 0] + (1 - targets) * log_probs[:, 1])


class PRMTrainer:
    """Trains `actor` (OpenRLHF's `Actor`, prepared by `strategy`) on batches of a `StepLabelDataset`.

    `reward_token_ids`: the positive and the negative token. `writer`: a TensorBoard `SummaryWriter` or None.
    """

    def __init__(self, actor, strategy, optimizer, scheduler, train_loader, eval_loader, reward_token_ids, writer=None):
        self.actor = actor
        self.strategy = strategy
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.train_loader = train_loader
        self.eval_loader = eval_loader
        self.reward_token_ids = list(reward_token_ids)
        self.writer = writer if strategy.is_rank_0() else None
        self.losses: list[float] = []

    def fit(self, args, consumed_samples: int = 0) -> dict[str, float | None]:
        """Trains for `args.train.max_epochs`, evaluates after each, and returns the last evaluation.

        As in OpenRLHF's SFT trainer a window of micro-batches may span two epochs, a last incomplete window is not
        trained on, and `consumed_samples` of a checkpoint says where to go on.
        """
        windows = self.strategy.accumulated_gradient
        samples_per_micro_batch = args.train.batch_size // windows
        start, consumed_in_epoch = divmod(consumed_samples, len(self.train_loader) * samples_per_micro_batch)
        metrics: dict[str, float | None] = {}
        window: list[StepBatch] = []
        for epoch in range(start, args.train.max_epochs):
            if isinstance(self.train_loader.sampler, DistributedSampler):
                self.train_loader.sampler.set_epoch(epoch, consumed_in_epoch if epoch == start else 0)
            with tqdm(
                self.train_loader, f"epoch {epoch + 1}/{args.train.max_epochs}", disable=not self.strategy.is_rank_0()
            ) as progress:
                for batch in progress:
                    window.append(batch)
                    if len(window) < windows:
                        continue
                    logs = self._update(window)
                    window.clear()
                    consumed_samples += args.train.batch_size
                    progress.set_postfix({name: f"{value:.4g}" for name, value in logs.items()}, refresh=False)
                    self._after_update(args, logs, consumed_samples)
            metrics = self.evaluate(f"epoch {epoch + 1}")
        return metrics or self.evaluate("nothing left to train")

    def _update(self, window: list[StepBatch]) -> dict[str, float]:
        self.actor.train()
        total = 0.0
        for batch, norm in iter_grad_accum_global_norm(
            window, self.strategy, len(window), lambda batch: batch.step_mask
        ):
            losses = step_losses(self._reward_logits(batch), batch.targets.to(self._device()))
            loss = losses.sum() / norm["batch_num_tokens"] * norm["dp_size"]
            self.strategy.backward(loss, self.actor, self.optimizer)
            self.strategy.optimizer_step(self.optimizer, self.actor, self.scheduler)
            total += loss.item() / len(window)
        logs = {
            "loss": self.strategy.all_reduce(total),
            "lr": self.scheduler.get_last_lr()[0],
            "grad_norm": self.strategy.get_grad_norm(self.actor),
        }
        self.losses.append(logs["loss"])
        return logs

    def _after_update(self, args, logs: dict[str, float], consumed_samples: int) -> None:
        step = self.actor.model.global_steps
        self._log("train", logs, step)
        if args.ckpt.save_steps > 0 and step % args.ckpt.save_steps == 0:
            states = {"consumed_samples": consumed_samples}
            self.strategy.save_ckpt(
                self.actor.model, args.ckpt.path, f"global_step{step}", args.ckpt.max_num, args.ckpt.max_mem, states
            )

    @torch.no_grad()
    def evaluate(self, when: str) -> dict[str, float | None]:
        """Loss, step accuracy, AUC and F1 on first errors over the evaluation set (see `prm_metrics`); {} without
        one."""
        if self.eval_loader is None:
            return {}
        self.actor.eval()
        found: dict[int, tuple[list[float], list[float], float]] = {}
        for batch in self.eval_loader:
            logits, targets = self._reward_logits(batch).cpu(), batch.targets
            counts = batch.step_mask.sum(dim=1).tolist()
            parts = [
                tensor.split(counts) for tensor in (logits.softmax(-1)[:, 0], targets, step_losses(logits, targets))
            ]
            for row, scores, labels, losses in zip(batch.rows, *parts, strict=True):
                found[row] = (scores.tolist(), labels.tolist(), losses.sum().item())
        if dist.get_world_size() > 1:
            # Each rank has its share; the sampler repeats a few solutions to make the shares equal.
            shares: list = [None] * dist.get_world_size()
            dist.all_gather_object(shares, found)
            found = {row: result for share in shares for row, result in share.items()}
        scores, labels, losses = zip(*found.values(), strict=True)
        metrics = step_metrics(scores, labels)
        metrics["loss"] = sum(losses) / metrics["steps"]
        self.strategy.print(f"evaluation after {when}: " + ", ".join(f"{k} {_short(v)}" for k, v in metrics.items()))
        self._log("eval", {k: v for k, v in metrics.items() if v is not None}, self.actor.model.global_steps)
        return metrics

    def _reward_logits(self, batch: StepBatch) -> torch.Tensor:
        """The logits of the reward tokens at the steps' placeholders, fp32: (S, 2)."""
        device = self._device()
        output = self.actor(
            batch.token_ids.to(device),
            attention_mask=batch.attention_mask.to(device),
            return_output=True,
            allgather_logits=True,
            ring_attn_group=self.strategy.ring_attn_group,
        )
        return output["logits"][batch.step_mask.to(device)][:, self.reward_token_ids].float()

    def _device(self) -> torch.device:
        return next(self.actor.parameters()).device

    def _log(self, kind: str, values: dict[str, float], step: int) -> None:
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(f"{kind}/{name}", value, step)


def save_prm(actor, tokenizer, strategy, output_dir: str, declared: dict) -> None:
    """Saves a Hugging Face checkpoint whose config.json declares the PRM family under "prm", so that `vllm_prm` serves
    it as it is. It is written beside `output_dir` and renamed when complete, so a folder of that name is always
    whole."""
    partial = Path(f"{output_dir.rstrip('/')}.partial")
    if strategy.is_rank_0():
        shutil.rmtree(partial, ignore_errors=True)
    strategy._unwrap_model(actor).config.prm = declared
    strategy.save_model(actor, tokenizer, str(partial))
    if strategy.is_rank_0():
        if Path(output_dir).is_dir():
            Path(output_dir).rmdir()  # empty: checked before training
        partial.rename(output_dir)


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
