"""`annotate` from its flags to its last line, without an engine."""

import json

import pytest

from openrlhf_prm.annotation import LabelledSolution
from openrlhf_prm.annotation.records import AnnotatedQuestion, Root
from openrlhf_prm.annotation.rollouts import NoTokenLimit
from openrlhf_prm.cli import annotate
from openrlhf_prm.cluster.checks import TooFewGPUs
from openrlhf_prm.data.prompts import QuestionTooLong
from vllm_prm.splitters import split_text


def solution(text: str) -> LabelledSolution:
    return LabelledSolution(text, [text], [1.0], [1], [1.0], [0], [0], [0], True, False, [0])


def found(*texts: str) -> AnnotatedQuestion:
    return AnnotatedQuestion(Root(2, 2), [solution(text) for text in texts], {})


def write_rows(path, *rows) -> str:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return str(path)


def policy_in(parent) -> str:
    """A folder that looks like a checkpoint from outside."""
    (parent / "policy").mkdir()
    (parent / "policy" / "config.json").write_text("{}")
    return str(parent / "policy")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--annotation.rollouts", "0"], "--annotation.rollouts must be at least 1, got 0"),
        (["--rollout.max_new_tokens", "0"], "--rollout.max_new_tokens must be at least 1"),
        (
            ["--annotation.urls", "http://x", "--vllm.dtype", "bfloat16"],
            "--vllm.dtype is of our own engines, which --annotation.urls replace",
        ),
        (["--vllm.gpu_memory_utilization", "2"], "--vllm.gpu_memory_utilization must lie in 0..1"),
        (["--annotation.concurrency", "0"], "--annotation.concurrency must be at least 1"),
        (["--data.input", "nowhere.jsonl"], "--data.input: no such file: nowhere.jsonl"),
        (["--data.label_key", "answer"], "line 1: no key 'answer'"),
        (["--actor.model_name_or_path", "./nowhere"], "--actor.model_name_or_path: there is no folder ./nowhere"),
        (["--annotator", "guess"], "invalid choice: 'guess'"),
        (
            ["--steps.splitter", "word"],
            "unknown name 'word'; choose one of",
        ),
        (["--steps.splitter", "nowhere.py:ends"], "there is no file nowhere.py"),
        (["--annotation.searches", "3"], "--annotation.searches is no option of --annotator math_shepherd"),
        (["--annotation.rule", "majority"], "invalid choice: 'majority'"),
        (["--answers.checker", "vibes"], "unknown answer checker 'vibes'"),
        (["--answers.checker", "reasoning_gym"], "line 1: the label must be a row of reasoning-gym as JSON"),
        (["--data.input_template", "no place"], "--data.input_template has no {}"),
        (["--annotation.rollout", "3"], "unrecognized arguments"),
    ],
)
def test_bad_flags_end_with_one_line(tmp_path, capsys, flags, message):
    questions = write_rows(tmp_path / "in.jsonl", {"question": "1+1?", "label": "2"})
    output = tmp_path / "out.jsonl"
    base = ["--actor.model_name_or_path", policy_in(tmp_path), "--data.input", questions, "--data.output", str(output)]
    with pytest.raises(SystemExit) as end:
        annotate.main([*base, *flags])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not output.exists()


@pytest.mark.parametrize("fault", [NoTokenLimit, TooFewGPUs, QuestionTooLong])
def test_what_is_found_out_before_a_question_is_asked_ends_with_one_line(tmp_path, capsys, monkeypatch, fault):
    def label(labelling, labels):
        raise fault("--vllm.num_engines: too many")

    monkeypatch.setattr(annotate, "label_questions", label)
    questions = write_rows(tmp_path / "in.jsonl", {"question": "1+1?", "label": "2"})
    flags = ["--data.input", questions, "--data.output", str(tmp_path / "out.jsonl")]
    with pytest.raises(SystemExit) as end:
        annotate.main(["--actor.model_name_or_path", policy_in(tmp_path), *flags])
    assert end.value.code == 2 and "--vllm.num_engines: too many" in capsys.readouterr().err


def test_without_a_limit_the_context_is_a_setting(tmp_path):
    questions = write_rows(tmp_path / "in.jsonl", {"question": "1+1?", "label": "2"})
    flags = ["--actor.model_name_or_path", policy_in(tmp_path), "--data.input", questions]
    flags += ["--data.output", str(tmp_path / "out.jsonl")]

    def opened(*more: str) -> None:
        annotate.labelling_of(
            annotate.nested(annotate.build_parser().parse_args([*flags, *more]))
        ).open_labels()._labels.close()

    opened("--vllm.max_model_len", "512")
    with pytest.raises(ValueError, match="--vllm.max_model_len was 512, is 256"):
        opened("--vllm.max_model_len", "256")


def test_nothing_left_to_do_starts_no_engine(tmp_path, capsys):
    questions = write_rows(tmp_path / "in.jsonl", {"question": "1+1?", "label": "2"})
    output = tmp_path / "out.jsonl"
    flags = ["--actor.model_name_or_path", policy_in(tmp_path), "--data.input", questions, "--data.output", str(output)]
    labelling = annotate.labelling_of(annotate.nested(annotate.build_parser().parse_args(flags)))
    with labelling.open_labels() as labels:
        labels.append(labelling.run.questions[0], found("1+1=2"))
    assert annotate.main(flags) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["questions"], summary["resumed_questions"], summary["rollouts"]) == (0, 1, 0)


def test_an_interruption_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    questions = write_rows(
        tmp_path / "in.jsonl", {"question": "1+1?", "label": "2"}, {"question": "2+2?", "label": "4"}
    )
    output = tmp_path / "out.jsonl"

    def interrupted(labelling, labels):
        labels.append(labelling.run.questions[0], found("1+1=2"))
        raise KeyboardInterrupt

    monkeypatch.setattr(annotate, "label_questions", interrupted)
    flags = ["--actor.model_name_or_path", policy_in(tmp_path), "--data.input", questions, "--data.output", str(output)]
    assert annotate.main(flags) == 130
    error = capsys.readouterr().err
    assert "1 questions finished in this run" in error and "run the same command again" in error
    assert error.count("\n") == 1
    assert len(output.read_text().splitlines()) == 1


def test_a_splitter_from_a_file_is_found_from_every_folder(tmp_path, monkeypatch):
    (tmp_path / "words.py").write_text("def ends(text):\n    return [place + 1 for place in range(len(text))]\n")
    questions = write_rows(tmp_path / "in.jsonl", {"question": "1+1?", "label": "2"})
    flags = ["--actor.model_name_or_path", policy_in(tmp_path), "--data.input", questions]
    monkeypatch.chdir(tmp_path)
    flags += ["--data.output", "out.jsonl", "--steps.splitter", "words.py:ends"]
    labelling = annotate.labelling_of(annotate.nested(annotate.build_parser().parse_args(flags)))
    monkeypatch.chdir("/")
    assert split_text("ab", labelling.options.splitter) == ["a", "b"]
