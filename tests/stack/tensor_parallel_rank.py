"""One of two processes that are a tensor-parallel engine of vLLM together, as torchrun would start them.

Reads jobs from the JSON file that is its first argument, scores each in turn on engines that it shares with the other
process, and writes the scores to the second argument.
"""

import json
import sys

from own_process import make_ready

from vllm_prm.scorer import StepScorer

ENGINE_ARGS = {
    "dtype": "float32",
    "enforce_eager": True,
    "kv_cache_memory_bytes": 16 << 20,
    "max_num_seqs": 16,
    "max_num_batched_tokens": 512,
    "tensor_parallel_size": 2,
    "distributed_executor_backend": "external_launcher",
}


def whole_and_grown(path: str, family: str | None, options: dict, question: str, steps: list[str]) -> list:
    """Scores of the whole solution, then of it grown step by step from an empty cache."""
    scorer = StepScorer.from_pretrained(path, family, family_options=options, **ENGINE_ARGS)
    [whole] = scorer.score([(question, steps)])
    scorer.reset_cache()
    return [whole, *(scorer.score([(question, steps[:count])])[0] for count in range(1, len(steps) + 1))]


def main() -> None:
    jobs, answers = sys.argv[1:]
    make_ready()
    with open(jobs) as file:
        scores = [whole_and_grown(**job) for job in json.load(file)]
    with open(answers, "w") as file:
        json.dump(scores, file)


if __name__ == "__main__":
    main()
