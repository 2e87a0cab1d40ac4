"""Bad input to the evaluation and report commands: one line that names flag or line, exit code 2, no engine started."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
from real_parsers import ROOT

from openrlhf_prm.cli import evaluate, report
from openrlhf_prm.cli.parser import nested
from openrlhf_prm.cluster.placement import Node
from openrlhf_prm.data.questions import Question
from openrlhf_prm.evaluation import policies
from openrlhf_prm.evaluation.collecting import Judges, Sampling, collect, request_of
from openrlhf_prm.evaluation.step_checkers import STEP_CHECKERS

GOOD_ROW = {"question": "Q: 12+35=?\n", "label": "47"}


@pytest.fixture
def given(tmp_path):
    """A policy folder and a data file that pass the checks, and the flags that name them."""
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "config.json").write_text("{}")
    data = tmp_path / "test.jsonl"
    data.write_text(json.dumps(GOOD_ROW) + "\n")
    flags = ["--actor.model_name_or_path", str(tmp_path / "policy"), "--data.input", str(data)]
    return SimpleNamespace(path=tmp_path, data=data, flags=flags)


def complaint(capsys, *arguments, command=evaluate) -> str:
    with pytest.raises(SystemExit) as ended:
        command.main(list(arguments))
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return error


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--eval.n_samples_per_prompt", "0"),
        ("--eval.n_samples_per_prompt", "many"),
        ("--rollout.max_new_tokens", "0"),
        ("--vllm.num_engines", "0"),
        ("--vllm.num_engines", "-1"),
        ("--data.max_samples", "0"),
        ("--eval.temperature", "-0.5"),
        ("--eval.top_p", "0"),
        ("--eval.top_p", "1.5"),
        ("--steps.splitter", "comma"),
        ("--answers.checker", "absent.py"),
        ("--eval.step_checker", "telepathy"),
        ("--eval.vote_aggregation", "max"),
        ("--prm.model_name_or_path", "./no/such/prm"),
        ("--prm.family", "none"),
        ("--data.input", "no_such.jsonl"),
        ("--actor.model_name_or_path", "/no/such/policy"),
        ("--eval.outptu", "x"),
        ("--self_correction.attempts", "0"),
        ("--eval.budgets", "many"),
        ("--eval.budgets", "-1"),
    ],
)
def test_a_bad_flag_is_named(given, capsys, flag, value):
    error = complaint(capsys, *given.flags, flag, value)
    assert flag.removeprefix("--answers.").removeprefix("--") in error
    assert value in error


def test_a_model_that_is_nowhere(given, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "--prm.model_name_or_path" in complaint(capsys, *given.flags, "--prm.model_name_or_path", "no-such/model")
    (given.path / "policy" / "config.json").unlink()
    assert "config.json" in complaint(capsys, *given.flags)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ('{"label": "47"}', "'question'"),
        ('{"question": "Q: 1+2=?"}', "'label'"),
        ('{"question": "", "label": "47"}', "'question'"),
        ('{"question": "Q: 1+2=?", "label": null}', "'label'"),
        ("[1, 2]", "expected a JSON object"),
        ("{not json", "not JSON"),
    ],
)
def test_a_bad_row_is_named(given, capsys, row, expected):
    given.data.write_text(f"{json.dumps(GOOD_ROW)}\n\n{row}\n")
    error = complaint(capsys, *given.flags)
    assert "line 3" in error and expected in error


def test_no_row_and_a_question_of_another_task(given, capsys):
    given.data.write_text("\n")
    assert "holds no question" in complaint(capsys, *given.flags)
    given.data.write_text(json.dumps({"question": "Who?", "label": "1"}) + "\n")
    error = complaint(capsys, *given.flags, "--eval.step_checker", "arithmetic")
    assert "--eval.step_checker arithmetic" in error and "Who?" in error


def test_a_checkpoint_without_tokenizer(given, capsys):
    error = complaint(capsys, *given.flags)
    assert "--actor.model_name_or_path" in error and "has no tokenizer" in error


@pytest.mark.parametrize(("flag", "value"), [("--prm.family", "qwen_prm"), ("--eval.vote_aggregation", "min")])
def test_what_only_a_prm_would_read(given, capsys, flag, value):
    assert f"{flag} needs --prm.model_name_or_path" in complaint(capsys, *given.flags, flag, value)


def test_an_agent_is_loaded_before_an_engine_starts(given, capsys):
    flag, file = "--eval.agent_func_path", given.path / "agent.py"
    assert f"{flag}: '{file}:AgentExecutor': there is no file" in complaint(capsys, *given.flags, flag, str(file))
    file.write_text("class AgentExecutor: pass")
    assert "must inherit from openrlhf.utils.agent" in complaint(capsys, *given.flags, flag, str(file))
    error = complaint(capsys, *given.flags, flag, str(file), "--rollout.max_new_tokens", "9")
    assert f"--rollout.max_new_tokens is not read with {flag}" in error


def test_an_agent_must_know_how_long_a_conversation_may_be(given, monkeypatch):
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda _: None)
    agent = str(ROOT / "examples" / "calculator_agent" / "agent.py")
    flags = [*given.flags, "--eval.agent_func_path", agent]
    evaluation = evaluate.evaluation_of(nested(evaluate.build_parser().parse_args(flags)))
    with pytest.raises(ValueError, match="--eval.agent_func_path needs --vllm.max_model_len"):
        policies.load_tokenizers(evaluation)


def test_servers_score_the_steps_of_a_policy(given, capsys, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "secret")
    servers = ["--prm.url", "http://a", "https://b/v1", "--prm.api_key_env", "SOME_KEY"]
    flags = [*given.flags, *servers, "--eval.vote_aggregation", "prod"]
    evaluation = evaluate.evaluation_of(nested(evaluate.build_parser().parse_args(flags)))
    scorer = policies._scorer(evaluation)
    assert scorer.urls == ("http://a", "https://b/v1") and scorer.servers.api_key_env == "SOME_KEY"
    assert evaluation.prm_name == "http://a https://b/v1" and list(evaluation.own_engines) == ["vllm"]
    assert "exclude each other" in complaint(capsys, *flags, "--prm.model_name_or_path", str(given.path / "policy"))


def test_outputs_that_cannot_be(given, capsys):
    assert "one file per policy" in complaint(capsys, *given.flags, "--eval.output", "a.json", "b.json")
    assert "is a folder" in complaint(capsys, *given.flags, "--eval.samples", str(given.path))
    assert "given twice" in complaint(capsys, *given.flags, "--eval.output", "x", "--eval.samples", "x")


def test_the_checks_import_neither_vllm_nor_ray_nor_torch(given):
    code = (
        "import sys; from openrlhf_prm.cli.evaluate import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: print(end.code, [m for m in ('vllm', 'ray', 'torch') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, *given.flags, "--eval.n_samples_per_prompt", "0"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.strip() == "2 []"
    assert done.stderr == (
        "python -m openrlhf_prm.cli.evaluate: error: --eval.n_samples_per_prompt must be at least 1, got 0 "
        "(--help lists the flags)\n"
    )


def test_the_report_names_what_is_wrong(tmp_path, capsys):
    assert "--run" in complaint(capsys, "--run", str(tmp_path / "absent"), command=report)
    assert "neither result.json nor" in complaint(capsys, "--run", str(tmp_path), command=report)
    (tmp_path / "result.json").write_text('{"before": {}}')
    assert "'after'" in complaint(capsys, "--run", str(tmp_path), command=report)
    assert "--output" in complaint(capsys, "--run", str(tmp_path), "--output", str(tmp_path), command=report)


def test_an_interrupt_ends_with_130_and_one_line(given, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, "load_tokenizers", lambda _: [])
    monkeypatch.setattr(evaluate, "start_ray_for", lambda *_: None)
    monkeypatch.setattr(evaluate, "measure_policies", interrupted)
    assert evaluate.main(given.flags) == 130
    assert capsys.readouterr().err.count("\n") == 1


def test_engines_that_find_no_gpu(given, capsys, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setattr(evaluate, "load_tokenizers", lambda _: [])
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr("openrlhf_prm.cluster.session.of_ray", lambda memory: [Node("a", 8, 32.0)])
    error = complaint(capsys, *given.flags, "--vllm.num_engines", "3", "--vllm.tensor_parallel_size", "4")
    assert (
        "--vllm.num_engines x --vllm.tensor_parallel_size" in error
        and "needs 12 GPUs" in error
        and "there are 8" in error
    )


# -- collection, with stand-ins for the engines ----------------------------------------------------------------------


class Letters:
    """One token per character."""

    def decode(self, token_ids, **_):
        return "".join(map(chr, token_ids))


class Policy:
    """Answers the first request with a solution, and the others with nothing, or raises what it was given."""

    def __init__(self, text: str, failure: Exception | None = None):
        self.text, self.failure, self.requests = text, failure, []

    async def generate(self, prompt, **sampling):
        self.requests.append((prompt, sampling))
        if self.failure:
            raise self.failure
        text = self.text if sampling["temperature"] == 0 else ""
        return [SimpleNamespace(text=text, token_ids=list(map(ord, text)), truncated=not text)]


class Prm:
    async def score(self, question, steps):
        assert question == GOOD_ROW["question"]
        return [0.25 * (index + 1) for index in range(len(steps))]


def run_collect(policy, **judges):
    import asyncio

    judges = Judges(is_correct=lambda response, label: label in response, splitter="newline", **judges)
    question = Question("id", GOOD_ROW["question"], GOOD_ROW["label"])
    sampling = Sampling(n_samples_per_prompt=2, in_flight=1)
    return asyncio.run(collect([question], policy, Letters(), sampling, judges, "<{}>".format))


def test_collect_grades_every_response():
    policy = Policy("12+35=47\nAnswer: 47\n")
    greedy, *sampled = run_collect(policy, prm=Prm(), step_checker=STEP_CHECKERS["arithmetic"])
    assert greedy.steps == ["12+35=47", "Answer: 47"]
    assert greedy.step_scores == [0.25, 0.5] and greedy.step_checks == [True, True]
    assert greedy.correct and greedy.answer == "47" and greedy.tokens == 20 and not greedy.truncated
    assert [(r.kind, r.sample) for r in (greedy, *sampled)] == [("greedy", None), ("sample", 0), ("sample", 1)]
    # A response without text has no step, and the PRM is not asked.
    assert all((r.steps, r.step_scores, r.step_checks, r.answer) == ([], [], [], None) for r in sampled)
    assert {prompt for prompt, _ in policy.requests} == {f"<{GOOD_ROW['question']}>"}


def test_collect_without_prm_and_checker():
    assert all(r.step_scores is None and r.step_checks is None for r in run_collect(Policy("x")))


def test_a_failing_engine_ends_the_collection():
    with pytest.raises(RuntimeError, match="engine died"):
        run_collect(Policy("", RuntimeError("engine died")))


def test_requests_repeat_and_differ():
    sampling = Sampling(n_samples_per_prompt=2, seed=3)
    seeds = {request_of(sampling, index, sample)["seed"] for index in range(50) for sample in range(2)}
    assert len(seeds) == 100
    assert request_of(sampling, 7, 1) == request_of(sampling, 7, 1)
    assert "seed" not in request_of(sampling, 7, None)


def test_a_response_that_the_prm_cannot_read_is_named_before_an_engine_starts(given, capsys, monkeypatch):
    (given.path / "policy" / "config.json").write_text('{"max_position_embeddings": 64, "prm": "placeholder"}')
    prm = ["--prm.model_name_or_path", str(given.path / "policy")]
    error = complaint(capsys, *given.flags, *prm, "--rollout.max_new_tokens", "64")
    assert "--rollout.max_new_tokens 64" in error and "context of 64" in error
    monkeypatch.setattr("openrlhf_prm.cluster.context_length._tokens", lambda model, text: len(text))
    evaluation = evaluate.evaluation_of(nested(evaluate.build_parser().parse_args([*given.flags, *prm])))
    assert evaluation.sampling.max_new_tokens == (64 - 1 - len(evaluation.questions[0].question)) * 3 // 4


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--self_correction.within_chain"], "--self_correction.within_chain needs --self_correction.attempts above 1"),
        (
            ["--self_correction.attempts", "1", "--self_correction.instruction", "Hm."],
            "instruction needs --self_correc",
        ),
        (["--self_correction.attempts", "2", "--self_correction.instruction", " "], "--self_correction.instruction is"),
        (
            [
                "--self_correction.attempts",
                "2",
                "--self_correction.attempt_tokens",
                "9",
                "--rollout.max_new_tokens",
                "9",
            ],
            "leave out --rollout.max_new_tokens",
        ),
        (["--eval.budgets", "64", "32"], "--eval.budgets must rise, got 64 32"),
        (["--eval.budget_answer", "A: "], "--eval.budget_answer needs --eval.budgets"),
        (["--eval.budget_wait", "Hm."], "--eval.budget_wait needs --eval.budgets"),
        (["--eval.budgets", "64", "--eval.budget_answer_tokens", "9"], "answer_tokens needs --eval.budget_answer"),
    ],
)
def test_flags_of_attempts_and_budgets_that_nothing_would_read(given, capsys, flags, message):
    assert message in complaint(capsys, *given.flags, *flags)


def test_a_report_that_is_a_folder(given, capsys):
    assert "--eval.report" in complaint(capsys, *given.flags, "--eval.report", str(given.path))


def test_a_report_has_the_numbers_and_the_curve(tmp_path):
    curve = [{"budget": 64, "accuracy": 0.25, "interval": [0.125, 0.5], "tokens": 60.0}]
    curve += [{"budget": 128, "accuracy": 0.5, "interval": [0.25, 0.75], "tokens": 120.0}]
    gain = {"gain": 0.25, "interval": [-0.125, 0.375]}
    measured = {"n": 2, "intervals": {}, "questions": 3, "truncated": 0.0, "mean_tokens": 9.0, "policy": "<b>/policy"}
    result = {**measured, "budgets": {mode: {"curve": curve, "gain": gain} for mode in ("cut", "wait")}, "versions": {}}
    evaluate.write_report(tmp_path / "page.html", {"<i>policy": result})
    page = (tmp_path / "page.html").read_text()
    assert "25.0 [12.5, 50.0]" in page and "64 tokens, wait" in page and "<svg" in page
    assert "gain of the last budget, cut" in page and "25.0 [-12.5, 37.5]" in page
    assert "<i>policy" not in page and "<b>/policy" not in page
    evaluate.write_report(tmp_path / "page.html", {"policy": {**measured, "versions": {}}})
    assert "<svg" not in (tmp_path / "page.html").read_text()
