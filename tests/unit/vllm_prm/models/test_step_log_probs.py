"""The pooler's sums of log-probabilities over any schedule of prefill pieces, preemption included; no engine."""

import random

import pytest
from pooler_schedule import forward
from vllm import PoolingParams
from vllm.v1.pool.metadata import PoolingStates

from vllm_prm.models.step_log_probs import StepLogProbPooler


def read(hidden, targets):
    """A stand-in for the head: hidden state h and target v give h + v / 1000."""
    return hidden[:, 0] + targets / 1000


class Request:
    """Hidden state t of this request is `base` + t; the target after it is 7 t."""

    def __init__(self, base, length, spans):
        self.base, self.length, self.spans = base, length, spans
        self.targets = [7 * t for first, end in spans for t in range(first, end)]
        kwargs = {"spans": spans, "targets": self.targets}
        self.params = PoolingParams(task="token_classify", extra_kwargs=kwargs)
        self.state = PoolingStates()

    def expected(self, start):
        """What must come back when tokens before `start` were never forwarded."""
        rows = []
        for first, end in self.spans:
            seen = range(max(first, start), end)
            rows.append([end, len(seen), sum(self.base + t + 7 * t / 1000 for t in seen)])
        return rows


SPANS = [(3, 9), (9, 10), (14, 20)]


def test_requests_share_a_batch_and_one_wants_nothing():
    first, second, idle = Request(100, 20, SPANS), Request(200, 5, [(0, 5)]), Request(0, 4, [])
    output = forward(StepLogProbPooler(read), [(first, 0, 20), (idle, 0, 4), (second, 0, 5)])
    assert output[0].tolist() == [pytest.approx(row, rel=1e-6) for row in first.expected(0)]
    assert output[1].shape == (0, 3)
    assert output[2].tolist() == [pytest.approx(row, rel=1e-6) for row in second.expected(0)]


def test_a_warm_up_request_has_no_arguments():
    idle = Request(0, 4, [])
    idle.params.extra_kwargs = None
    assert forward(StepLogProbPooler(read), [(idle, 0, 4)])[0].shape == (0, 3)


@pytest.mark.parametrize("cached", [0, 3, 5, 9, 16])
def test_what_the_prefix_cache_hides_is_counted_out(cached):
    request = Request(0, 20, SPANS)
    [output] = forward(StepLogProbPooler(read), [(request, cached, 20 - cached)])
    assert output.tolist() == [pytest.approx(row, rel=1e-6) for row in request.expected(cached)]


@pytest.mark.parametrize("seed", range(20))
def test_pieces_and_preemption_count_no_position_twice(seed):
    rng = random.Random(seed)
    pooler, request = StepLogProbPooler(read), Request(10, 20, SPANS)
    start = position = rng.choice([0, 4, 8])
    output = None
    while output is None:
        if rng.random() < 0.3:  # preempted: begins again, after what the prefix cache holds of it
            position = rng.choice([start, *(block for block in (4, 8, 12) if start <= block <= position)])
        count = rng.randint(1, 20 - position)
        [output] = forward(pooler, [(request, position, count)])
        position += count
    assert output.tolist() == [pytest.approx(row, rel=1e-6) for row in request.expected(start)]
    assert request.state.hidden_states_cache == []


def test_a_prefix_that_was_cached_during_a_preemption_hides_what_lies_before_it():
    pooler, request = StepLogProbPooler(read), Request(10, 20, SPANS)
    assert forward(pooler, [(request, 0, 5)]) == [None]
    # Another request with this prefix went further meanwhile: tokens 5 to 15 are not forwarded any more.
    [output] = forward(pooler, [(request, 16, 4)])
    assert output.tolist() == [pytest.approx(row, rel=1e-6) for row in request.expected(16)]
