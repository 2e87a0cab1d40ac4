"""An implicit PRM over a tokenizer of characters, and engines that are functions of the prefix and cache blocks."""

import json
import random

from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from vllm_prm.engines import OfflineEngine, PoolAnswer
from vllm_prm.families.implicit import ImplicitFamily
from vllm_prm.implicit_scorer import ImplicitScorer, OfflinePair

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


STEPS = ["Step 1: a=2.", "Step 2: so b", "Step 3: b=4.", "Step 4: 4"]


def save(path, *, vocab_size=VOCABULARY_SIZE, tokenizer=None, **prm):
    path.mkdir()
    (tokenizer or make_tokenizer()).save_pretrained(path)
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": vocab_size}
    (path / "config.json").write_text(json.dumps({**config, **({"prm": prm} if prm else {})}))
    return str(path)


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
