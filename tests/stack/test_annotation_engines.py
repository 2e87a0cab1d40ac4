"""Annotation with real Ray and vLLM on CPU: over engines that die, over a server, killed and started again."""

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest
from commands import summary_of
from engine_cores import engine_cores
from killed_command import kill_midway
from servers import running_server, until_ready
from untrained_policy import save_untrained_policy

from openrlhf_prm.annotation.adaptive import Adaptive, AdaptiveOptions
from openrlhf_prm.annotation.scheduler import annotate_all
from openrlhf_prm.cluster.accelerator import prepare_environment
from openrlhf_prm.data.ledger import balances
from openrlhf_prm.data.questions import Question
from openrlhf_prm.tasks.arithmetic import questions
from vllm_prm.parent_watch import VARIABLE

pytestmark = pytest.mark.stack
LIMIT_S = 300.0


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> str:
    """An untrained policy: its noise has steps, and the checker calls a third of it right."""
    path = save_untrained_policy(tmp_path_factory.mktemp("policy"))
    (path / "checker.py").write_text("def is_correct(response, label):\n    return len(response) % 3 == 0\n")
    return str(path)


def test_questions_of_a_killed_engine_are_tried_again_on_a_new_one_which_ends_with_its_actor(policy):
    prepare_environment()
    import psutil
    import ray

    from openrlhf_prm.annotation.actors import Work, start_engines
    from openrlhf_prm.cluster.session import start_ray
    from openrlhf_prm.cluster.workers import EngineOptions

    work = Work(policy, Adaptive, AdaptiveOptions(max_new_tokens=48), f"{policy}/checker.py")
    todo = [Question(str(index), text, answer) for index, (text, answer) in enumerate(questions("train", 12, seed=0))]
    finished: dict[str, list[int]] = {}
    start_ray({})
    try:
        [engine] = start_engines(EngineOptions(policy, gpus=0), [], work, 4, lambda question: question)
        first = ray.get(engine.actor.pid.remote())
        [core] = engine_cores(first, 1)

        def finish(question, annotated):
            assert question.id not in finished
            finished[question.id] = [len(solution.steps) for solution in annotated.solutions]
            if len(finished) == 2:
                core.kill()

        retried = asyncio.run(annotate_all(todo, [engine], 4, finish))
        assert finished.keys() == {question.id for question in todo}
        assert 1 <= retried <= 4
        second = ray.get(engine.actor.pid.remote())
        assert second != first
        assert sum(map(sum, finished.values())) > 0
        hits, queries = asyncio.run(engine.cache_counters())
        assert 0 < hits < queries

        marked = [process for process in psutil.process_iter() if _ends_with_another(process)]
        assert {process.ppid() for process in marked} == {second}
        os.kill(second, signal.SIGKILL)
        _, alive = psutil.wait_procs(marked, timeout=LIMIT_S)
        assert alive == []
        ray.kill(engine.actor)  # or it is started a third time
    finally:
        ray.shutdown()


def _ends_with_another(process) -> bool:
    """Whether a process of this test run ends with its actor."""
    import psutil

    try:
        environment = process.environ()
    except psutil.Error:
        return False
    same_run = environment.get("OPENRLHF_PRM_TEST_RUN") == os.environ["OPENRLHF_PRM_TEST_RUN"]
    return same_run and environment.get(VARIABLE) == str(process.ppid())


@pytest.fixture(scope="module")
def server(policy, tmp_path_factory):
    command = ["vllm.entrypoints.openai.api_server", "--model", policy, "--enforce-eager", "--block-size", "32"]
    with running_server(command, tmp_path_factory.mktemp("server") / "log") as url:
        yield f"{until_ready(url)}/v1"


def written(folder: Path, count: int, seed: int) -> Path:
    """A file of so many questions."""
    rows = ({"question": question, "label": answer} for question, answer in questions("train", count, seed=seed))
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "in.jsonl"


def test_a_server_annotates_too(policy, server, tmp_path):
    output = tmp_path / "labels.jsonl"
    flags = ["--annotator", "omega_prm", "--actor.model_name_or_path", policy]
    flags += ["--data.input", written(tmp_path, 6, seed=1), "--data.output", output]
    flags += ["--annotation.urls", server, "--rollout.max_new_tokens", "96"]
    flags += ["--answers.checker", f"{policy}/checker.py", "--annotation.filter_rollouts", "8"]
    flags += ["--annotation.searches", "6", "--annotation.rollouts", "4"]
    summary = summary_of("openrlhf_prm.cli.annotate", *flags)
    assert summary["questions"] == 6 and summary["retried_questions"] == 0
    assert 0 < summary["cache_hit_rate"] < 1
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert len({record["id"] for record in records}) + summary["dropped_questions"] == 6
    for record in records:
        assert record["root"]["rollouts"] == 8 and record["correct"] == (len(record["response"]) % 3 == 0)
        if record["correct"]:
            assert set(record["hard_labels"]) <= {1}
        else:
            assert record["hard_labels"][-1:] in ([], [0])


def test_a_killed_annotation_goes_on_where_it_stopped_by_engines_of_its_own(policy, server, tmp_path):
    source, output = written(tmp_path, 8, seed=0), tmp_path / "labels.jsonl"
    flags = ["--actor.model_name_or_path", policy, "--data.input", source]
    flags += ["--data.output", output, "--rollout.max_new_tokens", "64", "--annotation.rollouts", "3"]
    flags += ["--annotation.no_stop_at_zero"]

    by_server = ["--annotation.urls", server, "--annotation.concurrency", "1"]
    kill_midway(output, 0, tmp_path / "log", "openrlhf_prm.cli.annotate", *flags, *by_server)
    kept = output.read_bytes()
    output.write_bytes(kept + b'{"id": "torn')

    summary = summary_of("openrlhf_prm.cli.annotate", *flags, "--vllm.enforce_eager")
    assert 0 < summary["resumed_questions"] < 8, "the first run was to be killed in the middle"
    assert summary["questions"] == 8 - summary["resumed_questions"]
    assert output.read_bytes().startswith(kept)
    records = [json.loads(line) for line in output.read_text().splitlines()]
    [balance] = balances(tmp_path)
    assert (balance.came, balance.out["labelled"], balance.faults) == (8, 8, [])
    asked = [json.loads(line)["question"] for line in source.read_text().splitlines() for _ in range(2)]
    assert sorted(record["question"] for record in records) == sorted(asked)
    for record in records:
        assert len(record["steps"]) == len(record["mc_values"]) == len(record["hard_labels"]) == len(record["rollouts"])
        own = [rollouts - endings for rollouts, endings in zip(record["rollouts"], record["endings"], strict=True)]
        assert own[:-1] == [3] * (len(record["steps"]) - 1) and min(record["endings"][:-1], default=1) >= 1
