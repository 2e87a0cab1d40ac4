r"""Generative PRMs on real vLLM: a random critic, whose critiques are malformed and counted, and one that was taught a
few critiques by heart, whose verdicts are known."""

import asyncio
from pathlib import Path

import pytest
import torch
from tiny_chat_lm import save_tiny_chat_lm
from tiny_critic import BAD, GOOD, GREEDY, QUESTION, lessons, save_taught_critic
from transformers import AutoModelForCausalLM

from vllm_prm.errors import ContextLengthError
from vllm_prm.families import load_family
from vllm_prm.families.critics.critic import Critique, chance
from vllm_prm.families.critics.r_prm import QUESTION as QUESTION_OF_R_PRM
from vllm_prm.scorer import StepScorer

pytestmark = pytest.mark.stack

ENGINE_ARGS = {
    "dtype": "float32",
    "enforce_eager": True,
    "kv_cache_memory_bytes": 32 << 20,
    "max_num_seqs": 16,
    "max_num_batched_tokens": 1024,
}


@pytest.fixture(scope="module")
def critic(tmp_path_factory):
    return save_taught_critic(tmp_path_factory.mktemp("critic"))


@pytest.fixture(scope="module")
def thinkprm(critic):
    scorer = StepScorer.from_pretrained(
        str(critic), "generative", family_options={"style": "thinkprm", **GREEDY}, **ENGINE_ARGS
    )
    yield scorer
    scorer.shutdown()


def sharing(scorer: StepScorer, path: Path, **options) -> StepScorer:
    """Another family over the engine of `scorer`."""
    return type(scorer)(scorer.engine, load_family(str(path), "generative", options=options))


def test_known_critiques_give_known_scores(thinkprm):
    good, bad = thinkprm.critique([(QUESTION, GOOD), (QUESTION, BAD)])
    print(good.samples, bad.samples)
    assert (good.step_scores, good.malformed) == ([1.0, 1.0], 0)
    assert (bad.step_scores, bad.malformed) == ([1.0, 0.0], 0)
    assert thinkprm.usage.generated_tokens > 20


def test_genprm_weighs_yes_against_no_as_transformers_does(thinkprm, critic):
    scorer = sharing(thinkprm, critic, style="genprm", **GREEDY)
    good, bad = scorer.score([(QUESTION, GOOD), (QUESTION, BAD)])
    print("genprm", good, bad)
    assert min(*good, bad[0]) > 0.5 > bad[1]

    model = AutoModelForCausalLM.from_pretrained(critic, dtype=torch.float32)
    yes, no = scorer.family.style.choices
    expected = []
    for prompt, answer in sorted(lessons(critic)):
        for word in {yes, no} & set(answer):
            tokens = torch.tensor([prompt + answer[: answer.index(word)]])
            with torch.no_grad():
                expected.append(model(tokens).logits[0, -1, [yes, no]].softmax(0)[0].item())
    scores = sorted({*good, *bad})
    assert len(scores) == len(expected) == 3
    assert max(abs(a - b) for a, b in zip(scores, sorted(expected), strict=True)) < 1e-4


@pytest.mark.parametrize(
    ("style", "options", "asks"),
    [
        ("thinkprm", {}, 4),
        # A critique and a decision for each of 1 + 1 + 3 + 12 prefixes.
        ("thinkprm", {"scores": "prefixes"}, 2 * 17),
        ("processbench", {}, 4),
        ("proof", {}, 4),
        ("genprm", {}, 2 * 17),
    ],
)
def test_what_is_written_is_what_transformers_writes(thinkprm, critic, style, options, asks, monkeypatch):
    """One step, an empty one, many of them: greedy critiques token by token, and the probabilities of GenPRM and of
    ThinkPRM's decisions, which no verdict needs to confirm."""
    scorer = sharing(thinkprm, critic, style=style, **{**GREEDY, "max_tokens": 12}, **options)
    asked = []
    generate = scorer.engine.generate

    def recorded(requests):
        asked.extend(zip(requests, answers := generate(requests), strict=True))
        return answers

    monkeypatch.setattr(scorer.engine, "generate", recorded)
    chains = [["one"], [""], ["a", "", "c"], ["a"] * (12 if asks > 4 else 200)]
    scores = scorer.score([(QUESTION, chain) for chain in chains])
    assert [len(entry) for entry in scores] == [len(chain) for chain in chains]

    model = AutoModelForCausalLM.from_pretrained(critic, dtype=torch.float32)
    figures = [0.0]
    for request, answer in asked:
        ids = torch.tensor([request.token_ids + answer.token_ids])
        with torch.no_grad():
            # The logits that each generated token was chosen from.
            log_probs = model(ids).logits[0, len(request.token_ids) - 1 : -1].log_softmax(-1)
        assert log_probs.argmax(-1).tolist() == answer.token_ids
        if request.choices is not None:
            difference = torch.tensor(answer.log_probs) - log_probs[:, list(request.choices)]
            figures.append(difference.abs().max().item())
    print(f"generative {style} {options}: {len(asked)} critiques alike, log-probabilities within {max(figures):.1e}")
    assert max(figures) < 1e-4 and len(asked) == asks
    if options:
        assert len(figures) == 1 + 17 and None not in [score for entry in scores for score in entry]


