"""The estimate of memory against DeepSpeed's own tensors and PyTorch's own passes, on CPU."""

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from real_ppo_flags import POLICY
from servers import held_port

from openrlhf_prm.cluster.memory import REDUCE_BUCKET, trained
from openrlhf_prm.cluster.rehearsal import LiveBytes, passes

pytestmark = pytest.mark.stack

HERE = Path(__file__).parent
PADDING = 4096
"""Bytes by which DeepSpeed rounds partitions up, and a few single numbers that it keeps."""


CASES = [(0, "fp32", 1), (2, "bf16", 2), (3, "bf16", 1)]
"""ZeRO stage, data type, number of processes."""


@pytest.fixture(scope="module")
def states() -> dict[tuple, dict[str, int]]:
    """Case -> what DeepSpeed's tensors take."""
    path = f"{HERE.parents[1]}:{HERE.parent}:{HERE}"
    with ExitStack() as held:
        jobs = json.dumps([[*case, held.enter_context(held_port())] for case in CASES])
        command = [sys.executable, str(HERE / "zero_states.py"), jobs]
        environment = {**os.environ, "PYTHONPATH": path, "DS_ACCELERATOR": "cpu"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return dict(zip(CASES, lines, strict=True))


@pytest.mark.parametrize(("stage", "dtype", "ranks"), CASES)
def test_weights_gradients_and_optimizer_are_deepspeeds(states, stage, dtype, ranks):
    found = states[stage, dtype, ranks]
    use = trained(found["parameters"], dtype, ranks, stage, accumulates=False)
    assert abs(found["rest"] - sum(use.resting.values())) < PADDING
    gradients = 0 if stage == 3 else use.working["gradients"]  # those of ZeRO-3 lie in a buffer that is always there
    # A partition ends between tensors: with several processes the first may have up to a tensor more.
    slack = PADDING if ranks == 1 else 0.05 * gradients
    assert abs(found["backward"] - found["rest"] - gradients) < slack
    if stage == 3:
        assert use.resting["buffers"] == 2 * REDUCE_BUCKET


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_activations_are_pytorchs(checkpointing, dtype):
    """The same pass with contents: attention is PyTorch's own fused kernel there, which keeps what is rehearsed."""
    from openrlhf.models import Actor

    batch, length = 2, 512
    actor = Actor(str(POLICY), attn_implementation="sdpa", param_dtype=dtype)
    actor.train()
    if checkpointing:
        actor.gradient_checkpointing_enable({"use_reentrant": False})
    for parameter in actor.parameters():
        parameter.register_post_accumulate_grad_hook(lambda parameter: setattr(parameter, "grad", None))
    tokens = torch.randint(3, 9, (batch, length))
    mask = torch.ones_like(tokens)
    with LiveBytes([*actor.parameters(), *actor.buffers(), tokens, mask]) as live:
        actor(tokens, mask[:, 1:], mask).mean().backward()
    expected = passes(str(POLICY), dtype, batch, length, checkpointing).training
    assert abs(expected - live.peak) < 0.02 * live.peak, (expected, live.peak)
