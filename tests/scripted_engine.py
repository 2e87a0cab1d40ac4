"""An engine that answers from a script, and a tokenizer of one token a character: annotation without a model."""

import asyncio
from collections import Counter, defaultdict

from openrlhf_prm.cluster.workers import Completion

EOS = 0


class Characters:
    """One token a character; 0 is the end-of-sequence token."""

    def __call__(self, text, add_special_tokens):
        assert add_special_tokens is False
        return {"input_ids": [ord(character) for character in text]}

    def decode(self, token_ids, skip_special_tokens, clean_up_tokenization_spaces):
        return "".join(chr(token) for token in token_ids if token != EOS)


def sample(text: str, truncated: bool = False) -> Completion:
    return Completion(text, [ord(character) for character in text] + ([] if truncated else [EOS]), truncated)


class ScriptedEngine:
    """Answers each prompt from a dict, in the order written there; records what was asked."""

    def __init__(self, script: dict[str, list[Completion]]):
        self.script = script
        self.given: Counter[str] = Counter()
        self.requests: dict[str, list[int]] = defaultdict(list)
        self.max_tokens: dict[str, int] = {}

    async def generate(self, prompt, *, n, max_tokens, temperature, top_p):
        assert isinstance(prompt, list)  # token ids, never text
        await asyncio.sleep(0)
        text = "".join(map(chr, prompt))
        self.requests[text].append(n)
        self.max_tokens[text] = max_tokens
        answers = self.script.get(text, [])[self.given[text] :][:n]
        if len(answers) < n:
            raise RuntimeError(f"unexpected prompt {text!r} for {n} samples")
        self.given[text] += n
        return answers


def is_right(response: str, label: str) -> bool:
    return response.endswith(f"={label}")


def annotate(annotator_class: type, script: dict[str, list[Completion]], **options):
    """The annotation of the question "Q?" with answer 7, and the engine that was asked."""
    engine = ScriptedEngine(script)
    annotator = annotator_class(engine, Characters(), is_right, annotator_class.Options(**options))
    return asyncio.run(annotator.annotate("Q?", "7")), engine


RIGHT, WRONG = sample("x=7"), sample("x=8")
