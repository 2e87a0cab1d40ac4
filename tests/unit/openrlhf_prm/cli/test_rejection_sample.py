"""`rejection_sample` from its flags to its last line, and a run that is killed, without an engine."""

import json
from types import SimpleNamespace

import pytest

from openrlhf_prm.cli import rejection_sample
from openrlhf_prm.cli.parser import nested
from openrlhf_prm.generation import rejection_sampling
from openrlhf_prm.generation.sampler import Candidate, SampledQuestion


def candidate(text):
    return Candidate(text, [text], len(text))


@pytest.fixture
def given(tmp_path):
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "config.json").write_text('{"max_position_embeddings": 64, "prm": "placeholder"}')
    data = tmp_path / "in.jsonl"
    data.write_text("".join(json.dumps({"question": f"q{i}", "label": "7"}) + "\n" for i in range(4)))
    flags = ["--actor.model_name_or_path", str(tmp_path / "policy"), "--data.input", str(data)]
    flags += ["--data.output", str(tmp_path / "sft.jsonl"), "--data.apply_chat_template"]
    return SimpleNamespace(path=tmp_path, flags=flags)


def complaint(capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        rejection_sample.main(arguments)
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.count("\n") == 1, error
    return error


@pytest.mark.parametrize(
    ("flag", "value", "expected"),
    [
        ("--rollout.n_samples_per_prompt", "0", "--rollout.n_samples_per_prompt must be at least 1"),
        ("--rollout.temperature", "0", "temperature 0"),
        ("--rollout.top_p", "2", "--rollout.top_p must lie in"),
        ("--rollout.max_new_tokens", "0", "--rollout.max_new_tokens must be"),
        ("--rollout.concurrency", "0", "--rollout.concurrency"),
        ("--rollout.urls", "localhost", "http://"),
        ("--select.max_per_question", "0", "--select.max_per_question must be"),
        ("--select.duplicate_from", "0", "--select.duplicate_from must lie in"),
        ("--select.similarity", "vibes", "vibes"),
        ("--select.min_score", "0.5", "--select.min_score needs step scores"),
        ("--select.aggregation", "min", "--select.aggregation needs step scores"),
        ("--prm.num_engines", "2", "--prm.num_engines needs --prm.model_name_or_path"),
        ("--prm.family", "placeholder", "--prm.family needs --prm.model_name_or_path"),
        ("--prm.url", "localhost:1", "--prm.url must begin with http"),
        ("--prm.api_key_env", "HOME", "--prm.api_key_env needs --prm.url"),
        ("--vllm.gpus_per_engine", "2", "got 2; .tensor_parallel_size 2 splits an engine over 2 GPUs"),
        ("--vllm.num_engines", "0", "--vllm.num_engines must be at least 1"),
        ("--data.input_template", "x", "--data.input_template"),
        ("--data.input", "absent.jsonl", "absent.jsonl"),
        ("--data.output", ".", "is a folder"),
        ("--prm.model_name_or_path", "./absent", "./absent"),
        ("--answers.checker", "absent.py", "absent.py"),
        ("--steps.splitter", "comma", "comma"),
    ],
)
def test_a_bad_flag_is_named(given, capsys, flag, value, expected):
    assert expected in complaint(capsys, [*given.flags, flag, value])


def test_a_response_that_the_prm_cannot_read(given, capsys, monkeypatch):
    prm = ["--prm.model_name_or_path", str(given.path / "policy")]
    error = complaint(capsys, [*given.flags, *prm, "--rollout.max_new_tokens", "64"])
    assert "--rollout.max_new_tokens 64" in error and "context of 64" in error
    monkeypatch.setattr("openrlhf_prm.cluster.context_length._tokens", lambda model, text: len(text))
    task = rejection_sample.task_of(nested(rejection_sample.build_parser().parse_args([*given.flags, *prm])))
    assert task.sampling.max_new_tokens == 45  # three quarters of 64 - 1 - len("q0")


def test_a_killed_run_goes_on_and_another_selection_samples_nothing(given, capsys, monkeypatch):
    asked = []

    def sample(task, questions, samples):
        for question in questions:
            if len(asked) == 2:
                asked.append(None)
                raise KeyboardInterrupt
            asked.append(question.id)
            samples.append_all([(question, SampledQuestion(3, 0, [candidate("x"), candidate("y")]))])
        return 0

    monkeypatch.setattr(rejection_sampling, "sample", sample)
    assert rejection_sample.main(given.flags) == 130
    assert "2 finished questions" in capsys.readouterr().err and not (given.path / "sft.jsonl").exists()
    assert rejection_sample.main(given.flags) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (summary["questions"], summary["resumed_questions"], summary["kept"]) == (4, 2, 8)
    assert len(set(asked)) == 5 and "--data.apply_chat_template" in summary["train_sft"]
    assert rejection_sample.main([*given.flags, "--select.max_per_question", "1"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["kept"] == 4 and len(asked) == 5
    assert "temperature was 1.0, is 0.5" in complaint(capsys, [*given.flags, "--rollout.temperature", "0.5"])
