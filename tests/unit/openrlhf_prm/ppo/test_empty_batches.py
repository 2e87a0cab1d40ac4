"""A training step stands micro-batches without a token, with the host's own loss; others go through as they are."""

from types import SimpleNamespace

import torch
from openrlhf.models.loss import PolicyLoss
from openrlhf.models.utils import masked_mean
from openrlhf.utils.loss_utils import get_loss_batch_info

from openrlhf_prm.ppo import empty_batches


class Trainer:
    """The part of the host's trainer of a policy that reads masks: its loss, and means over tokens."""

    def __init__(self):
        self.replay_buffer = SimpleNamespace(dynamic_batch_num_tokens=[0.0, 5.0], dynamic_global_batch_size=[0.0, 2.0])

    def training_step(self, experience, kl_ctl, step, loss_batch_info=None):
        mask = experience.action_mask
        if loss_batch_info is None:
            loss_batch_info = get_loss_batch_info(
                None, mask, replay_buffer=self.replay_buffer, step=step, dynamic_batch=True
            )
        self.log_probs = torch.zeros(mask.shape, requires_grad=True)
        loss, clip, kl, *_ = PolicyLoss()(
            self.log_probs, torch.zeros(mask.shape), torch.ones(mask.shape), mask, **loss_batch_info
        )
        loss.backward()
        means = {"policy_loss": loss.detach(), "kl": masked_mean(torch.ones(mask.shape), mask), "clip": clip.detach()}
        return {"metrics": means, "num_action_tokens": float(mask.sum()), "values": float("nan"), "rank": 0}


def stepped(trainer, mask, *rest):
    return trainer.training_step(SimpleNamespace(action_mask=torch.tensor(mask)), 0.1, *rest)


def installed():
    trainer = Trainer()
    actor = SimpleNamespace(trainer=trainer)
    empty_batches.install(actor)
    once = trainer.training_step
    empty_batches.install(actor)
    assert trainer.training_step is once, "once is enough"
    return trainer


def test_an_optimizer_step_without_a_token_changes_nothing():
    nothing = [[0, 0], [0, 0]]
    for trainer, fine in ((Trainer(), False), (installed(), True)):
        figures = stepped(trainer, nothing, 0, get_loss_batch_info(None, torch.tensor(nothing)))
        gradient = trainer.log_probs.grad
        assert bool(torch.isfinite(gradient).all()) == fine
        assert bool(torch.isfinite(figures["metrics"]["policy_loss"])) == fine
    assert gradient.abs().sum() == 0
    assert figures["metrics"] == {"policy_loss": 0.0, "kl": 0.0, "clip": 0.0}
    # The host divides figures by their sum over micro-batches.
    assert 0 < figures["num_action_tokens"] < 1e-3 and (figures["values"], figures["rank"]) == (0.0, 0)


def test_dynamic_batches_too():
    trainer = installed()
    assert stepped(trainer, [[0, 0]], 0, None)["metrics"]["policy_loss"] == 0
    assert trainer.replay_buffer.dynamic_batch_num_tokens == [1.0, 5.0], "of this step alone"
    assert trainer.log_probs.grad.abs().sum() == 0


def test_what_is_left_of_a_step_is_divided_by_its_own_tokens():
    """An empty micro-batch beside one of four tokens, as the host counts an optimizer step of both."""
    trainer = installed()
    sizes = {name: torch.tensor(value) for name, value in (("batch_num_tokens", 4.0), ("global_batch_size", 2.0))}
    stepped(trainer, [[0, 0]], 0, {"dp_size": 1, **sizes})
    assert trainer.log_probs.grad.abs().sum() == 0
    stepped(trainer, [[1, 1], [1, 1]], 1, {"dp_size": 1, **sizes})
    ours = trainer.log_probs.grad
    host = Trainer()
    stepped(host, [[1, 1], [1, 1]], 1, {"dp_size": 1, **sizes})
    assert torch.equal(ours, host.log_probs.grad) and float(ours.sum()) == -1.0
