"""Ledgers as runs leave them, killed ones too, and what they come to."""

import json

import pytest

from openrlhf_prm.cli.doctor import UNBALANCED, main
from openrlhf_prm.data.ledger import NAME, Ledger, balances


def test_a_run_that_balances(tmp_path, capsys):
    ledger = Ledger(tmp_path / "runs", "labels.jsonl")
    ledger.began()
    ledger.part(1, "questions", 24, {"labelled": 22}, {"too long": 2, "none": 0})
    ledger.ended({"questions": 24})
    [balance] = balances(tmp_path / "runs")
    assert balance.faults == []
    assert str(balance) == "labels.jsonl: 24 questions = 22 labelled + 2 left out (too long 2)"
    assert main(["--run", str(tmp_path / "runs")]) == 0
    assert capsys.readouterr().out == f"ok     {balance}\n"


@pytest.mark.parametrize(
    ("left_out", "everything", "fault"),
    [
        ({}, {"questions": 24}, "24 questions went in, 22 are accounted for"),
        ({"a": 3}, {"questions": 24}, "24 questions went in, 25 are accounted for"),
        ({"a": 2}, {"questions": 25}, "there were 25 questions, 24 went in"),
        ({"a": 2}, None, "the run has not ended"),
    ],
)
def test_what_does_not_balance_is_said(tmp_path, capsys, left_out, everything, fault):
    ledger = Ledger(tmp_path, "labels.jsonl")
    ledger.began()
    ledger.part(1, "questions", 24, {"labelled": 22}, left_out)
    if everything:
        ledger.ended(everything)
    assert [balance.faults for balance in balances(tmp_path)] == [[fault]]
    assert main(["--run", str(tmp_path)]) == UNBALANCED
    assert f"       {fault}\n" in capsys.readouterr().out


def test_updates_that_are_done_again_count_once(tmp_path):
    ledger = Ledger(tmp_path, "ppo")
    ledger.began()
    for update in (1, 2, 3):
        ledger.part(update, "responses", 8, {"trained": 7}, {"empty": 1})
    ledger.began(kept=2)  # killed, and resumed from the checkpoint of update 2
    ledger.part(3, "responses", 8, {"trained": 8})
    ledger.ended({"responses": 24})
    [balance] = balances(tmp_path)
    assert balance.faults == [] and balance.out == {"trained": 22} and balance.left_out == {"empty": 2}
    ledger.began()
    ledger.part(2, "responses", 8, {"trained": 8})
    assert "parts 1 are missing" in balances(tmp_path)[0].faults


def test_a_line_torn_by_a_kill_is_passed_over(tmp_path):
    ledger = Ledger(tmp_path, "a")
    ledger.began()
    with open(tmp_path / NAME, "ab") as file:
        file.write(b'{"run": "a", "event": "pa')
    ledger.part(1, "questions", 1, {"labelled": 1})
    ledger.ended({"questions": 1})
    assert [balance.faults for balance in balances(tmp_path)] == [[]]
    assert len((tmp_path / NAME).read_text().splitlines()) == 4


def test_runs_share_a_folder_and_a_run_of_nothing_is_named(tmp_path):
    first, second = Ledger(tmp_path, "a"), Ledger(tmp_path, "b")
    first.began()
    second.began()
    second.part(1, "questions", 0, {"labelled": 0})
    second.ended({"questions": 0})
    assert [(each.run, each.faults) for each in balances(tmp_path)] == [("a", ["the run has not ended"]), ("b", [])]
    assert all(json.loads(line) for line in (tmp_path / NAME).read_text().splitlines())


def test_no_ledger_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--run", str(tmp_path)])
    assert ended.value.code == 2 and f"--run: there is no {NAME} in {tmp_path}" in capsys.readouterr().err
