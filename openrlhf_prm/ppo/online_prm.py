"""An implicit PRM that is trained in the PPO loop, as Ray actors with DeepSpeed (PRIME, arXiv:2502.01456).

The PRM is a language model of the policy's vocabulary with an optimizer of its own; its reference is the model it
started from, or another. Both sit in one actor per GPU, data-parallel, because every batch needs both. Each rollout's
responses go through them once to be judged and, before or after that (`--online_prm.update`), once to train the PRM.

Shapes: L tokens of a response with its prompt, A = L - 1 action positions, T response tokens.
"""

import contextlib
import copy
import os
from collections.abc import Sequence

import ray
import torch
from deepspeed.accelerator import get_accelerator
from openrlhf.models import Actor
from openrlhf.trainer.ray.launcher import BaseModelActor, RayActorGroup
from openrlhf.utils import get_tokenizer
from openrlhf.utils.deepspeed.deepspeed_utils import offload_deepspeed_states, reload_deepspeed_states

from openrlhf_prm.ppo.colocation import SHARE
from openrlhf_prm.ppo.option_groups import ONLINE_PRM_FOLDER, OnlinePRMOptions
from openrlhf_prm.ppo.plugin_options import PluginOptions
from openrlhf_prm.ppo.response_rows import Row, padded, shares
from openrlhf_prm.rewards.implicit import outcome_loss


@ray.remote(num_gpus=1)
class OnlinePRMActor(BaseModelActor):
    """One data-parallel rank: the PRM with its optimizer, and the reference."""

    def init_model_from_pretrained(
        self, strategy, options: OnlinePRMOptions, pretrain: str, vocabulary: dict, beta: float
    ):
        self._setup_distributed(strategy)
        args, reference = strategy.args, options.reference or pretrain
        self.tokenizer = get_tokenizer(pretrain, None, "left", strategy, not args.data.disable_fast_tokenizer)
        for model in (pretrain, reference):
            tokenizer = get_tokenizer(model, None, "left", strategy, not args.data.disable_fast_tokenizer)
            if tokenizer.get_vocab() != vocabulary:
                raise ValueError(f"--online_prm.*: {model} does not share the policy's vocabulary")
        self.beta = beta
        # Log-ratios are of the models as they are, not at the rollouts' temperature.
        common = dict(
            attn_implementation=args.ds.attn_implementation,
            experts_implementation=args.ds.experts_implementation,
            param_dtype=args.ds.param_dtype,
            packing_samples=args.ds.packing_samples,
            use_liger_kernel=args.ds.use_liger_kernel,
        )
        model = Actor(pretrain, ds_config=strategy.get_ds_train_config(), **common)
        model.model.config.prm = {"family": "implicit", "reference": reference, "beta": beta}
        if args.actor.gradient_checkpointing_enable:
            model.gradient_checkpointing_enable({"use_reentrant": args.actor.gradient_checkpointing_reentrant})
        adam = {**vars(args.critic.adam), "lr": options.lr, "weight_decay": 0.0}
        # A constant rate, as the paper's; the scheduler's length does not matter to it.
        schedule = {"lr_scheduler": "constant", "lr_warmup_ratio": 0.0, "scheduler_steps": 1}
        self.model, self.optimizer, self.scheduler = strategy.prepare(
            (model, {"optim": "adam", "adam": adam, "max_norm": options.max_norm, **schedule})
        )
        frozen = Actor(reference, ds_config=strategy.get_ds_eval_config(offload=args.ref.offload), **common)
        frozen._offload = args.ref.offload
        self.reference = strategy.prepare(frozen)
        self.reference.eval()
        if options.colocate and args.ds.enable_sleep:
            self.offload_states()

    def log_ratios(self, rows: Sequence[Row], micro_batches) -> list[torch.Tensor]:
        """This rank's share of the rows -> (T,) each, log pi_phi - log pi_ref, those of weight 0 left out."""
        self.model.eval()
        log_ratios = []
        for chosen, weights in micro_batches[self._rank]:
            batch = padded([rows[index] for index in chosen], self.tokenizer.pad_token_id)
            with torch.no_grad():
                ratios = self._forward(self.model, *batch) - self._forward(self.reference, *batch)
            masks = batch[2].bool()
            triples = zip(ratios.cpu(), masks, weights, strict=True)
            log_ratios += [row[mask] for row, mask, weight in triples if weight]
        return log_ratios

    def update(self, rows: Sequence[Row], correct: Sequence[bool], micro_batches) -> dict[str, float]:
        """One optimizer step on the rows; their mean loss, and the norm of its gradient."""
        self.model.train()
        ranks, total = len(micro_batches), 0.0
        for chosen, weights in micro_batches[self._rank]:
            batch = padded([rows[index] for index in chosen], self.tokenizer.pad_token_id)
            log_probs = self._forward(self.model, *batch)
            with torch.no_grad():
                reference = self._forward(self.reference, *batch)
            labels = torch.tensor([float(correct[index]) for index in chosen], device=log_probs.device)
            losses = outcome_loss(log_probs - reference, labels, self.beta)
            losses = losses * torch.tensor(weights, device=losses.device)
            # A mean over all rows: DeepSpeed sums over micro-batches here and averages over ranks.
            self.strategy.backward(losses.sum() * ranks / len(rows), self.model, self.optimizer)
            total += float(losses.detach().sum())
        self.strategy.optimizer_step(self.optimizer, self.model, self.scheduler)
        return {
            "online_prm/loss": self.strategy.all_reduce(total, "sum") / len(rows),
            "online_prm/grad_norm": self.strategy.get_grad_norm(self.model),
        }

    def offload_states(self) -> None:
        """The optimizer's states leave the GPU; the host's way for its own models."""
        offload_deepspeed_states(self.model.model)

    def reload_states(self) -> None:
        """They come back."""
        reload_deepspeed_states(self.model.model)

    def save_checkpoint(self, tag: str) -> None:
        """The PRM and its optimizer, unless `--ckpt.disable_ds`."""
        args = self.strategy.args
        if not args.ckpt.disable_ds:
            # One more than of the policy: this is written first, and a run may be killed in between.
            keep = args.ckpt.max_num + 1
            self.strategy.save_ckpt(self.model.model, self._folder(), tag, keep, args.ckpt.max_mem)

    def load_checkpoint(self, tag: str) -> None:
        path, _ = self.strategy.load_ckpt(self.model.model, self._folder(), tag)
        if path is None:
            raise ValueError(f"--ckpt.path: the checkpoint {tag} of the online PRM is missing in {self._folder()}")

    def save_model(self) -> None:
        """A checkpoint of family `implicit`, which names its reference."""
        self.strategy.save_model(self.model, self.tokenizer, f"{self.strategy.args.ckpt.output_dir}_online_prm")

    def _forward(self, model, tokens, attention, actions) -> torch.Tensor:
        """(B, A) log-probabilities, 0 outside the responses."""
        device = get_accelerator().current_device_name()
        return model(tokens.to(device), actions.to(device), attention.to(device))

    def _folder(self) -> str:
        return os.path.join(self.strategy.args.ckpt.path, ONLINE_PRM_FOLDER)


