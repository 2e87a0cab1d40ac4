"""The process that compares formulas: its limits, and what its end means."""

import sys

import pytest

from openrlhf_prm.answers.process import ATTEMPTS, AnswerProcess

PATIENT_S = 3600.0


def process_that(does: str, *arguments: str) -> AnswerProcess:
    """An answer process that says it is ready and then, at its first question, does what the lines say."""
    program = f"import os, sys, time\nprint('ready', flush=True)\nsys.stdin.readline()\n{does}"
    return AnswerProcess(limit_s=PATIENT_S, command=(sys.executable, "-c", program, *arguments))


def test_an_answer_that_takes_for_ever_is_wrong_and_the_next_one_is_judged(caplog):
    checker = AnswerProcess(limit_s=PATIENT_S)
    assert checker.same("1/2", r"\frac{1}{2}")
    checker.limit_s = 0.1  # any limit is too short for it
    assert not checker.same("1", "9^{9^{9^9}}")
    assert "took over 0.1 s: counted as wrong" in caplog.text
    checker.limit_s = PATIENT_S
    assert checker.same("x+1", "1+x")


def test_the_limit_is_of_cpu_time():
    """A process that is kept waiting, as on a loaded machine, for longer than its limit is heard."""
    checker = process_that("time.sleep(0.2)\nprint(1, flush=True)")
    checker.limit_s = 0.01
    assert checker.same("1", "1")


def test_a_process_that_gets_no_cpu_time_at_all_is_an_error(monkeypatch):
    monkeypatch.setattr("openrlhf_prm.answers.process.PATIENCE", 1)
    checker = process_that("time.sleep(3600)")
    checker.limit_s = 0.01
    with pytest.raises(RuntimeError, match="failed 3 times: the process of math-verify got no 0.01 s of CPU time"):
        checker.same("1", "2")
    assert checker._process.poll() is not None, "the last one was ended"


def test_a_process_ended_from_outside_says_nothing_about_the_answer(tmp_path):
    # The first is killed while it compares, as by a machine without memory; the next one answers.
    mark = tmp_path / "killed"
    checker = process_that(
        "if not os.path.exists(sys.argv[1]):\n    open(sys.argv[1], 'w').close()\n    os.kill(os.getpid(), 9)\n"
        "print(1, flush=True)",
        str(mark),
    )
    assert checker.same("1", "1") and mark.exists()


def test_a_process_killed_between_two_answers_is_replaced():
    checker = AnswerProcess(limit_s=PATIENT_S)
    assert checker.same("x+1", "1+x")
    checker._process.kill()
    assert checker.same("x+2", "2+x")


def test_processes_that_die_every_time_are_an_error_and_no_verdict(tmp_path):
    count = tmp_path / "count"
    checker = process_that("open(sys.argv[1], 'a').write('x')\nos._exit(7)", str(count))
    with pytest.raises(RuntimeError, match="comparing answers with '1' failed 3 times: .* ended with code 7"):
        checker.same("1", "1")
    assert len(count.read_text()) == ATTEMPTS


def test_an_answer_that_takes_too_much_memory_is_wrong(caplog):
    assert not process_that("print('memory', flush=True)").same("1", "2")
    assert "took over 2 GiB: counted as wrong" in caplog.text


def test_a_process_may_take_so_much_memory_and_no_more(monkeypatch):
    from openrlhf_prm.answers import process

    program = (
        "from openrlhf_prm.answers import formulas, process\n"
        "honest = formulas.same_formula\n"
        f"formulas.same_formula = lambda a, b: len(bytearray({process.MEMORY})) > 0 if b == '2' else honest(a, b)\n"
        "process.main()"
    )
    checker = AnswerProcess(limit_s=PATIENT_S, command=(sys.executable, "-c", program))
    assert not checker.same("1", "2")
    assert checker.same("x+1", "1+x"), "the process lives on"


def test_a_process_that_does_not_start_is_an_error():
    checker = AnswerProcess(command=(sys.executable, "-c", "print('no')"))
    with pytest.raises(RuntimeError, match="could not be started"):
        checker.same("1", "2")
