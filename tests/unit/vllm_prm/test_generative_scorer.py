"""Critiques generated, counted and averaged, against a generator that is a function of prompt and seed."""

import asyncio
import json

import pytest
from character_critic import RIGHT, STEPS, WRONG, family, said, text_of

from vllm_prm.errors import ContextLengthError, StepScoringError
from vllm_prm.generative_scorer import AsyncGenerator, GenerativeScorer, OfflineGenerator
from vllm_prm.protocol import StepRewardItem
from vllm_prm.score_file import add_arguments, score_file
from vllm_prm.scorer import Usage


class FakeGenerator(OfflineGenerator):
    """Answers each prompt by a function of it and of the sample's seed."""

    def __init__(self, made, answer, max_model_len=4096):
        self.made, self.answer, self.max_model_len = made, answer, max_model_len
        self.batches, self.requests = [], []

    def generate(self, requests):
        self.batches.append(len(requests))
        return [self.one(request) for request in requests]

    def one(self, request):
        self.requests.append(request)
        assert len(request.token_ids) + request.params["max_tokens"] <= self.max_model_len
        return self.answer(text_of(self.made, request.token_ids), request.params["seed"])


def make_scorer(answer, max_model_len=4096, **options):
    made = family(**options)
    return GenerativeScorer(FakeGenerator(made, answer, max_model_len), made)


