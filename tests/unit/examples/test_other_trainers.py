"""Token advantages with torch alone."""

import subprocess
import sys

import pytest

from examples.other_trainers.token_advantages import token_advantages
from examples.other_trainers.trl_grpo import last_number_is_right


def test_token_advantages_by_hand():
    """Sum of r = 2p - 1 and the outcome, against the other sample: returns 1.6, 1.8 and -1.0."""
    rows = token_advantages([[0.4, 0.9], [0.0]], [[1, 3], [2]], [1.0, 0.0], 2, shaping="sum", estimator="step_returns")
    assert rows[0].tolist() == pytest.approx([0.6 + 1.0 + 1.0, 0.8 + 1.0, 0.8 + 1.0])
    assert rows[1].tolist() == pytest.approx([-1.0 - 1.0 - 0.6] * 2)


def test_neither_host_is_imported():
    code = (
        "import sys; from examples.other_trainers.token_advantages import main; main(); "
        "assert not {'vllm', 'openrlhf', 'ray', 'deepspeed', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2


@pytest.mark.parametrize(
    ("response", "right"), [("2 + 3 = 5", 1.0), ("5 is no 6.", 0.0), ("", 0.0), ("so -5", 0.0), ("5.0", 1.0)]
)
def test_the_outcome(response, right):
    assert last_number_is_right(response, {"answer": "5"}) == right
