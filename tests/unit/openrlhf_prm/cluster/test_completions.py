"""Samples of an engine: cut, ended, or taken again because they are neither."""

import asyncio

import pytest

from openrlhf_prm.cluster.workers import Completion, GenerationWorker, UnfinishedCompletion, was_cut


def test_a_sample_ends_by_itself_or_at_the_limit():
    assert not was_cut("stop") and was_cut("length")
    for reason in ("abort", "error", "content_filter", None):
        with pytest.raises(UnfinishedCompletion, match=f"ended by {reason!r}"):
            was_cut(reason)


class Failing(GenerationWorker):
    """A worker whose engine aborts the first samples."""

    def __init__(self, failures: int):
        self.failures = failures

    async def _generate(self, prompt, sampling):
        self.failures -= 1
        if self.failures >= 0:
            was_cut("abort")
        return [Completion("x", [1], False)]


def test_samples_that_did_not_end_are_taken_again_and_then_an_error():
    assert asyncio.run(Failing(2).generate([1], {})) == [Completion("x", [1], False)]
    with pytest.raises(UnfinishedCompletion):
        asyncio.run(Failing(3).generate([1], {}))
