"""A random checkpoint of each PRM family: the published architecture and tensor names, two layers of hidden size 64."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_tokenizers import llama_3_tokenizer, mistral_tokenizer, qwen_tokenizer, with_special

EXAMPLE = f"{Path(__file__).parents[2] / 'examples' / 'extensions' / 'family.py'}:AskedPRM"
HEAD_FILE = "reward_head.pt"
HIDDEN = 64
CONTEXT = 5120


def save_checkpoint(
    path: Path,
    backbone: str,
    tokenizer: Any,
    architecture: str,
    head: dict[str, torch.Tensor] | None = None,
    *,
    tied: bool = False,
    rename: dict[str, str] | None = None,
) -> Path:
    """`backbone` (Qwen2, ...) with random weights and `head` beside them. `rename`: names that differ on disk."""
    config = getattr(transformers, f"{backbone}Config")(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=tied,
        initializer_range=0.2,  # the usual 0.02 would put every score at 0.5
        dtype="float32",
    )
    tensors = getattr(transformers, f"{backbone}ForCausalLM")(config).state_dict()
    # What a head of its own is saved with is the backbone alone; a tied matrix is saved once.
    if head is not None or tied:
        del tensors["lm_head.weight"]
    tensors |= head or {}
    tensors = {(rename or {}).get(name, name): tensor.contiguous() for name, tensor in tensors.items()}
    path.mkdir(parents=True)
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save_pretrained(path)
    (path / "config.json").write_text(json.dumps({**config.to_dict(), "architectures": [architecture]}))
    return path


def linear(rows: int) -> dict[str, torch.Tensor]:
    return {"weight": torch.randn(rows, HIDDEN) / 4, "bias": torch.randn(rows)}


def named(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


@dataclass(frozen=True)
class Case:
    """A checkpoint of `family`. `score(logits, hidden, tensors, tokenizer)` is the family's formula: language-model
    logits and last hidden states (after the final norm) at the step positions, to scores. `shows`: whether the
    checkpoint shows its family; else it is named. `many`: as many steps as fit into its context. `seed`: of its
    weights. `prefixes(forward, question, steps, tensors, tokenizer)`, in place of `score`: the scores of a family with
    prompts of its own for each step, the prompts written out; `forward(token_ids)` gives logits and hidden states at
    every token."""

    family: str
    save: Callable[[Path], Path]
    score: Callable[..., torch.Tensor] | None
    shows: bool = True
    options: dict[str, Any] = field(default_factory=dict)
    many: int = 200
    seed: int = 0
    prefixes: Callable[..., list[float]] | None = None

    @property
    def named(self) -> str | None:
        """The family as a caller has to name it, None where it shows."""
        return None if self.shows else self.family


def apply(tensors: dict[str, torch.Tensor], name: str, hidden: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.linear(hidden, tensors[f"{name}.weight"], tensors.get(f"{name}.bias"))


def two_tokens(good: str, bad: str) -> Callable[..., torch.Tensor]:
    def score(logits, hidden, tensors, tokenizer):
        return logits[:, tokenizer.convert_tokens_to_ids([good, bad])].softmax(-1)[:, 0]

    return score


def qwen_prm_score(logits, hidden, tensors, tokenizer):
    return apply(tensors, "score.2", apply(tensors, "score.0", hidden).relu()).softmax(-1)[:, 1]


def two_classes(logits, hidden, tensors, tokenizer):
    return apply(tensors, "score", hidden).softmax(-1)[:, 1]


def difference(logits, hidden, tensors, tokenizer):
    return 2 * two_classes(logits, hidden, tensors, tokenizer) - 1


def raw(name: str) -> Callable[..., torch.Tensor]:
    return lambda logits, hidden, tensors, tokenizer: apply(tensors, name, hidden)[:, 0]


def value(name: str) -> Callable[..., torch.Tensor]:
    return lambda *read: raw(name)(*read).sigmoid()


def ensemble(logits, hidden, tensors, tokenizer):
    scores = []
    for member in range(tensors["score.model.nn1.weight"].shape[0]):
        out = hidden
        for layer in ("nn1", "nn2", "nn_out"):
            out = out if layer == "nn1" else out.relu()
            out = out @ tensors[f"score.model.{layer}.weight"][member] + tensors[f"score.model.{layer}.bias"][member]
        scores.append(out[:, 0].sigmoid())
    return torch.stack(scores).mean(0)


def stacked(members: int, width: int) -> dict[str, torch.Tensor]:
    """An ensemble's heads, and the copies that its training kept of them."""
    tensors = {}
    for layer, (inputs, outputs) in {"nn1": (HIDDEN, width), "nn2": (width, width), "nn_out": (width, 1)}.items():
        for name in (f"score.model.{layer}", f"score.reg_model.{layer}"):
            tensors[f"{name}.weight"] = torch.randn(members, inputs, outputs) / inputs**0.5
            tensors[f"{name}.bias"] = torch.randn(members, outputs)
    return tensors