def test_r_prm_weighs_yes_against_no_as_transformers_does(thinkprm, critic):
    """After analyses that come to its question, which a random critic never does by itself."""
    scorer = sharing(thinkprm, critic, style="r_prm", **GREEDY)
    requests = []
    for steps in ([""], ["one"], ["a", "", "c"]):
        conversation = scorer.family.conversation(QUESTION, steps)
        next(conversation)
        for number in range(len(steps)):
            ended = Critique(f"Analysis {number}. Verification: {QUESTION_OF_R_PRM}", [1], True)
            requests.append(scorer.request(conversation.send(ended), 0, number, False))
            if number + 1 < len(steps):
                conversation.send(Critique(" Yes", [1], True, [(-0.1, -2.0)]))
    answers = scorer.engine.generate(requests)

    model = AutoModelForCausalLM.from_pretrained(critic, dtype=torch.float32)
    figures = []
    for request, answer in zip(requests, answers, strict=True):
        with torch.no_grad():
            expected = model(torch.tensor([request.token_ids])).logits[0, -1, list(scorer.family.style.choices)]
        figures.append(abs(expected.softmax(0)[0].item() - chance(answer.log_probs[0])))
    print(f"generative r_prm: {len(figures)} decisions within {max(figures):.1e}")
    assert len(figures) == 5 and max(figures) < 1e-4


def test_samples_differ_and_can_be_repeated(thinkprm, critic):
    scorer = sharing(thinkprm, critic, style="processbench", samples=3, seed=5, temperature=1.5, max_tokens=16)
    first, again = (scorer.critique([(QUESTION, GOOD)])[0] for _ in range(2))
    texts = [sample.critiques for sample in first.samples]
    assert texts == [sample.critiques for sample in again.samples]
    assert len({text for (text,) in texts}) > 1
    # It was never taught this style: nothing can be read, and that is said.
    assert first.step_scores == [None, None] and first.malformed + first.counts()["cut_off_critiques"] == 3
    assert scorer.usage.malformed + scorer.usage.cut_off_critiques == 6


def test_context_length(thinkprm):
    steps = ["2+12=14 " * 10] * 100
    with pytest.raises(ContextLengthError, match="max_model_len"):
        thinkprm.score([(QUESTION, steps)])
    [scores] = thinkprm.score([(QUESTION, steps)], truncate=True)
    assert len(scores) == 100 and scores[-1] is None


def test_a_random_critic_asynchronously(tmp_path):
    path = save_tiny_chat_lm(tmp_path, "llama")

    async def run():
        scorer = StepScorer.from_pretrained(
            str(path),
            "generative",
            "async",
            family_options={"style": "genprm", "samples": 2, "max_tokens": 8},
            distributed_executor_backend="uni",
            **ENGINE_ARGS,
        )
        try:
            scores = await asyncio.gather(*[scorer.score_async(QUESTION, GOOD[:count]) for count in range(3)])
            assert [len(entry) for entry in scores] == [0, 1, 2]
            assert all(score is None or 0 <= score <= 1 for entry in scores for score in entry)
            # 2 samples of 1 + 2 steps; what random tokens say is hardly ever a judgement.
            assert scorer.usage.critiques == 4 and 0 < scorer.usage.malformed <= 6
            await scorer.reset_cache_async()
        finally:
            scorer.shutdown()

    asyncio.run(run())
