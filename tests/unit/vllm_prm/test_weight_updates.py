"""Scores are forgotten when others touch the weights."""

import asyncio
import types

import pytest
from letter_prm import Letters

from vllm_prm.scorer import StepScorer
from vllm_prm.weight_updates import WATCHED_CALLS


class SharedClient:
    """What vLLM's server hands to its plugins, as far as weight updates go; `seen` records the cache at each call."""

    def __init__(self):
        self.seen = []

    async def _call(self, *args, **kwargs):
        self.seen.append((len(self.scorer.score_cache), args, kwargs))
        self.scorer.score_cache.put(b"computed meanwhile", (1.0,), self.scorer.score_cache.generation)
        return "answer"


for _name in WATCHED_CALLS:
    setattr(SharedClient, _name, SharedClient._call)


@pytest.mark.parametrize("name", WATCHED_CALLS)
def test_scores_are_forgotten_before_and_after_others_touch_the_weights(name):
    client = SharedClient()
    client.model_config = types.SimpleNamespace(max_model_len=64)
    client.scorer = scorer = StepScorer.from_engine(client, Letters())
    scorer.score_cache.put(b"old", (1.0,), 0)
    assert asyncio.run(getattr(client, name)(1, key=2)) == "answer"
    assert client.seen == [(0, (1,), {"key": 2})]
    assert len(scorer.score_cache) == 0


def test_scores_are_forgotten_when_an_update_fails():
    client = SharedClient()
    client.model_config = types.SimpleNamespace(max_model_len=64)

    async def broken():
        scorer.score_cache.put(b"half", (1.0,), scorer.score_cache.generation)
        raise RuntimeError("broken off")

    client.update_weights = broken
    scorer = StepScorer.from_engine(client, Letters())
    with pytest.raises(RuntimeError, match="broken off"):
        asyncio.run(client.update_weights())
    assert len(scorer.score_cache) == 0