def encoded(tokenizer: Any, text: str) -> list[int]:
    """Tokens of `text` and of its special tokens, but for `<extra_0>`, which the tests write into a step."""
    plain = tokenizer.encode("<extra_0>", add_special_tokens=False, split_special_tokens=True)
    first, *others = [tokenizer.encode(piece, add_special_tokens=False) for piece in text.split("<extra_0>")]
    return sum(([*plain, *piece] for piece in others), first)


def reason_flux(forward, question, steps, tensors, tokenizer):
    scores = []
    for count in range(1, len(steps) + 1):
        _, hidden = forward(encoded(tokenizer, question + "\n\n".join(steps[:count])))
        scores.append(apply(tensors, "reward_head", hidden[-1:])[0, 0].sigmoid().item())
    return scores


def universal(forward, question, steps, tensors, tokenizer):
    reference = "\n\n###\n\nThe reference answer is: There is no reference answer for this question."
    messages = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": question + reference},
    ]
    asked = tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=True, return_dict=False)
    scores = []
    for count in range(1, len(steps) + 1):
        answer = encoded(tokenizer, "\n\n".join(steps[:count]) + "\n\n")
        _, hidden = forward([*asked, *answer, tokenizer.eos_token_id])
        value = apply(tensors, "score.2", apply(tensors, "score.0", hidden[-1:]).relu())
        scores.append(value[0, 0].sigmoid().item())
    return scores


def pathfinder(forward, question, steps, tensors, tokenizer):
    system = (
        "You are a Math Teacher. Given a question and a student's solution, evaluate the mathematical correctness, "
        "logic consistency of the current step and whether it will lead to the correct final solution"
    )
    good, bad, blank = tokenizer.convert_tokens_to_ids(["<+>", "<->", "<extra>"])

    def before_blanks(answer):
        messages = [
            {"role": "user", "content": f"{system}\n\n Question: {question}"},
            {"role": "assistant", "content": answer},
        ]
        token_ids = encoded(tokenizer, tokenizer.apply_chat_template(messages, tokenize=False))
        logits, _ = forward(token_ids)
        return logits[[at - 1 for at, token in enumerate(token_ids) if token == blank]][:, [good, bad]]

    scores = []
    for count, step in enumerate(steps, start=1):
        answer = "".join(f"{earlier}\n\n" for earlier in steps[: count - 1]) + f"Current Step: {step}"
        labels = before_blanks(f"{answer} Math reasoning: <extra>, Consistency: <extra>").argmax(-1)
        if labels.any():
            scores.append(-1.0)
            continue
        [last] = before_blanks(f"{answer} Math reasoning: <+>, Consistency: <+>, Correctness: <extra>")
        scores.append(last.softmax(-1)[0].item())
    return scores


# A tied checkpoint's one matrix, saved under the other of its two names.
UNDER_THE_HEAD = {"model.embed_tokens.weight": "lm_head.weight"}


def save_reason_flux(path: Path) -> Path:
    """A causal LM, and the head beside it."""
    save_checkpoint(path / "ReasonFlux-PRM-1.5B", "Qwen2", qwen_tokenizer(), "Qwen2ForCausalLM", tied=True)
    torch.save(linear(1), path / "ReasonFlux-PRM-1.5B" / HEAD_FILE)
    return path / "ReasonFlux-PRM-1.5B"


