"""The systems that `benchmarks.step_scoring` compares; each is built in a process of its own.

Systems that are compared score the same tokens of the same checkpoint, in the same data type, with the same number of
threads. Rendering text to tokens is part of the measured time everywhere.

  hf, hf_batch1   transformers: padded batches of 8, in the order of the file; one solution at a time
  vllm_step       stock vLLM, STEP pooling: it forwards every token of every request
  ours            `StepScorer`, offline
  classify        stock vLLM, a head of one linear layer: the task `classify` with LAST pooling, one request per step
  generative      stock vLLM, a PRM that answers with a token: one token and the log-probabilities of two, one request
                  per step, as `/generative_scoring` does, without HTTP
  ours_*          `StepScorer` on the checkpoint of that system
  *_128           the same with vLLM's own block size on a CPU; else 32, the least it takes and what `vllm_prm` takes

`classify` and `generative` read the prefix cache, so that of a growing solution they forward the new step and what does
not fill a block.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.step_scoring_checkpoints import CONTEXT, STEP_TOKEN, data_type, other_head
from openrlhf_prm.cluster.accelerator import on_cpu

Solution = tuple[str, list[str]]
QWEN: tuple[str, dict] = ("qwen_prm", {})
LINEAR = ("token_classification", {"separator": STEP_TOKEN})
LANGUAGE = ("placeholder", {"placeholder_token": STEP_TOKEN, "reward_tokens": ["+", "-"], "step_separator": "\n"})


@dataclass(frozen=True)
class System:
    """`whole(solutions)`: the scores of all their steps. `newest(solutions)`: those of their last steps; None: it is
    not measured while solutions grow. `forget()` drops what is cached. `computed()`: tokens forwarded so far."""

    family: Any
    whole: Callable[[Sequence[Solution]], list[list[float]]]
    newest: Callable[[Sequence[Solution]], list[float]] | None = None
    forget: Callable[[], Any] = lambda: None
    computed: Callable[[], int] = lambda: 0


def engine_arguments() -> dict[str, Any]:
    """What every vLLM engine is given; all else is its own default."""
    memory = (1 if on_cpu() else 16) << 30
    return {
        "dtype": data_type(),
        "max_model_len": CONTEXT,
        "enforce_eager": on_cpu(),
        "kv_cache_memory_bytes": memory,
        "disable_log_stats": True,
    }


def transformers_system(folder: Path, batch_size: int) -> System:
    """A plain forward, `batch_size` solutions at a time."""
    import torch
    from safetensors.torch import load_file
    from transformers import Qwen2Model

    from vllm_prm.families import load_family

    device, dtype = "cpu" if on_cpu() else "cuda", getattr(torch, data_type())
    family = load_family(str(folder), QWEN[0])
    backbone = Qwen2Model.from_pretrained(folder, dtype=dtype).eval().to(device)
    saved = load_file(folder / "model.safetensors")
    first, second = (
        torch.nn.utils.skip_init(torch.nn.Linear, *saved[f"score.{index}.weight"].T.shape) for index in (0, 2)
    )
    for index, layer in ((0, first), (2, second)):
        layer.load_state_dict({part: saved[f"score.{index}.{part}"] for part in ("weight", "bias")})
    head = torch.nn.Sequential(first, torch.nn.ReLU(), second).to(device, dtype)

    @torch.inference_mode()
    def score(given: Sequence[Solution]) -> list[list[float]]:
        scores = []
        for start in range(0, len(given), batch_size):
            rendered = [family.render(*solution) for solution in given[start : start + batch_size]]
            longest = max(len(row.token_ids) for row in rendered)
            ids = torch.tensor([row.token_ids + [0] * (longest - len(row.token_ids)) for row in rendered])
            mask = torch.tensor([[1] * len(row.token_ids) + [0] * (longest - len(row.token_ids)) for row in rendered])
            mask = mask.to(device) if batch_size > 1 else None
            hidden = backbone(ids.to(device), attention_mask=mask).last_hidden_state
            for index, row in enumerate(rendered):
                scores.append(head(hidden[index, row.step_positions]).float().softmax(-1)[:, 1].tolist())
        return scores

    return System(family, score)


def ours(folder: Path, head: str | None, reading: tuple[str, dict]) -> System:
    """`StepScorer` over the offline engine."""
    from vllm_prm.scorer import StepScorer

    path = other_head(folder, head) if head else folder
    scorer = StepScorer.from_pretrained(str(path), reading[0], family_options=reading[1], **engine_arguments())
    return System(
        scorer.family,
        scorer.score,
        lambda given: [scores[-1] for scores in scorer.score(given)],
        scorer.reset_cache,
        lambda: scorer.usage.computed_tokens,
    )


class Stock:
    """A stock engine, asked for token ids. `read(llm, prompts)` -> its outputs, and one answer for each."""

    def __init__(self, path: Path, reading: tuple[str, dict], read: Callable, **arguments: Any) -> None:
        from vllm import LLM

        from vllm_prm.families import load_family

        self.family = load_family(str(path), reading[0], options=reading[1])
        self.read = read
        self.llm = LLM(model=str(path), **engine_arguments(), **arguments)
        self.computed_tokens = 0

    def ask(self, prompts: Sequence[list[int]]) -> list[Any]:
        """The answers to `prompts`; what was forwarded is counted."""
        from vllm import TokensPrompt

        outputs, answers = self.read(self.llm, [TokensPrompt(prompt_token_ids=prompt) for prompt in prompts])
        self.computed_tokens += sum(len(out.prompt_token_ids) - (out.num_cached_tokens or 0) for out in outputs)
        return answers

    def newest(self, given: Sequence[Solution]) -> list[float]:
        """One request for each solution, which ends where its last step does."""
        rendered = [self.family.render(*solution) for solution in given]
        return self.ask([row.token_ids[: row.step_positions[-1] + 1] for row in rendered])

    def whole(self, given: Sequence[Solution]) -> list[list[float]]:
        """One request for each step; the longest first, whose blocks the others find."""
        rendered = [self.family.render(*solution) for solution in given]
        ends = [(row, end) for row in rendered for end in row.step_positions]
        order = sorted(range(len(ends)), key=lambda at: -ends[at][1])
        answers = dict(zip(order, self.ask([ends[at][0].token_ids[: ends[at][1] + 1] for at in order]), strict=True))
        scores = iter(answers[at] for at in range(len(ends)))
        return [[next(scores) for _ in row.step_positions] for row in rendered]

    def all_at_once(self, given: Sequence[Solution]) -> list[list[float]]:
        """One request for each solution, whose answer has all its steps."""
        return self.ask([self.family.render(*solution).token_ids for solution in given])

    def system(self) -> System:
        """One request for each step."""
        return System(self.family, self.whole, self.newest, self.llm.reset_prefix_cache, lambda: self.computed_tokens)


def vllm_step(folder: Path) -> System:
    """`Qwen2ForProcessRewardModel` with STEP pooling."""
    from vllm.config import PoolerConfig

    from vllm_prm.families import load_family

    def read(llm: Any, prompts: list) -> tuple[Sequence[Any], list[list[float]]]:
        outputs = llm.encode(prompts, pooling_task="token_classify", use_tqdm=False)
        return outputs, [output.outputs.data[:, 1].tolist() for output in outputs]

    tag = load_family(str(folder), QWEN[0]).tokenizer.convert_tokens_to_ids(STEP_TOKEN)
    pooler = PoolerConfig(task="token_classify", tok_pooling_type="STEP", step_tag_id=tag)
    stock = Stock(folder, QWEN, read, runner="pooling", pooler_config=pooler)
    return System(
        stock.family,
        stock.all_at_once,
        lambda given: [scores[-1] for scores in stock.all_at_once(given)],
        computed=lambda: stock.computed_tokens,
    )


def classify(folder: Path, **arguments: Any) -> System:
    """`*ForSequenceClassification`, LAST pooling, prefix cache."""
    from vllm.config import PoolerConfig

    def read(llm: Any, prompts: list) -> tuple[Sequence[Any], list[float]]:
        outputs = llm.encode(prompts, pooling_task="classify", use_tqdm=False)
        return outputs, [output.outputs.data[1].item() for output in outputs]

    return Stock(
        other_head(folder, "linear"),
        LINEAR,
        read,
        runner="pooling",
        convert="classify",
        hf_overrides={"architectures": ["Qwen2ForSequenceClassification"], "num_labels": 2},
        pooler_config=PoolerConfig(task="classify", seq_pooling_type="LAST", use_activation=True),
        enable_prefix_caching=True,
        **arguments,
    ).system()


def generative(folder: Path, **arguments: Any) -> System:
    """One token, the log-probabilities of two, prefix cache."""
    from vllm import SamplingParams

    from vllm_prm.families import load_family

    path = other_head(folder, "language")
    ids = list(load_family(str(path), LANGUAGE[0], options=LANGUAGE[1]).reward_token_ids)
    asked = SamplingParams(max_tokens=1, logprobs=len(ids), logprob_token_ids=ids)

    def read(llm: Any, prompts: list) -> tuple[Sequence[Any], list[float]]:
        outputs = llm.generate(prompts, asked, use_tqdm=False)
        pairs = [[output.outputs[0].logprobs[0][token].logprob for token in ids] for output in outputs]
        return outputs, [1 / (1 + math.exp(bad - good)) for good, bad in pairs]

    return Stock(path, LANGUAGE, read, enable_prefix_caching=True, **arguments).system()


SMALL_BLOCKS = {"block_size": 32} if on_cpu() else {}
SYSTEMS: dict[str, Callable[[Path], System]] = {
    "hf": partial(transformers_system, batch_size=8),
    "hf_batch1": partial(transformers_system, batch_size=1),
    "vllm_step": vllm_step,
    "ours": partial(ours, head=None, reading=QWEN),
    "classify": partial(classify, **SMALL_BLOCKS),
    "classify_128": classify,
    "ours_classify": partial(ours, head="linear", reading=LINEAR),
    "generative": partial(generative, **SMALL_BLOCKS),
    "ours_generative": partial(ours, head="language", reading=LANGUAGE),
}
"""Name -> what builds it from the folder of the PRM with two layers."""

COMPARED = {
    "hf": "ours",
    "hf_batch1": "ours",
    "vllm_step": "ours",
    "classify": "ours_classify",
    "classify_128": "ours_classify",
    "generative": "ours_generative",
}
"""A system -> the one of ours that scores the same checkpoint."""
