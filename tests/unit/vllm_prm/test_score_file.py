"""`vllm-prm score` without an engine: mistakes, interruption, input lines."""

import signal
import socket
import subprocess
import sys

import pytest

from vllm_prm.score_file import read_items


def run_score(*arguments, stdin="", code=2):
    command = [sys.executable, "-m", "vllm_prm.serve", "score", *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=600)
    assert done.returncode == code, done.stderr
    return done


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prm", "--input", "nowhere.jsonl"], "--input nowhere.jsonl cannot be read"),
        (["prm", "--wrong"], "unrecognized arguments: --wrong"),
        (["prm", "--aggregate", "median"], "--aggregate"),
        (["prm", "--engine-args", "[]"], "--engine-args must be a JSON object"),
        (["prm", "--batch-size", "0"], "--batch-size"),
        (["prm", "--output", "no/such/folder/out.jsonl"], "folder no/such/folder does not exist"),
        ([], "name the PRM"),
        (["--url", "nonsense"], "http://"),
        (["--url", "http://127.0.0.1:9", "--family", "placeholder"], "--family is for an engine of our own"),
        (["--url", "http://127.0.0.1:9", "--engine-args", '{"seed": 1}'], "--engine-args is for an engine of our own"),
        (["prm", "--api-key-env", "KEY"], "--api-key-env is for a server"),
    ],
)
def test_mistakes_end_in_one_line(arguments, message):
    done = run_score(*arguments, stdin='{"question": "q", "steps": ["a"]}\n')
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr and done.stdout == ""


def test_interruption_keeps_what_was_written(tmp_path):
    """A server that never answers: Ctrl-C ends the command with status 130, one line and no traceback."""
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"question": "q", "steps": ["a"]}\n')
    (tmp_path / "out.jsonl.partial").write_text("")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        command = [sys.executable, "-m", "vllm_prm.serve", "score", "--url", url]
        process = subprocess.Popen(
            [*command, "--input", str(source), "--output", str(output)],
            stderr=subprocess.PIPE,
            text=True,
            # A shell starts background jobs deaf to Ctrl-C, and these tests may run in one.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        silent.settimeout(600)
        connection, _ = silent.accept()
        with connection:
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=600)
    assert process.returncode == 130
    assert stderr.splitlines()[-1] == "vllm-prm score: interrupted" and "Traceback" not in stderr
    assert not output.exists() and (tmp_path / "out.jsonl.partial").exists()


def test_input_errors_name_the_line():
    assert (
        len(read_items(['{"question": "q", "steps": ["a"]}', "", '{"question": "q", "response": "b", "id": 1}'])) == 2
    )
    for bad in ("{", "[1]", '{"question": "q"}', '{"question": "q", "steps": [], "id": NaN}'):
        with pytest.raises(ValueError, match="line 2"):
            read_items(['{"question": "q", "steps": []}', bad])
    with pytest.raises(ValueError, match="already has"):
        read_items(['{"question": "q", "steps": [], "score": 1}'])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"question": "q"', "no JSON, expecting ',' delimiter at character 17"),
        ("[1]", "a JSON object is needed, got [1]"),
        ('{"question": "q"}', "give exactly one of steps and response"),
        (
            '{"question": 3, "steps": "a"}',
            "question: Input should be a valid string; steps: Input should be a valid list",
        ),
        ('{"question": "q", "steps": ["a", 2]}', "steps.1: Input should be a valid string"),
        ('{"question": "q", "steps": [], "id": NaN}', "NaN is not JSON"),
    ],
)
def test_a_malformed_line_is_one_sentence(line, said):
    with pytest.raises(ValueError) as caught:
        read_items([line])
    assert str(caught.value) == f"line 1 of the input: {said}"