CASES = {
    "qwen_prm": Case(
        "qwen_prm",
        lambda path: save_checkpoint(
            path / "prm",
            "Qwen2",
            qwen_tokenizer(),
            "Qwen2ForProcessRewardModel",
            {**named("score.0", linear(HIDDEN)), **named("score.2", linear(2))},
        ),
        qwen_prm_score,
    ),
    "math_shepherd": Case(
        "math_shepherd",
        lambda path: save_checkpoint(path / "prm", "Mistral", mistral_tokenizer(), "MistralForCausalLM"),
        two_tokens("▁+", "▁-"),
        shows=False,
    ),
    "rlhflow": Case(
        "rlhflow",
        lambda path: save_checkpoint(path / "prm", "Llama", llama_3_tokenizer(), "LlamaForCausalLM"),
        two_tokens("+", "-"),
        shows=False,
    ),
    "FoVer": Case(
        "rlhflow",
        lambda path: save_checkpoint(path / "Qwen-2.5-7B-FoVer-PRM", "Qwen2", qwen_tokenizer(), "Qwen2ForCausalLM"),
        two_tokens("c", "i"),  # the first tokens of `correct` and `incorrect`
        many=150,
    ),
    "skywork, tied": Case(
        "skywork",
        lambda path: save_checkpoint(
            path / "prm",
            "Qwen2",
            qwen_tokenizer(bos=True),
            "Qwen2ForPrmModel",
            named("v_head.summary", linear(1)),
            tied=True,
            rename=UNDER_THE_HEAD,
        ),
        value("v_head.summary"),
    ),
    "token_classification": Case(
        "token_classification",
        lambda path: save_checkpoint(
            path / "prm", "Qwen3", qwen_tokenizer(), "Qwen3ForTokenClassification", named("score", linear(2))
        ),
        two_classes,
    ),
    "PURE-PRM": Case(
        "token_classification",
        lambda path: save_checkpoint(
            path / "PURE-PRM-7B", "Qwen2", qwen_tokenizer(), "Qwen2ForTokenClassification", named("score", linear(2))
        ),
        difference,
    ),
    "value_head": Case(
        "value_head",
        lambda path: save_checkpoint(
            path / "prm",
            "Llama",
            llama_3_tokenizer(),
            "LlamaForSequenceClassification",
            {"score.weight": torch.randn(1, HIDDEN) / 4},
        ),
        value("score"),
        shows=False,
        options={"chat_template": True, "separator": "\n\n"},
    ),
    "VersaPRM, tied": Case(
        "placeholder",
        lambda path: save_checkpoint(
            path / "Llama-PRM800K", "Llama", llama_3_tokenizer(), "LlamaForCausalLM", tied=True, rename=UNDER_THE_HEAD
        ),
        two_tokens("+", "-"),
    ),
    "Med-PRM": Case(
        "placeholder",
        lambda path: save_checkpoint(
            path / "llama-3.1-medprm-reward-v1.0",
            "Llama",
            with_special(llama_3_tokenizer(), " ки"),
            "LlamaForCausalLM",
        ),
        two_tokens("Ġ+", "Ġ-"),
    ),
    "PQM": Case(
        "value_head",
        lambda path: save_checkpoint(
            path / "PQM",
            "Llama",
            with_special(llama_3_tokenizer(), "[PRM]"),
            "LlamaForCausalLM",
            named("v_head.summary", linear(1)),
        ),
        raw("v_head.summary"),
    ),
    "ActPRM": Case(
        "ensemble_prm",
        lambda path: save_checkpoint(
            path / "ActPRM", "Qwen2", qwen_tokenizer(), "Qwen2ForEnsemblePRM", stacked(members=3, width=16)
        ),
        ensemble,
    ),
    "ReasonFlux-PRM-1.5B, tied": Case("prefix_value", save_reason_flux, None, prefixes=reason_flux, many=40),
    "Universal-PRM": Case(
        "prefix_value",
        lambda path: save_checkpoint(
            path / "Universal-PRM-7B",
            "Qwen2",
            qwen_tokenizer(),
            "Qwen2ForRewardModel",
            {**named("score.0", linear(HIDDEN)), **named("score.2", linear(1))},
        ),
        None,
        prefixes=universal,
        many=40,
    ),
    "PathFinder-PRM": Case(
        "pathfinder",
        lambda path: save_checkpoint(
            path / "PathFinder-PRM-7B",
            "Qwen2",
            with_special(qwen_tokenizer(), "<+>", "<->", "<extra>"),
            "Qwen2ForCausalLM",
        ),
        None,
        prefixes=pathfinder,
        many=40,
        seed=1,  # finds errors in some steps of the tests, and none in others
    ),
    "from a file": Case(
        EXAMPLE,
        lambda path: save_checkpoint(path / "prm", "Llama", llama_3_tokenizer(), "LlamaForCausalLM"),
        two_tokens("+", "-"),
        shows=False,
        options={"good": "+", "bad": "-"},
    ),
}
"""Name -> case. `test_families` goes over them on real vLLM."""

ELSEWHERE = {
    "generative": "test_generative.py::test_what_is_written_is_what_transformers_writes",
    "implicit": "test_implicit.py::test_whole_solutions_match_transformers",
}
"""Families whose scores are no formula of one forward pass -> the test that compares them with transformers."""


class PlainForward:
    """A case's scores by a plain transformers forward in float32, and the case's formula."""

    def __init__(self, case: Case, path: Path, family: Any) -> None:
        self.case, self.family = case, family
        self.tensors = load_file(path / "model.safetensors")
        if (path / HEAD_FILE).exists():
            self.tensors |= named("reward_head", torch.load(path / HEAD_FILE, weights_only=True))
        config = transformers.AutoConfig.from_pretrained(path)
        self.model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        embedded = self.tensors.get("model.embed_tokens.weight", self.tensors.get("lm_head.weight"))
        self.model.load_state_dict({name: self.tensors.get(name, embedded) for name in self.model.state_dict()})

    def forward(self, token_ids: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits and last hidden states at every token."""
        out = self.model(torch.tensor([token_ids]), output_hidden_states=True)
        return out.logits[0], out.hidden_states[-1][0]

    @torch.no_grad()
    def __call__(self, question: Any, steps: list[str]) -> list[float]:
        if self.case.prefixes is not None:
            return self.case.prefixes(self.forward, question, steps, self.tensors, self.family.tokenizer)
        rendered = self.family.render(question, steps)
        logits, hidden = self.forward(rendered.token_ids)
        at = rendered.step_positions
        scores = self.case.score(logits[at], hidden[at], self.tensors, self.family.tokenizer)
        return scores.tolist()
