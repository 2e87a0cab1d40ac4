"""Implicit PRMs: where steps end, what the sums become, and the bookkeeping against an engine that is a function of the
token prefix and caches whole blocks."""

import asyncio
import json
import random

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from vllm_prm.engines import AsyncEngine, OfflineEngine, PoolAnswer
from vllm_prm.errors import ContextLengthError, StepScoringError
from vllm_prm.families.implicit import ImplicitFamily
from vllm_prm.implicit_scorer import AsyncPair, ImplicitScorer, OfflinePair, _live_together
from vllm_prm.serve import serve_command

SPECIAL = ["<|begin|>", "<|im_start|>", "<|im_end|>", "<|eot_id|>"]
VOCABULARY = ["<unk>", *SPECIAL, *"abcdefghijklmnopqrstuvwxyzSQ0123456789:.?+= \n", "\n\n", ".\n\n"]
VOCABULARY_SIZE = len(VOCABULARY)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "<|begin|>{% for m in messages %}<|im_start|>{{ m.role }}\n\n{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n\n{% endif %}"
)
BARE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def make_tokenizer(chat_template=CHATML):
    """One token per character, but one for a blank line, and one for a full stop with a blank line after it."""
    ids = {token: index for index, token in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\.?\n\n|[\s\S]"), behavior="isolated")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")
    fast.add_special_tokens({"additional_special_tokens": SPECIAL})
    fast.chat_template = chat_template
    return fast


def family(chat_template=CHATML, **options):
    return ImplicitFamily(make_tokenizer(chat_template), reference="elsewhere", **options)


def published(tokenizer, question, steps):
    """Tokens, first counted token and step ends (indices of tokens) as EurusPRM's card computes them."""

    def conversation(count):
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": "\n\n".join(steps[:count])}]
        return tokenizer.apply_chat_template(messages, tokenize=False)

    lengths = []
    for count in range(len(steps) + 1):
        text = conversation(count).strip()
        if count != len(steps):
            text = text.removesuffix("<|eot_id|>")
            text += "\n\n" if count else ""
        lengths.append(len(tokenizer.encode(text, add_special_tokens=False)))
    # Their mask begins at token lengths[0] - 2; a sum read at index i of the shifted log-probabilities ends with token
    # i + 1, and they read it at length - 2.
    tokens = tokenizer.encode(conversation(len(steps)), add_special_tokens=False)
    return tokens, lengths[0] - 2, [length - 1 for length in lengths[1:]]


STEPS = ["Step 1: a=2.", "Step 2: so b", "Step 3: b=4.", "Step 4: 4"]


@pytest.mark.parametrize("template", [CHATML, LLAMA3, BARE])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_boundaries_are_the_published_ones(template, count):
    made = family(template)
    rendered = made.render("what is b?", STEPS[:count])
    tokens, start, ends = published(made.tokenizer, "what is b?", STEPS[:count])
    assert rendered.token_ids == tokens[: ends[-1] + 1]
    assert rendered.first == start - 1
    assert rendered.step_positions == ends
    assert set(ends) <= set(rendered.cuts) and rendered.cuts == sorted(set(rendered.cuts))


def test_published_boundaries_reach_into_the_next_step():
    made = family()
    rendered = made.render("q?", ["Step 1: a.", "Step 2: b", "Step 3: c"])
    read = made.tokenizer.convert_ids_to_tokens(rendered.token_ids)
    ends = [read[end - 2 : end + 1] for end in rendered.step_positions]
    # After ".\n\n" two tokens of the next step are counted, after "\n\n" one; the last step ends with the template.
    assert ends == [[".\n\n", "S", "t"], ["b", "\n\n", "S"], [" ", "c", "<|im_end|>"]]


def test_exact_boundaries_end_with_the_blank_line():
    made = family(boundaries="exact")
    rendered = made.render("q?", ["a.", "b"])
    read = made.tokenizer.convert_ids_to_tokens(rendered.token_ids)
    assert "".join(read[rendered.first + 1 :]) == "Step 1: a.\n\nStep 2: b\n\n"
    assert [read[end] for end in rendered.step_positions] == [".\n\n", "\n\n"]
    shorter = made.render("q?", ["a."])
    assert rendered.token_ids[: len(shorter.token_ids)] == shorter.token_ids


