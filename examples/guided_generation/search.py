"""Best-of-N and step-level beam search with a generation server and a PRM server: the whole recipe on a page.

    best_of_n    sample N solutions, score each with the PRM, keep the best (Lightman et al. 2023, arXiv:2305.20050)
    beam         keep `width` partial solutions; in each round write `expand` next steps for each, score them all, keep
                 the best `width` (Snell et al. 2024, arXiv:2408.03314)

Both servers are plain URLs: any server with /v1/completions writes, `vllm-prm serve` judges. In a beam search the PRM
sees the same beginnings again and again, which cost it nothing: only new steps are computed.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx

from vllm_prm.aggregation import SCORE_AGGREGATIONS
from vllm_prm.api_keys import key_from, key_is_set
from vllm_prm.errors import StepScoringError
from vllm_prm.scorer import StepScorer


@dataclass
class Candidate:
    """A solution, or the beginning of one: its steps, their PRM scores, and whether the model ended it."""

    steps: list[str]
    finished: bool = False
    step_rewards: list[float] = field(default_factory=list)
    score: float = 0.0


class Generator:
    """Text from `POST {url}/v1/completions`, cut into steps at `separator`."""

    def __init__(self, url: str, separator: str, api_key: str | None, **sampling: object) -> None:
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self.client = httpx.AsyncClient(base_url=url.rstrip("/").removesuffix("/v1"), headers=headers, timeout=600)
        self.separator = separator
        self.sampling = sampling
        self.model: str | None = None

    async def _complete(self, prompt: str, samples: int, **options: object) -> list[dict]:
        if self.model is None:
            models = await self.client.get("/v1/models")
            models.raise_for_status()
            self.model = models.json()["data"][0]["id"]
        body = {"model": self.model, "prompt": prompt, "n": samples, **self.sampling, **options}
        response = await self.client.post("/v1/completions", json=body)
        response.raise_for_status()
        return response.json()["choices"]

    async def solutions(self, question: str, samples: int) -> list[Candidate]:
        """`samples` whole solutions; one that was cut at the token limit is not finished."""
        choices = await self._complete(question, samples)
        return [
            Candidate(
                [step for step in choice["text"].split(self.separator) if step.strip()],
                finished=choice["finish_reason"] == "stop",
            )
            for choice in choices
        ]

    async def next_steps(self, question: str, beginning: Candidate, samples: int, seed: int) -> list[Candidate]:
        """`beginning` with each of `samples` next steps, the same step once. A next step that is empty ends it."""
        prompt = question + "".join(step + self.separator for step in beginning.steps)
        choices = await self._complete(prompt, samples, stop=[self.separator], seed=seed)
        continued = {}
        for choice in choices:
            # vLLM says in stop_reason which stop string it met; the end of the text has none.
            ended = choice["finish_reason"] == "stop" and choice.get("stop_reason") is None
            step = choice["text"]
            steps = [*beginning.steps, step] if step.strip() else beginning.steps
            continued[tuple(steps)] = Candidate(steps, finished=ended or not step.strip())
        return list(continued.values())


async def judge(scorer: StepScorer, question: str, candidates: Sequence[Candidate], aggregate: str) -> list[Candidate]:
    """The candidates with their scores, best first; a candidate without any step comes last."""
    rewards = await asyncio.gather(*(scorer.score_async(question, candidate.steps) for candidate in candidates))
    for candidate, step_rewards in zip(candidates, rewards, strict=True):
        candidate.step_rewards = step_rewards
        candidate.score = SCORE_AGGREGATIONS[aggregate](step_rewards) if step_rewards else float("-inf")
    return sorted(candidates, key=lambda candidate: candidate.score, reverse=True)


async def best_of_n(
    generator: Generator, scorer: StepScorer, question: str, *, samples: int, aggregate: str
) -> list[Candidate]:
    """All `samples` solutions, best first; finished ones before those cut at the token limit."""
    judged = await judge(scorer, question, await generator.solutions(question, samples), aggregate)
    return sorted(judged, key=lambda candidate: not candidate.finished)


async def beam_search(
    generator: Generator,
    scorer: StepScorer,
    question: str,
    *,
    width: int,
    expand: int,
    max_steps: int,
    aggregate: str,
    seed: int,
) -> list[Candidate]:
    """Up to `width` solutions, best first. Finished ones keep their place in the beam against the growing ones."""
    beams = [Candidate([])]
    for number in range(max_steps):
        growing = [beam for beam in beams if not beam.finished]
        if not growing:
            break
        grown = await asyncio.gather(
            *(
                generator.next_steps(question, beam, expand, seed + number * width + index)
                for index, beam in enumerate(growing)
            )
        )
        candidates = [beam for beam in beams if beam.finished] + [candidate for some in grown for candidate in some]
        beams = (await judge(scorer, question, candidates, aggregate))[:width]
    return beams


async def run(args: argparse.Namespace) -> dict:
    """What the command prints."""
    scorer = StepScorer.from_url(args.prm_url, args.prm_api_key_env)
    generator = Generator(
        args.generation_url,
        args.separator,
        key_from(args.generation_api_key_env) if args.generation_api_key_env else None,
        temperature=args.temperature,
        max_tokens=args.max_tokens,
    )
    try:
        if args.method == "best_of_n":
            generator.sampling["seed"] = args.seed
            candidates = await best_of_n(
                generator, scorer, args.question, samples=args.samples, aggregate=args.aggregate
            )
        else:
            candidates = await beam_search(
                generator,
                scorer,
                args.question,
                width=args.width,
                expand=args.expand,
                max_steps=args.max_steps,
                aggregate=args.aggregate,
                seed=args.seed,
            )
        best = candidates[0]
        return {
            "question": args.question,
            "method": args.method,
            "response": args.separator.join(best.steps),
            "finished": best.finished,
            "score": best.score,
            "step_rewards": best.step_rewards,
            "scores_of_all": [candidate.score for candidate in candidates],
            "prm_usage": scorer.usage.as_dict(),
        }
    finally:
        await generator.client.aclose()


def main(argv: Sequence[str] | None = None) -> int:
    """Prints one JSON object. A mistake ends with one line on stderr and status 2, a failing server with 1."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.guided_generation.search",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--generation-url", required=True, help="server with /v1/completions")
    parser.add_argument("--prm-url", required=True, help="server with /v1/step_rewards")
    parser.add_argument("--question", required=True, help="the prompt, as the generating model wants it")
    parser.add_argument("--method", choices=["best_of_n", "beam"], default="beam")
    parser.add_argument("--samples", type=int, default=16, help="best_of_n: solutions")
    parser.add_argument("--width", type=int, default=4, help="beam: partial solutions kept")
    parser.add_argument("--expand", type=int, default=4, help="beam: next steps written for each")
    parser.add_argument("--max-steps", type=int, default=40, help="beam: rounds")
    parser.add_argument("--aggregate", choices=sorted(SCORE_AGGREGATIONS), default="min", help="of a solution's steps")
    parser.add_argument("--separator", default="\n", help="what ends a step")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--max-tokens", type=int, default=1024, help="per solution, or per step of a beam")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--generation-api-key-env", help="environment variable with the generation server's key")
    parser.add_argument("--prm-api-key-env", help="environment variable with the PRM server's key")
    args = parser.parse_args(argv)
    for name in ("samples", "width", "expand", "max_steps", "max_tokens"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be 1 or more, got {getattr(args, name)}")
    if args.generation_api_key_env and not key_is_set(args.generation_api_key_env):
        parser.error(f"--generation-api-key-env names {args.generation_api_key_env!r}, which is not set")
    try:
        print(json.dumps(asyncio.run(run(args)), ensure_ascii=False))
    except ValueError as error:
        parser.error(str(error))
    except (httpx.HTTPError, StepScoringError) as error:
        print(f"search: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
