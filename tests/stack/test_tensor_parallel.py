"""Every family with its model split over two ranks: the same scores as of a plain transformers forward.

Two processes share each engine; all families run in the same two, one after the other.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from servers import held_port
from tiny_checkpoints import CASES, PlainForward
from tiny_critic import BAD, GREEDY, save_taught_critic
from tiny_critic import QUESTION as TAUGHT
from tiny_pair import Published, save_pair

from vllm_prm.families import load_family

pytestmark = pytest.mark.stack

QUESTION = "How many birds are there, if 3 + 4 come and 2 go?"
STEPS = ["First, 3 + 4 = 7.", "", "Then we take (7 - 2)\n\nwhich is 5.", "So: 5"]
BETA = 0.05


def job(path: Path, family: str | None = None, options: dict | None = None, question=QUESTION, steps=STEPS) -> dict:
    return {"path": str(path), "family": family, "options": options or {}, "question": question, "steps": steps}


def run_ranks(folder: Path, jobs: list[dict], port: int) -> list[list]:
    """What each of the two ranks wrote."""
    (folder / "jobs.json").write_text(json.dumps(jobs))
    launched = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    launched |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR"}
    # It would win over the size that the engines are given, and none of them is freed before the last one.
    inherited = {name: value for name, value in os.environ.items() if name != "VLLM_CPU_KVCACHE_SPACE"}
    command = [sys.executable, str(Path(__file__).with_name("tensor_parallel_rank.py")), str(folder / "jobs.json")]
    ranks = [
        subprocess.Popen(
            [*command, str(folder / f"{rank}.json")],
            env={**inherited, **launched, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    try:
        # One that dies leaves the other waiting in a collective, for ever.
        while None in (codes := [rank.poll() for rank in ranks]):
            assert not any(codes), f"a rank ended with {codes}"
            time.sleep(0.2)
        assert codes == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """Name -> what both ranks gave, and the folder of the checkpoints."""
    folder = tmp_path_factory.mktemp("tensor_parallel")
    jobs = {}
    for number, (name, case) in enumerate(CASES.items()):
        torch.manual_seed(case.seed)
        jobs[name] = job(case.save(folder / str(number)), case.named, case.options)
    jobs["implicit"] = job(save_pair(folder / "implicit", "qwen2", beta=BETA, cumulative=True))
    critic = save_taught_critic(folder / "critic")
    jobs["generative"] = job(critic, "generative", {"style": "thinkprm", **GREEDY}, TAUGHT, list(BAD))
    with held_port() as port:
        answers = run_ranks(folder, list(jobs.values()), port)
    return {name: (jobs[name], [scores[number] for scores in answers]) for number, name in enumerate(jobs)}


def require_equal(scores: list[list[float]], expected: list[list[float]]) -> None:
    apart = [abs(a - b) for got, want in zip(scores, expected, strict=True) for a, b in zip(got, want, strict=True)]
    print(f"two ranks: {max(apart):.1e}")
    assert max(apart) < 1e-4


def solutions(job: dict) -> list[list[str]]:
    return [job["steps"], *(job["steps"][:count] for count in range(1, len(job["steps"]) + 1))]


@pytest.mark.parametrize("name", list(CASES))
def test_scores_of_two_ranks_match_a_plain_forward(ranks, name):
    job, (first, second) = ranks[name]
    assert first == second
    plain = PlainForward(
        CASES[name], Path(job["path"]), load_family(job["path"], job["family"], options=job["options"])
    )
    require_equal(first, [plain(QUESTION, steps) for steps in solutions(job)])
    # Ten times what two ranks may be off by: some of the random heads score low throughout.
    assert max(first[0]) - min(first[0]) > 1e-3, "a checkpoint that scores everything alike would prove nothing"


def test_log_probabilities_of_two_ranks_match_a_plain_forward(ranks):
    job, (first, second) = ranks["implicit"]
    assert first == second
    published = Published(Path(job["path"]))
    written = [[f"Step {n}: {step}" for n, step in enumerate(steps, start=1)] for steps in solutions(job)]
    require_equal(first, [published(QUESTION, steps, BETA).tolist() for steps in written])


def test_two_ranks_write_the_critique_of_one(ranks):
    _, (first, second) = ranks["generative"]
    assert first == second
    assert first[0] == [1.0, 0.0]