@pytest.mark.parametrize("boundaries", ["eurus", "exact"])
def test_numbering(boundaries):
    made = family(boundaries=boundaries)
    assert made.render("q", ["a", "b"]) == made.render("q", ["Step 1: a", "Step 2: b"])
    assert made.render("q", ["a", "b"]) != family(boundaries=boundaries, number_steps=False).render("q", ["a", "b"])


@pytest.mark.parametrize("boundaries", ["eurus", "exact"])
@pytest.mark.parametrize("steps", [[], [""], ["", ""], ["a"] * 200, ["<|im_end|>\n<|im_start|>user"]])
def test_one_end_per_step(boundaries, steps):
    rendered = family(boundaries=boundaries, number_steps=False).render("q", steps)
    ends = rendered.step_positions
    assert len(ends) == len(steps) and ends == sorted(ends)
    assert all(rendered.first <= end < len(rendered.token_ids) for end in ends)
    special = [family().tokenizer.convert_tokens_to_ids(token) for token in SPECIAL]
    # The template's turns only: a step cannot write one.
    assert sum(token in special for token in rendered.token_ids[rendered.first + 1 :]) <= 2


def test_messages_are_the_conversation():
    made = family()
    assert made.render([{"role": "user", "content": "q"}], ["a"]) == made.render("q", ["a"])
    assert made.render([{"role": "system", "content": "s"}, {"role": "user", "content": "q"}], ["a"]).first > 12


def test_scores_are_the_differences_of_the_sums():
    rows = [(-2.0, -3.0), (-5.0, -5.0), (-9.0, -8.0)]
    assert family(beta=0.5).decode(rows) == [0.5, -0.5, -0.5]
    assert family(beta=0.5, cumulative=True).decode(rows) == [0.5, 0.0, -0.5]
    assert family(beta=2, cumulative=True, sigmoid=True).decode([(-1.0, -1.0)]) == [0.5]
    assert sum(family().decode(rows)) == pytest.approx(0.05 * (-9 + 8))
    assert family().decode([]) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "reference"),
        ({"reference": "r", "beta": 0}, "beta must be a finite number above 0"),
        ({"reference": "r", "beta": float("nan")}, "beta must be a finite number above 0"),
        ({"reference": "r", "boundaries": "loose"}, "boundaries"),
        ({"reference": "r", "gamma": 1}, "has no option gamma"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        ImplicitFamily(make_tokenizer(), **options)


def save(path, *, vocab_size=VOCABULARY_SIZE, tokenizer=None, **prm):
    path.mkdir()
    (tokenizer or make_tokenizer()).save_pretrained(path)
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": vocab_size}
    (path / "config.json").write_text(json.dumps({**config, **({"prm": prm} if prm else {})}))
    return str(path)


def test_checkpoint_names_its_reference(tmp_path):
    reference = save(tmp_path / "reference")
    loaded = ImplicitFamily.from_checkpoint(save(tmp_path / "prm", family="implicit", reference=reference, beta=0.001))
    assert loaded.options.beta == 0.001
    assert loaded.hf_overrides()["architectures"] == ["LlamaForStepLogProbs"]
    assert loaded.reference_overrides()["architectures"] == ["LlamaForStepLogProbs"]


def test_the_published_checkpoint_brings_its_coefficient(tmp_path):
    path = save(tmp_path / "EurusPRM-Stage2")
    loaded = ImplicitFamily.from_checkpoint(path, options={"reference": save(tmp_path / "reference")})
    assert (loaded.options.beta, loaded.options.cumulative) == (0.001, True)
    with pytest.raises(ValueError, match="reference"):
        ImplicitFamily.from_checkpoint(path)


def test_the_reference_must_read_the_same_tokens(tmp_path):
    other = make_tokenizer()
    vocabulary = json.loads(other.backend_tokenizer.to_str())
    vocabulary["model"]["vocab"] |= {"a": VOCABULARY.index("b"), "b": VOCABULARY.index("a")}
    other = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(vocabulary)), unk_token="<unk>")
    reference = save(tmp_path / "reference", tokenizer=other)
    with pytest.raises(ValueError, match="must share the vocabulary"):
        ImplicitFamily.from_checkpoint(save(tmp_path / "prm", family="implicit", reference=reference))


