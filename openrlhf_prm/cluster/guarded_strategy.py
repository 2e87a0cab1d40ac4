"""The host's DeepSpeed strategy, which every trained model goes through: policy, critic and PRMs.

Beside what it does it stops before a loss or a gradient that is no number reaches weights or checkpoints, writes a
checkpoint before it deletes one, goes on from one that is whole, and reads it without running what is in it.
"""

import contextlib
import gc
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import openrlhf.utils.deepspeed as host
import torch
from openrlhf.models import Actor

from openrlhf_prm.cluster import checkpoints

TRUSTED = "OPENRLHF_PRM_UNPICKLE"
"""Environment variable: with 1 a checkpoint is read as Python objects, which may run what is in it."""


ADVICE = "lower the learning rate, or look at the data"


class NotFinite(RuntimeError):
    """A number that training would spread is NaN or infinite. Nothing was saved or sent on with it."""


def install() -> None:
    """From now on the host's `get_strategy` makes strategies of this kind. Idempotent."""
    host.DeepspeedStrategy = GuardedStrategy


class GuardedStrategy(host.DeepspeedStrategy):
    """See above."""

    def backward(self, loss: torch.Tensor, model, optimizer, **kwargs) -> None:
        """The host's. Raises NotFinite for a loss that is NaN or infinite; no weight has changed then."""
        if not bool(torch.isfinite(loss).all()):
            raise NotFinite(
                f"the loss is {float(loss.detach().float().mean())}; its weights were not updated; {ADVICE}"
            )
        super().backward(loss, model, optimizer, **kwargs)

    def optimizer_step(self, optimizer, model, scheduler, name: str = "model", **kwargs) -> None:
        """The host's. Raises NotFinite where the gradient is none: weights that it reached go nowhere then. A step that
        fp16's loss scaling leaves out is fine; ZeRO leaves such steps out with other types, too, and would for ever.
        """
        super().optimizer_step(optimizer, model, scheduler, name=name, **kwargs)
        engine = model.model if isinstance(model, Actor) else model
        if not engine.was_step_applied():
            if getattr(engine.optimizer, "overflow", False) and not engine.fp16_enabled():
                raise NotFinite(f"the gradient of the {name} is NaN or infinite; nothing was saved; {ADVICE}")
            return
        # ZeRO shows a norm of 1 for a gradient that is NaN, so the weights themselves are looked at.
        if not all(bool(torch.isfinite(part).all()) for part in _parts(engine.module)):
            raise NotFinite(f"weights of the {name} are NaN or infinite; nothing was saved; {ADVICE}")

    def save_ckpt(
        self,
        model,
        save_dir,
        tag=None,
        max_num=3,
        max_mem=1000,
        client_state=None,
        save_latest=True,
        metric_value=None,
        metric_key=None,
    ) -> None:
        """The host's, which deletes first. `max_num`, `max_mem` (GiB): as the host's, once the write is done.

        Raises CheckpointError where the disk does not take it.
        """
        folder, tag = Path(save_dir), tag or f"global_step{model.global_steps}"
        if self.is_rank_0():
            checkpoints.forget(folder, tag)
        try:
            model.save_checkpoint(save_dir, tag=tag, client_state=client_state or {}, save_latest=save_latest)
            if self.is_rank_0():
                self._write_ckpt_metric(str(folder / tag), metric_value, metric_key=metric_key)
        except (OSError, RuntimeError) as error:  # PyTorch's writer has a RuntimeError for a full disk
            raise checkpoints.unwritten(folder, tag, error) from error
        if self.is_rank_0():
            # What another model of the run would go on from is kept for both until that one has written, too.
            held = filter(None, map(checkpoints.latest_tag, self._beside(folder)))
            for place in checkpoints.delete_others(folder, tag, max_num, max_mem * 1024**3, held):
                self.print(f"Deleted checkpoint {place}")
        gc.collect()

    def load_ckpt(self, model, load_dir, tag=None, **kwargs):
        """The host's; ({}, None) in its way where no checkpoint was ever finished. Raises CheckpointError for one that
        cannot be read, or that others may have written while it is read as Python objects.
        """
        folder = Path(load_dir)
        tag = tag or checkpoints.tag_to_load(folder, self._beside(folder))
        if tag is None:
            self.print(f"no checkpoint in {folder} was ever finished; the run starts afresh")
            return None, {}
        if (hands := checkpoints.other_hands(folder, tag)) is not None:
            self._look_at_others(hands)
        try:
            with _tensors_and_plain_data(model):
                path, states = super().load_ckpt(model, load_dir, tag, **kwargs)
        except (OSError, EOFError, RuntimeError, AssertionError, KeyError, ValueError, pickle.UnpicklingError) as error:
            raise checkpoints.unreadable(folder, tag, error) from error
        if path is None:
            raise checkpoints.unreadable(folder, tag, FileNotFoundError("its files are missing"))
        return path, states

    def _look_at_others(self, hands: str) -> None:
        if os.environ.get(TRUSTED) == "1":
            raise checkpoints.CheckpointError(
                f"--ckpt.load_enable with {TRUSTED}=1 would run what is in a checkpoint, and {hands}; make it yours "
                "alone (chown, chmod), or leave the variable out"
            )
        self.print(f"warning: --ckpt.load_enable: {hands}; of its files tensors and plain data alone are read")

    def _beside(self, folder: Path) -> list[Path]:
        """The other of the host's two folders, where the run trains a critic."""
        critic = getattr(self.args, "critic", None)
        pair = ("_actor", "_critic")
        if folder.name not in pair or critic is None or not critic.model_name_or_path:
            return []
        return [folder.with_name(name) for name in pair if name != folder.name]


def _parts(module: torch.nn.Module) -> Iterator[torch.Tensor]:
    """What this process holds of the weights: with ZeRO-3 a part of each."""
    return (getattr(weight, "ds_tensor", weight) for weight in module.parameters())


@contextlib.contextmanager
def _tensors_and_plain_data(engine) -> Iterator[None]:
    """Meanwhile DeepSpeed reads files as tensors and plain data, and of classes only those that it writes itself."""
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    known = [DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address]
    reader = engine.checkpoint_engine
    kept = reader.load

    def load(path: str, map_location=None):
        with torch.serialization.safe_globals(known):
            return torch.load(path, map_location=map_location, weights_only=True)

    reader.load = kept if os.environ.get(TRUSTED) == "1" else load
    try:
        yield
    finally:
        reader.load = kept
