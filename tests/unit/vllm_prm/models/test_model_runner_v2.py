"""Our poolers under vLLM's Model Runner V2, which every GPU runs: chunks, preemption, prefix cache, async scheduling.

The runner forgets a request that is preempted, and what it had pooled of it; resumed behind a prefix that is cached by
then, the request never sees those positions again. What must come out right is the answer of the plan, which asks once
more.
"""

import random
from types import SimpleNamespace

import pytest
import torch
from model_runner_v2 import EngineV2, without_triton
from tiny_prm import save_tiny_prm

import vllm_prm
from vllm_prm.engines import PoolAnswer, pooling_params, step_rows
from vllm_prm.families import Rendered
from vllm_prm.families.implicit import RenderedSums
from vllm_prm.incremental import ScorePlan
from vllm_prm.log_prob_sums import SumPlan
from vllm_prm.models.step_log_probs import StepLogProbPooler
from vllm_prm.models.step_pooler import StepPooler
from vllm_prm.score_cache import ScoreCache

LONGEST, TOKENS = 30, (3, 5, 7)


def hidden_state(tokens):
    """Of a prefix's last token: differs with every token before it."""
    value = 0
    for token in tokens:
        value = (31 * value + token) % 1009
    return torch.tensor([float(value)])


def value_at(tokens, position):
    return hidden_state(tokens[: position + 1]).item()


class Steps:
    """Scores at step positions. The logit of token v at hidden state h is h * v."""

    pooler = StepPooler(lambda hidden, token_ids: hidden * torch.tensor(token_ids), (1, 2))

    def plan(self, tokens, ends, cache):
        return ScorePlan(Rendered(tokens, ends), (1, 2), cache)

    def expected(self, tokens, ends):
        return [(value_at(tokens, end), 2 * value_at(tokens, end)) for end in ends]


class Sums:
    """Sums over segments. The log-probability of token v after hidden state h is h + v / 8."""

    pooler = StepLogProbPooler(lambda hidden, targets: hidden[:, 0] + targets / 8)

    def plan(self, tokens, ends, cache):
        return SumPlan(RenderedSums(tokens, ends, first=1, cuts=ends), b"model", cache)

    def expected(self, tokens, ends):
        return [(sum(value_at(tokens, t) + tokens[t + 1] / 8 for t in range(1, end)),) for end in ends]


def draw(rng, known):
    """Tokens and step ends of a solution that is new, or shares a prefix with one before."""
    tokens = list(rng.choice(known)) if known and rng.random() < 0.8 else []
    tokens = tokens[: rng.randint(0, min(len(tokens), LONGEST - 6))]
    tokens += rng.choices(TOKENS, k=rng.randint(6, LONGEST - len(tokens)))
    ends = sorted(rng.sample(range(2, len(tokens)), k=rng.randint(1, min(4, len(tokens) - 2))))
    return tokens, ends


@pytest.fixture(scope="module")
def prm(tmp_path_factory):
    vllm_prm.register()
    return str(save_tiny_prm(tmp_path_factory.mktemp("prm")))


@pytest.mark.parametrize("async_scheduling", [False, True])
@pytest.mark.parametrize("kind", [Steps(), Sums()], ids=["steps", "sums"])
def test_every_schedule_equals_scoring_from_scratch(monkeypatch, prm, kind, async_scheduling):
    without_triton(monkeypatch)
    chunk = 5
    engine = EngineV2(prm, kind.pooler, hidden_state, blocks=14, async_scheduling=async_scheduling, chunk=chunk)
    rng, cache, counts = random.Random(0), ScoreCache(12), SimpleNamespace(requests=0, again=0)
    known: list[list[int]] = []
    for _ in range(60):
        solutions = [draw(rng, known) for _ in range(rng.choice([1, 3, 6]))]
        known = [*known[-20:], *(tokens for tokens, _ in solutions)]
        plans = [kind.plan(tokens, ends, cache) for tokens, ends in solutions]
        while pending := [(plan, request) for plan in plans if (request := plan.request())]:
            counts.requests += len(pending)
            counts.again += sum(plan.attempts > 1 for plan, _ in pending)
            prompts = [(request.token_ids, pooling_params(request)) for _, request in pending]
            for (plan, request), (pooled, cached) in zip(pending, engine.pool(prompts), strict=True):
                rows = step_rows(SimpleNamespace(outputs=SimpleNamespace(data=pooled)))
                plan.absorb(request, PoolAnswer(rows, cached))
        for plan, solution in zip(plans, solutions, strict=True):
            assert plan.rows() == [pytest.approx(row) for row in kind.expected(*solution)]
    print(vars(counts), engine.preemptions, engine.cached_tokens)
    # What would make this test prove less than it says:
    assert engine.preemptions > 10 and engine.cached_tokens > 100 and counts.again > 10