def test_the_reference_must_have_room_for_the_tokens(tmp_path):
    reference = save(tmp_path / "reference", vocab_size=5)
    with pytest.raises(ValueError, match="vocab_size 5, too few"):
        ImplicitFamily.from_checkpoint(save(tmp_path / "prm", family="implicit", reference=reference))


# -- bookkeeping -------------------------------------------------------------------------------------------------

BLOCK = 4


def log_prob(prefix, target, weights):
    return -random.Random(f"{prefix}{target}{weights}").random()


class FakeEngine(OfflineEngine):
    """Sums a made-up log-probability over what is not in its cache of whole blocks; forgets now and then."""

    def __init__(self, weights, max_model_len=4096):
        self.weights, self.max_model_len = weights, max_model_len
        self.seen, self.requests, self.forwarded = set(), [], 0

    def pool(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        self.requests.append(request)
        ids, cached = request.token_ids, 0
        assert ids and request.spans[-1][1] == len(ids), "a token is run that nobody asked about"
        if request.read_prefix_cache:
            while cached + BLOCK < len(ids) and tuple(ids[: cached + BLOCK]) in self.seen:
                cached += BLOCK
        self.forwarded += len(ids) - cached
        self.seen |= {tuple(ids[:end]) for end in range(BLOCK, len(ids) + 1, BLOCK)}
        kwargs, rows, before = request.extra_kwargs(), {}, 0
        for first, end in kwargs["spans"]:
            read = [position for position in range(first, end) if position >= cached]
            targets = kwargs["targets"][before : before + end - first]
            total = sum(log_prob(ids[: p + 1], targets[p - first], self.weights) for p in read)
            rows[end] = (float(len(read)), total)
            before += end - first
        return PoolAnswer(rows, cached)

    def reset_prefix_cache(self):
        self.seen.clear()

    def shutdown(self):
        pass


def make_scorer(score_cache_size=1000, max_model_len=4096, **options):
    engines = OfflinePair(FakeEngine("policy", max_model_len), FakeEngine("reference", max_model_len))
    return ImplicitScorer(engines, family(**options), score_cache_size=score_cache_size)


def expected(made, question, steps):
    rendered = made.render(question, steps)
    rows = []
    for end in rendered.step_positions:
        sums = []
        for weights in ("policy", "reference"):
            ids = rendered.token_ids
            sums.append(sum(log_prob(ids[:t], ids[t], weights) for t in range(rendered.first + 1, end + 1)))
        rows.append(tuple(sums))
    return made.decode(rows)


@pytest.mark.parametrize("boundaries", ["eurus", "exact"])
@pytest.mark.parametrize("score_cache_size", [0, 5, 1000])
def test_any_schedule_gives_what_scratch_gives(boundaries, score_cache_size):
    """Growing, branching and repeating chains, with a cache that forgets: always the sums of a single pass."""
    scorer = make_scorer(score_cache_size, boundaries=boundaries)
    rng = random.Random(boundaries + str(score_cache_size))
    chains = [[]]
    for _ in range(60):
        chain = [*rng.choice(chains), rng.choice(["a.", "ab.", "abc=12", "so b is 7.", "", "ab"])]
        chains.append(chain)
        asked = rng.sample(chains, min(3, len(chains)))
        for got, steps in zip(scorer.score([("q?", steps) for steps in asked]), asked, strict=True):
            assert got == pytest.approx(expected(scorer.family, "q?", steps), abs=1e-12)
        if rng.random() < 0.1:
            rng.choice(scorer.engine.engines).reset_prefix_cache()
        if rng.random() < 0.1:
            scorer.score_cache.clear()


@pytest.mark.parametrize("boundaries", ["eurus", "exact"])
def test_a_growing_chain_forwards_little_more_than_its_new_tokens(boundaries):
    scorer = make_scorer(boundaries=boundaries)
    steps = [f"so a{k} is {k}+{k}." for k in range(20)]
    for count in range(1, len(steps) + 1):
        scorer.score([("what is a?", steps[:count])])
    tokens = len(scorer.family.render("what is a?", steps).token_ids)
    for engine in scorer.engine.engines:
        assert all(request.read_prefix_cache for request in engine.requests)
        # Each growth runs its last block again, and the closing token of the template.
        assert tokens - 1 <= engine.forwarded <= tokens + len(steps) * (BLOCK + 2)
    usage = scorer.usage
    assert usage.computed_tokens == sum(engine.forwarded for engine in scorer.engine.engines)
    before = scorer.usage.computed_tokens
    scorer.score([("what is a?", steps)])
    assert scorer.usage.computed_tokens == before, "a known solution reached the engine"


def test_exact_chains_never_ask_twice():
    """What the prefix cache hides is what was summed before: one request for each growth, block boundaries included."""
    scorer = make_scorer(boundaries="exact")
    steps = [letter * length + "." for length, letter in enumerate("abcdefghij", start=1)]
    for count in range(1, len(steps) + 1):
        scorer.score([("q", steps[:count])])
    assert [len(engine.requests) for engine in scorer.engine.engines] == [len(steps)] * 2


@pytest.mark.parametrize("length", range(4, 8))
def test_branches_that_begin_alike_run_one_block_again(length):
    scorer = make_scorer(boundaries="exact", number_steps=False)
    trunk = "abcdefgh"[:length]
    scorer.score([("q?", [trunk, "klmnopqrs"])])
    before, again = [engine.forwarded for engine in scorer.engine.engines], []
    branch = [trunk, "klmxyz"]
    [scores] = scorer.score([("q?", branch)])
    assert scores == pytest.approx(expected(scorer.family, "q?", branch), abs=1e-12)
    for engine, done in zip(scorer.engine.engines, before, strict=True):
        # Where the block with the shared words was full, it is run a second time; nothing before it is.
        assert all(request.read_prefix_cache for request in engine.requests)
        assert engine.forwarded - done <= 4 * BLOCK
        again.append(len(engine.requests) - 2)
    assert again == [1, 1]


def test_sums_forgotten_far_back_leave_the_prefix_cache_unread():
    scorer = make_scorer(boundaries="exact")
    steps = ["abcdefghij", "klmnopqrstuvw", "x"]
    scorer.score([("q?", steps)])
    scorer.score_cache.clear()
    assert scorer.score([("q?", steps)])[0] == pytest.approx(expected(scorer.family, "q?", steps), abs=1e-12)
    assert [request.read_prefix_cache for request in scorer.engine.engines[0].requests] == [True, True, True, False]


def test_the_same_tokens_cut_elsewhere_are_another_sum():
    scorer = make_scorer(boundaries="exact", number_steps=False)
    whole, cut = ["a\n\nb"], ["a", "b"]
    assert scorer.family.render("q", whole).token_ids == scorer.family.render("q", cut).token_ids
    for steps in (whole, cut, whole):
        assert scorer.score([("q", steps)])[0] == pytest.approx(expected(scorer.family, "q", steps), abs=1e-12)


def test_too_long():
    steps = ["abcdefgh"] * 6
    scorer = make_scorer(boundaries="exact", max_model_len=80)
    with pytest.raises(ContextLengthError, match="max_model_len"):
        scorer.score([("q", steps)])
    [scores] = scorer.score([("q", steps)], truncate=True)
    fitting = sum(score is not None for score in scores)
    assert 0 < fitting < 6
    assert scores[:fitting] == pytest.approx(expected(scorer.family, "q", steps)[:fitting], abs=1e-12)
    assert scorer.score([("q" * 90, steps)], truncate=True) == [[None] * 6]


def test_no_step_reaches_no_engine():
    scorer = make_scorer()
    assert scorer.score([("q", [])]) == [[]]
    assert scorer.engine.engines[0].requests == []


def test_an_engine_that_leaves_a_sum_out_is_an_error():
    scorer = make_scorer()
    scorer.engine.engines[1].answer = lambda request: PoolAnswer({end: (0.0, 0.0) for _, end in request.spans}, 0)
    with pytest.raises(StepScoringError, match="no score"):
        scorer.score([("q", ["a"])])


def test_reset_cache_follows_new_weights():
    scorer = make_scorer()
    [before] = scorer.score([("q", ["a"])])
    scorer.engine.engines[0].weights = "other"
    scorer.reset_cache()
    assert scorer.score([("q", ["a"])]) != [before]


class FakeAsyncEngine(AsyncEngine):
    def __init__(self, weights):
        self.inner, self.max_model_len = FakeEngine(weights), 4096

    async def pool_one(self, request):
        await asyncio.sleep(0)
        return self.inner.answer(request)

    async def reset_prefix_cache(self):
        self.inner.reset_prefix_cache()

    def shutdown(self):
        pass


def test_concurrent_branches():
    scorer = ImplicitScorer(AsyncPair(FakeAsyncEngine("policy"), FakeAsyncEngine("reference")), family())
    chains = [["ab.", "cd", "so e."][:count] + ["f" * count] for count in range(4)] * 3

    async def run():
        scores = await asyncio.gather(*[scorer.score_async("q?", chain) for chain in chains])
        await scorer.reset_cache_async()
        return scores

    for got, chain in zip(asyncio.run(run()), chains, strict=True):
        assert got == pytest.approx(expected(scorer.family, "q?", chain), abs=1e-12)
    assert len(scorer.score_cache) == 0


def test_leaving_calls_both_models_off():
    called_off = []

    class Endless(FakeAsyncEngine):
        async def pool_one(self, request):
            try:
                await asyncio.Event().wait()
            finally:
                called_off.append(self.inner.weights)

    scorer = ImplicitScorer(AsyncPair(Endless("policy"), Endless("reference")), family())

    async def run():
        task = asyncio.create_task(scorer.score_async("q?", ["a"]))
        for _ in range(10):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert sorted(called_off) == ["policy", "reference"]


def test_a_server_runs_both_models_in_one_process(tmp_path, monkeypatch):
    from vllm.platforms import current_platform

    monkeypatch.setattr(type(current_platform), "is_cpu", lambda self: False)
    options = {"reference_engine_args": {"max_num_seqs": 8}}
    path = save(tmp_path / "prm", family="implicit", reference=save(tmp_path / "reference"))
    command = serve_command(path, "implicit", ["--api-server-count", "1"], options)
    assert command[command.index("--gpu-memory-utilization") + 1] == "0.45"
    assert command[command.index("--runner") + 1] == "pooling" and "--io-processor-plugin" not in command
    shown = json.loads(command[command.index("--hf-overrides") + 1])
    assert shown["architectures"] == ["LlamaForStepLogProbs"]
    assert shown["prm"]["options"]["reference_engine_args"] == {"max_num_seqs": 8}
    given = ["--gpu-memory-utilization", "0.3"]
    command = serve_command(path, "implicit", given)
    assert command[-2:] == given and command.count(given[0]) == 1
    for flags in (["--api-server-count", "2"], ["-dp=2"], ["--data_parallel_size", "4"]):
        with pytest.raises(ValueError, match="must be 1 for a PRM of two models, got [24]"):
            serve_command(path, "implicit", flags)
    with pytest.raises(ValueError, match="no engine argument max_seqs"):
        serve_command(path, "implicit", [], {"reference_engine_args": {"max_seqs": 8}})
    with pytest.raises(ValueError, match="needs the engine_args"):
        ImplicitScorer.from_engine(object(), family())


def test_two_engines_live_and_die_together():
    class Client:
        def __init__(self, healthy=True):
            self.healthy, self.stopped = healthy, []

        def shutdown(self, timeout=None):
            self.stopped.append(timeout)

        async def check_health(self):
            if not self.healthy:
                raise RuntimeError("dead")

    client, other = Client(), Client()
    _live_together(client, other)
    asyncio.run(client.check_health())
    other.healthy = False
    with pytest.raises(RuntimeError, match="dead"):
        asyncio.run(client.check_health())
    client.shutdown(timeout=3)
    assert client.stopped == other.stopped == [3]
