"""Selection of right responses by hand, the SFT file and sampling, without an engine."""

import asyncio
import json
from types import SimpleNamespace

import pytest

from examples.quickstart.make_policy import build_tokenizer
from openrlhf_prm.data.questions import Question
from openrlhf_prm.generation.sampler import Candidate, SampledQuestion, Sampler, SamplerOptions
from openrlhf_prm.generation.samples_file import SamplesFile
from openrlhf_prm.generation.scored_engine import ScoredEngine
from openrlhf_prm.generation.selection import SelectionOptions, select, step_set, whitespace
from openrlhf_prm.generation.sft_data import sft_flags, write_selection


def candidate(text, scores=None):
    return Candidate(text, [line for line in text.split("\n") if line], len(text), scores)


def texts(selection):
    return [one.response for one, _ in selection.kept]


# -- selection -------------------------------------------------------------------------------------------------------


def test_the_best_come_first():
    candidates = [candidate("a", [0.9, 0.2]), candidate("b", [0.5, 0.5]), candidate("c", [0.9, 0.4]), candidate("d")]
    assert texts(select(candidates, SelectionOptions())) == ["b", "c", "a", "d"]  # min; without scores last
    assert texts(select(candidates, SelectionOptions(aggregation="mean"))) == ["c", "a", "b", "d"]
    chosen = select(candidates, SelectionOptions(max_per_question=2))
    assert (texts(chosen), chosen.beyond_cap) == (["b", "c"], 2)
    assert [score for _, score in chosen.kept] == [0.5, 0.4]


def test_a_lower_limit_leaves_out_what_has_no_score():
    candidates = [candidate("a", [0.9]), candidate("b", [0.3]), candidate("c", [0.9, None]), candidate("d", [])]
    chosen = select(candidates, SelectionOptions(min_score=0.5))
    assert (texts(chosen), chosen.below_score) == (["a"], 3)


def test_duplicates_of_better_ones_are_dropped():
    same = [candidate("a b\nc", [0.1]), candidate("a  b\nc\n", [0.9]), candidate("a b\nc", [0.5])]
    exact = select(same, SelectionOptions(similarity="exact"))
    assert (texts(exact), exact.duplicates) == (["a  b\nc\n", "a b\nc"], 1)
    loose = select(same, SelectionOptions())
    assert (texts(loose), loose.duplicates) == (["a  b\nc\n"], 2)


def test_near_duplicates_by_their_steps():
    a, b, c = candidate("1\n2\n3\n4"), candidate("1\n 2\n3\n5"), candidate("4\n3\n2\n1\n1")
    assert step_set(a, b) == pytest.approx(3 / 5) and step_set(a, c) == 1.0 and whitespace(a, c) == 0.0
    assert step_set(candidate(""), candidate("")) == 1.0 and step_set(candidate(""), a) == 0.0
    assert texts(select([a, b, c], SelectionOptions(similarity="step_set"))) == [a.response, b.response]
    assert texts(select([a, b, c], SelectionOptions(similarity="step_set", duplicate_from=0.6))) == [a.response]


def test_nothing_to_select_from():
    chosen = select([], SelectionOptions())
    assert chosen.kept == [] and chosen.duplicates == chosen.beyond_cap == chosen.below_score == 0


# -- the file --------------------------------------------------------------------------------------------------------


def test_the_sft_file_and_the_counts(tmp_path):
    questions = [Question("1", "q1", "7"), Question("2", "q2", "7"), Question("3", "q3", "7")]
    with SamplesFile(tmp_path / "samples.jsonl", {}) as samples:
        samples.append_all([(questions[2], SampledQuestion(4, 1, [candidate("x"), candidate("x"), candidate("y")]))])
        samples.append_all([(Question("0", "gone", "7"), SampledQuestion(4, 0, [candidate("z")]))])
        samples.append_all([(questions[1], SampledQuestion(4, 0, []))])
        samples.append_all([(questions[0], SampledQuestion(4, 0, [candidate("w", [0.5])]))])
        output = tmp_path / "sft.jsonl"
        counts = write_selection(
            output,
            questions,
            samples,
            SelectionOptions(max_per_question=1),
            lambda q, r: {"input": q.question, "output": r},
        )
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert rows == [
        {"input": "q1", "output": "w", "id": "1", "score": 0.5},
        {"input": "q3", "output": "x", "id": "3", "score": None},
    ]
    assert counts == {
        "questions": 3,
        "sampled": 12,
        "truncated": 1,
        "correct": 4,
        "below_score": 0,
        "duplicates": 1,
        "beyond_cap": 1,
        "kept": 2,
        "questions_without_correct": 1,
        "questions_without_any": 1,
    }
    assert counts["correct"] == sum(counts[name] for name in ("below_score", "duplicates", "beyond_cap", "kept"))


def test_the_host_trains_on_exactly_what_was_sampled(tmp_path):
    from openrlhf.datasets.sft_dataset import SFTDataset, preprocess_data

    tokenizer = build_tokenizer()
    row = {"input": "Q: 12+35=?\n", "output": "12+35=47\nAnswer: 47\n" + tokenizer.eos_token}
    prompt, response = preprocess_data(row, "{}", "input", "output")
    assert (prompt, response) == (row["input"], row["output"])
    data = SFTDataset.__new__(SFTDataset)
    data.__dict__.update(tokenizer=tokenizer, max_length=64, pretrain_mode=False, multiturn=False)
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    data.__dict__.update(prompts=[prompt], responses=[response], prompt_ids_lens=[len(ids)])
    input_ids, _, loss_mask = data[0]
    learned = [token for token, mask in zip(input_ids[0, 1:].tolist(), loss_mask[0].tolist(), strict=False) if mask]
    assert learned == tokenizer("12+35=47\nAnswer: 47\n", add_special_tokens=False)["input_ids"] + [
        tokenizer.eos_token_id
    ]


def test_the_flags_for_the_host():
    assert sft_flags("a b.jsonl", False).endswith("--data.input_template '{}'") and "'a b.jsonl'" in sft_flags(
        "a b.jsonl", False
    )
    assert sft_flags("x", True).endswith("--data.apply_chat_template")


# -- sampling --------------------------------------------------------------------------------------------------------


class Letters:
    def __call__(self, text, **_):
        return {"input_ids": list(map(ord, text))}

    def decode(self, token_ids, **_):
        return "".join(map(chr, token_ids))


class Engine:
    """Answers 7, 8, 7 cut short."""

    async def generate(self, prompt, **sampling):
        texts = ["a\nAnswer: 7", "Answer: 8", "Answer: 7"]
        return [SimpleNamespace(token_ids=list(map(ord, text)), truncated=i == 2) for i, text in enumerate(texts)]


def test_right_and_finished_responses_are_candidates():
    sampler = Sampler(
        Engine(), Letters(), lambda text, label: text.endswith(label), SamplerOptions(n_samples_per_prompt=3)
    )
    found = asyncio.run(sampler.annotate("q\n", "7"))
    assert found == SampledQuestion(3, 1, [Candidate("a\nAnswer: 7", ["a", "Answer: 7"], 11)])

    class Prm:
        async def score(self, question, steps):
            return [len(question) / 10] * len(steps)

    class Before:
        async def annotate(self, question):
            return found

    scored = asyncio.run(ScoredEngine(Before(), Prm()).annotate(Question("1", "four", "7")))
    assert scored.candidates[0].step_scores == [0.4, 0.4]