class OnlinePRM:
    """The group of actors, as the trainer's process sees it."""

    def __init__(self, plugin_options: PluginOptions, strategy, tokenizer, group=None):
        """`group`: the placement group whose GPUs it shares, a process in each of its first bundles."""
        args, options = strategy.args, plugin_options.online_prm
        self.update_first = options.update == "before"
        self.seed, self.batch_size = args.train.seed, options.batch_size or args.train.batch_size
        self.ranks = options.num_nodes * options.num_gpus_per_node
        self.sleeps = options.colocate and args.ds.enable_sleep
        self.micro_train, self.micro_judge = args.train.micro_batch_size, args.rollout.micro_batch_size
        pretrain = options.model_name_or_path or args.actor.model_name_or_path
        actors_strategy = copy.copy(strategy)
        # As the host does for dynamic batches: `OnlinePRMActor.update` itself says when an optimizer step is due.
        actors_strategy.use_dynamic_batch = True
        actors_strategy.micro_train_batch_size, actors_strategy.train_batch_size = 1, self.ranks
        share = options.gpus_per_actor if group is None else SHARE
        self.group = RayActorGroup(
            options.num_nodes, options.num_gpus_per_node, OnlinePRMActor, pg=group, num_gpus_per_actor=share
        )
        ray.get(
            self.group.async_init_model_from_pretrained(
                actors_strategy, options, pretrain, tokenizer.get_vocab(), plugin_options.shaping.beta
            )
        )

    def judge(
        self, tokens: list[torch.Tensor], masks: list[torch.Tensor], correct: torch.Tensor, number: int
    ) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
        """Trains the PRM on the responses of rollout `number` and gives their log-ratios, B tensors (T_b,), from before
        or after that, with columns (B,) to be logged.
        """
        rows = list(zip(tokens, masks, strict=True))
        with self._awake():
            ratios = None if self.update_first else self._log_ratios(rows)
            figures = self._update(rows, correct.tolist(), number)
            ratios = self._log_ratios(rows) if ratios is None else ratios
        columns = {name: torch.full((len(rows),), value) for name, value in figures.items()}
        verdicts = torch.stack([row.sum() for row in ratios]) > 0
        return ratios, columns | {"online_prm/accuracy": (verdicts == correct).float()}

    def save(self, tag: str) -> None:
        with self._awake():
            ray.get(self.group.async_run_method("save_checkpoint", tag))

    def load(self, tag: str) -> None:
        with self._awake():
            ray.get(self.group.async_run_method("load_checkpoint", tag))

    def save_model(self) -> None:
        ray.get(self.group.async_save_model())

    @contextlib.contextmanager
    def _awake(self):
        """Meanwhile the optimizer's states are on the GPU, where they sleep otherwise."""
        if self.sleeps:
            ray.get(self.group.async_run_method("reload_states"))
        yield
        if self.sleeps:
            ray.get(self.group.async_run_method("offload_states"))

    def _log_ratios(self, rows: list[Row]) -> list[torch.Tensor]:
        batches = shares(len(rows), self.ranks, self.micro_judge)
        by_rank = ray.get(self.group.async_run_method("log_ratios", ray.put(rows), batches))
        ratios: list = [None] * len(rows)
        for rank, of_rank in enumerate(by_rank):
            ratios[rank :: self.ranks] = of_rank
        return ratios

    def _update(self, rows: list[Row], correct: list[bool], number: int) -> dict[str, float]:
        """One epoch of optimizer steps, in an order that only the seed and the rollout's number decide."""
        generator = torch.Generator().manual_seed(self.seed + number)
        order = torch.randperm(len(rows), generator=generator).tolist()
        figures: list[dict[str, float]] = []
        for start in range(0, len(rows), self.batch_size):
            chosen = order[start : start + self.batch_size]
            batches = shares(len(chosen), self.ranks, self.micro_train)
            batch = ray.put([rows[index] for index in chosen])
            labels = [correct[index] for index in chosen]
            figures.append(ray.get(self.group.async_run_method("update", batch, labels, batches))[0])
        return {name: sum(step[name] for step in figures) / len(figures) for name in figures[0]}
