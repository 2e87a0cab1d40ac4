"""Annotation over engines that die and over a server, with real Ray and vLLM on CPU."""

import asyncio
import json
import os
import signal

import pytest
import torch
from commands import summary_of
from engine_cores import engine_cores
from servers import running_server, until_ready

from examples.quickstart.make_policy import build_model, build_tokenizer
from openrlhf_prm.annotation.adaptive import Adaptive, AdaptiveOptions
from openrlhf_prm.annotation.scheduler import annotate_all
from openrlhf_prm.cluster.accelerator import prepare_environment
from openrlhf_prm.data.questions import Question
from openrlhf_prm.tasks.arithmetic import questions
from vllm_prm.parent_watch import VARIABLE

pytestmark = pytest.mark.stack
LIMIT_S = 300.0


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> str:
    """An untrained policy: its noise has steps, and the checker calls a third of it right."""
    path = tmp_path_factory.mktemp("policy")
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    build_model(tokenizer).to(torch.bfloat16).save_pretrained(path)
    tokenizer.save_pretrained(path)
    (path / "checker.py").write_text("def is_correct(response, label):\n    return len(response) % 3 == 0\n")
    return str(path)


def test_questions_of_a_killed_engine_are_tried_again_on_a_new_one(policy):
    prepare_environment()
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
        assert ray.get(engine.actor.pid.remote()) != first
        assert sum(map(sum, finished.values())) > 0
        hits, queries = asyncio.run(engine.cache_counters())
        assert 0 < hits < queries
    finally:
        ray.shutdown()


def test_an_engine_ends_with_its_actor(policy):
    prepare_environment()
    import psutil
    import ray

    from openrlhf_prm.cluster.session import start_ray
    from openrlhf_prm.cluster.workers import EngineOptions, GenerationWorker

    start_ray({})
    try:
        worker = ray.remote(GenerationWorker).options(num_cpus=0, max_restarts=0).remote(EngineOptions(policy, gpus=0))
        ray.get(worker.ready.remote())
        marked = [process for process in psutil.process_iter() if _ends_with_another(process)]
        assert marked
        os.kill(marked[0].ppid(), signal.SIGKILL)
        _, alive = psutil.wait_procs(marked, timeout=LIMIT_S)
        assert alive == []
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


def test_a_server_annotates_too(policy, tmp_path):
    source, output = tmp_path / "in.jsonl", tmp_path / "labels.jsonl"
    source.write_text("".join(json.dumps({"question": q, "label": a}) + "\n" for q, a in questions("train", 6, seed=1)))
    server = ["vllm.entrypoints.openai.api_server", "--model", policy, "--enforce-eager", "--block-size", "32"]
    with running_server(server, tmp_path / "log") as url:
        until_ready(url)
        flags = ["--annotator", "omega_prm", "--actor.model_name_or_path", policy, "--data.input", str(source)]
        flags += ["--data.output", str(output), "--annotation.urls", f"{url}/v1", "--rollout.max_new_tokens", "96"]
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
