"""Further attempts of a scripted policy, and what they changed, by hand."""

import asyncio
from functools import partial

import pytest
from scripted_engine import EOS, sample

from openrlhf_prm.data.prompts import PromptOptions
from openrlhf_prm.evaluation.collecting import Judges, Sampling, collect, request_of
from openrlhf_prm.evaluation.further_attempts import FurtherAttempts, summarize_attempts
from openrlhf_prm.evaluation.responses import GradedResponse, LaterAttempt, read_samples, write_samples


class Characters:
    def __call__(self, text, add_special_tokens):
        return {"input_ids": [ord(character) for character in text]}

    def decode(self, tokens, skip_special_tokens=True, **_):
        return "".join(chr(token) for token in tokens if token != EOS)


class Policy:
    def __init__(self, *completions):
        self.completions, self.asked = list(completions), []

    async def generate(self, prompt, **request):
        self.asked.append(("".join(chr(token) if token else "$" for token in prompt), request))
        return [self.completions.pop(0)]


def after(policy, first, **options):
    further = FurtherAttempts(instruction="Hm.", prompts=PromptOptions(), **options)
    request = partial(request_of, Sampling(max_new_tokens=9), 0, 3)
    run = further.after(first, "Q:", request, policy, Characters(), lambda text: "7" in text)
    return asyncio.run(run)


def test_the_second_attempt_reads_question_first_attempt_and_instruction():
    policy = Policy(sample("x=7"))
    [second] = after(policy, sample("x=8"))
    assert policy.asked[0][0] == "Q:x=8$\nHm.\n" and policy.asked[0][1]["max_tokens"] == 9
    assert policy.asked[0][1]["seed"] != request_of(Sampling(), 0, 3)["seed"]
    assert (second.response, second.correct, second.tokens, second.truncated) == ("x=7", True, 4, False)


def test_in_a_chain_the_chain_is_judged():
    policy = Policy(sample("it is"), sample("yes", truncated=True))
    second, third = after(policy, sample("x=7"), within_chain=True, attempts=3)
    assert [asked for asked, _ in policy.asked] == ["Q:x=7\nHm.\n", "Q:x=7\nHm.\nit is\nHm.\n"]
    assert second.correct and third.correct and third.truncated and third.tokens == 3


def test_room_for_all_attempts():
    further = FurtherAttempts(instruction="Hm.")
    further.check_room(["Q:"], Characters(), 9, 25)
    with pytest.raises(
        ValueError, match="^--self_correction.attempts 2 of 9 tokens, with a question of 2, may need 25"
    ):
        further.check_room(["Q:", ""], Characters(), 9, 24)
    further.check_room(["Q:"], Characters(), 9, None)


def graded(index, kind, first, *later, texts=None):
    texts = texts or [f"text {place}" for place in range(len(later) + 1)]
    attempts = [LaterAttempt(text, None, right, 5, False) for text, right in zip(texts[1:], later, strict=True)]
    one = dict(question="q", label="7", response=texts[0], answer=None, correct=first, steps=[], step_scores=None)
    sample = 0 if kind == "sample" else None
    return GradedResponse(index, kind, sample, **one, step_checks=None, tokens=5, truncated=False, later=attempts)


def test_changes_by_hand():
    responses = [
        graded(0, "greedy", True, False),
        graded(0, "sample", False, True, texts=["a b", "a c"]),
        graded(1, "sample", True, True, texts=["a b", "a b "]),
        graded(2, "sample", True, False, texts=["a b", "c d"]),
        graded(3, "sample", False, True, texts=["a b", ""]),
    ]
    got = summarize_attempts(responses)
    assert got["accuracy_t1"] == 0.5 and got["accuracy_t2"] == 0.75 and got["difference"] == 0.25
    assert got["wrong_to_right"] == 0.5 and got["right_to_wrong"] == 0.25
    assert got["difference"] == got["wrong_to_right"] - got["right_to_wrong"]
    assert got["copied"] == 0.25 and got["edit_ratio"] == pytest.approx((0.5 + 0 + 1 + 1) / 4)
    assert got["edit_histogram"] == [0.25, 0, 0.25, 0, 0.5]
    assert got["greedy"]["difference"] == -1.0
    assert set(got["intervals"]) == set(got) - {"edit_histogram", "greedy", "intervals"}
    low, high = got["intervals"]["difference"]
    assert low < 0.25 < high


def test_an_evaluation_asks_behind_every_response_and_keeps_it(tmp_path):
    from openrlhf_prm.data.questions import Question

    policy = Policy(*[sample("x=7")] * 4)

    class Text(Policy):
        async def generate(self, prompt, **request):
            return await policy.generate([ord(c) for c in prompt] if isinstance(prompt, str) else prompt, **request)

    judges = Judges(
        is_correct=lambda text, label: label in text,
        splitter="newline",
        further=FurtherAttempts(instruction="Hm."),
    )
    sampling = Sampling(n_samples_per_prompt=1)
    questions = [Question("1", "Q:", "7")]
    got = asyncio.run(collect(questions, Text(), TokensAsText(), sampling, judges, str))
    assert [len(response.later) for response in got] == [1, 1]
    assert sorted(asked for asked, _ in policy.asked) == ["Q:", "Q:", "Q:x=7$\nHm.\n", "Q:x=7$\nHm.\n"]
    write_samples(tmp_path / "samples.jsonl", got)
    assert read_samples(tmp_path / "samples.jsonl") == got


class TokensAsText(Characters):
    """Also for the splitter."""

    all_special_ids = [EOS]