def test_samples_are_averaged_and_malformed_ones_counted():
    answers = [f"{RIGHT} {RIGHT}", f"{RIGHT} {WRONG}", "hm", f"{RIGHT} {RIGHT}"]
    scorer = make_scorer(lambda prompt, seed: said(answers[seed // 1009]), samples=4)
    [critiqued, other] = scorer.critique([("q", STEPS), StepRewardItem(question="q", response="a\n\nb\n")])
    assert critiqued.step_scores == other.step_scores == pytest.approx([1.0, 2 / 3])
    assert critiqued.malformed == 1
    assert [sample.critiques for sample in critiqued.samples] == [[answer] for answer in answers]
    assert scorer.engine.batches == [8], "all samples of all solutions go in one batch"
    usage = scorer.usage.as_dict()
    assert (usage["requests"], usage["critiques"], usage["malformed"], usage["steps"]) == (2, 8, 2, 4)
    assert usage["prompt_tokens"] == usage["computed_tokens"] > 0 and usage["generated_tokens"] > 0


def test_empty_and_cut_off_critiques_are_counted_apart():
    answers = [said(f"{RIGHT} {WRONG}"), said(""), said("hm"), said("so far", finished=False)]
    scorer = make_scorer(lambda prompt, seed: answers[seed // 1009], samples=4)
    [critiqued] = scorer.critique([("q", STEPS)])
    assert critiqued.step_scores == [1.0, 0.0]
    counts = {"critiques": 4, "malformed": 1, "empty_critiques": 1, "cut_off_critiques": 1}
    assert critiqued.counts() == counts
    assert counts.items() <= scorer.usage.as_dict().items()


def test_no_verdict_is_no_score():
    scorer = make_scorer(lambda prompt, seed: said("hm"), samples=3)
    assert scorer.score([("q", STEPS)]) == [[None, None]]
    assert scorer.usage.malformed == 3
    assert make_scorer(lambda prompt, seed: said("hm"), malformed_score=0.5).score([("q", STEPS)]) == [[0.5, 0.5]]


def test_no_step_reaches_no_engine():
    scorer = make_scorer(lambda prompt, seed: said(RIGHT))
    assert scorer.score([("q", []), ("q", ["a"])]) == [[], [1.0]]
    assert scorer.engine.batches == [1]
    with pytest.raises(ValueError, match="list of texts"):
        scorer.score([("q", "one text")])


def genprm_answer(prompt, seed):
    if not prompt.endswith("$\\boxed"):
        return said("looked at it.</analyze>")
    return said("{Yes}$", token_ids=[family("genprm").style.choices[0]], log_probs=[(-1.0, -1.0)])


def test_turns_of_a_conversation_run_in_step_across_solutions():
    scorer = make_scorer(genprm_answer, style="genprm", samples=2)
    assert scorer.score([("q", STEPS), ("q", ["a"])]) == [[0.5, 0.5], [0.5]]
    assert scorer.engine.batches == [4, 4, 2, 2]
    seeds = [request.params["seed"] for request in scorer.engine.requests]
    assert len(set(seeds)) == 8, "each turn of each sample has a seed of its own"


def test_too_long():
    def answer(prompt, seed):
        return said(" ".join([RIGHT] * prompt.count("Step ")))

    length = len(family().render("q", ["abcd"] * 2).token_ids)
    scorer = make_scorer(answer, max_model_len=length + 5)
    with pytest.raises(ContextLengthError, match="max_model_len"):
        scorer.score([("q", ["abcd"] * 4)])
    assert scorer.score([("q", ["abcd"] * 4)], truncate=True) == [[1.0, 1.0, None, None]]
    assert scorer.score([("q" * 400, ["abcd"])], truncate=True) == [[None]]


def test_a_conversation_that_outgrows_the_context():
    long = make_scorer(genprm_answer, style="genprm")
    long.score([("q", ["abcd"] * 4)])
    limit = (
        len(long.engine.requests[-4].token_ids) + 25
    )  # the second step's judgement fits, the third analysis does not
    scorer = make_scorer(genprm_answer, max_model_len=limit + 30, style="genprm")
    with pytest.raises(ContextLengthError):
        scorer.score([("q", ["abcd"] * 4)])
    [scores] = scorer.score([("q", ["abcd"] * 4)], truncate=True)
    assert scores == [0.5] * scores.index(None) + [None] * (4 - scores.index(None))
    assert 0 < scores.index(None) < 4


class FakeAsyncGenerator(AsyncGenerator):
    def __init__(self, inner):
        self.inner, self.max_model_len = inner, inner.max_model_len

    async def generate_one(self, request):
        await asyncio.sleep(0)
        return self.inner.one(request)


def test_asynchronous_calls():
    answer = genprm_answer
    made = family("genprm", samples=3)
    scorer = GenerativeScorer(FakeAsyncGenerator(FakeGenerator(made, answer)), made)

    async def run():
        return await asyncio.gather(*[scorer.score_async("q", ["a"] * count) for count in range(4)])

    assert asyncio.run(run()) == [[0.5] * count for count in range(4)]
    assert scorer.usage.critiques == 9
    with pytest.raises(ValueError, match="score_async"):
        scorer.score([("q", ["a"])])
    with pytest.raises(ValueError, match="call score"):
        asyncio.run(make_scorer(answer).score_async("q", ["a"]))


def test_no_answer_mixes_critiques_of_two_weights():
    """A weight update between two turns: the solution is judged again, and what was written before is counted."""
    made = family("genprm", samples=2)
    scorer = GenerativeScorer(FakeAsyncGenerator(FakeGenerator(made, genprm_answer)), made)
    inner, usage = scorer.engine.inner, Usage()

    async def run(updates):
        task = asyncio.create_task(scorer.output_fields_async("q", ["a", "b"], truncate=False, usage=usage))
        for number in range(1, updates + 1):
            while len(inner.requests) < 8 * number - 4 and not task.done():
                await asyncio.sleep(0)
            scorer.score_cache.clear()
        return await task

    assert asyncio.run(run(1)) == {
        "step_rewards": [0.5, 0.5],
        "critiques": 2,
        "malformed": 0,
        "empty_critiques": 0,
        "cut_off_critiques": 0,
    }
    assert len(inner.requests) == 16
    assert usage.prompt_tokens == sum(len(request.token_ids) for request in inner.requests)
    assert (usage.requests, usage.critiques, usage.steps) == (1, 2, 2) and usage == scorer.usage
    inner.requests.clear()
    with pytest.raises(StepScoringError, match="weights changed"):
        asyncio.run(run(100))


def test_score_file_reports_what_was_malformed(tmp_path, monkeypatch):
    import argparse

    scorer = make_scorer(lambda prompt, seed: said("hm" if seed else f"{RIGHT} {WRONG}"), samples=3)
    scorer.engine.shutdown = lambda: None
    monkeypatch.setattr("vllm_prm.score_file._start", lambda *_: scorer)
    (tmp_path / "in.jsonl").write_text(json.dumps({"question": "q", "steps": STEPS}) + "\n")
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.set_defaults(family=None, family_options={})
    add_arguments(parser)
    files = ["--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl")]
    score_file(parser.parse_args(["m", *files, "--aggregate", "min"]))
    row = json.loads((tmp_path / "out.jsonl").read_text())
    assert (row["step_rewards"], row["score"], row["critiques"], row["malformed"]) == ([1.0, 0.0], 0.0, 3, 2)
