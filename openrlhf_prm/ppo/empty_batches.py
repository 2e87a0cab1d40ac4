"""Micro-batches in which nothing is trained, inside the host's actors of policy and critic.

A response without tokens, or one that a reward shaping leaves out, has an empty action mask, and the host's loss does
not count it, neither as tokens nor as a sequence. But a micro-batch of such responses alone makes the host's figures
0 / 0, and an optimizer step of them its loss.
"""

import torch

ALMOST_NONE = 1e-6


def install(actor) -> None:
    """In the process of a policy or critic actor of the host, by Ray's `__ray_call__`: its training step stands empty
    micro-batches. Others go through unchanged, bit for bit. Idempotent.
    """
    trainer = actor.trainer
    if getattr(trainer.training_step, "stands_empty_batches", False):
        return
    host_step = trainer.training_step

    def training_step(experience, *rest):
        *before, step, sizes = rest
        if not experience.action_mask.any():
            if sizes is None:  # dynamic batches, whose sizes were counted beforehand
                buffer = trainer.replay_buffer
                for counts in (buffer.dynamic_batch_num_tokens, buffer.dynamic_global_batch_size):
                    counts[step] = max(counts[step], 1.0)
            else:
                sizes = sizes | {name: sizes[name].clamp(min=1.0) for name in ("batch_num_tokens", "global_batch_size")}
            figures = _without_nan(host_step(experience, *before, step, sizes))
            if "num_action_tokens" in figures:  # by which the host weighs figures, and divides
                figures["num_action_tokens"] = ALMOST_NONE
            return figures
        return host_step(experience, *rest)

    training_step.stands_empty_batches = True
    trainer.training_step = training_step


def _without_nan(figures):
    """The host's figures of a micro-batch, 0 for means over no token."""
    if isinstance(figures, dict):
        return {name: _without_nan(value) for name, value in figures.items()}
    if isinstance(figures, torch.Tensor) and figures.is_floating_point():
        return figures.nan_to_num(0.0)
    return 0.0 if isinstance(figures, float) and figures != figures else figures
