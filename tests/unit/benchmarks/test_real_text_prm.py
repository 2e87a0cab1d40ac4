"""The measures of the benchmark on real text, by hand, and its split of problems."""

import json

import pytest

from benchmarks.real_text_prm import measures, prepare_rows, report


def row(scores, labels, lengths=None):
    steps = ["x" * length for length in lengths or [1] * len(scores)]
    return {"question": "Q", "steps": steps, "labels": labels, "scores": scores}


def test_a_perfect_ranking_is_one_on_every_draw():
    rows = [row([0.9, 0.1], [1, 0]), row([0.8, 0.2, 0.7], [1, 0, 1], [1, 5, 2]), row([0.9], [1])]
    found = report(rows, ["a", "b", "a"])
    assert (found["solutions"], found["problems"], found["steps"], found["wrong_steps"]) == (3, 2, 6, 2)
    assert (found["auc"], found["interval"]) == (1.0, (1.0, 1.0))
    assert found["auc_modified"] == 1.0 and found["above_chance"]
    # Among solutions with errors, right steps stand at 0, 0, 2 and wrong ones at 1, 1: 4 of 6 pairs.
    assert found["baselines"]["later"] == pytest.approx(4 / 6)
    # Right steps have 1, 1, 2 characters, wrong ones 1, 5: 3 of 3 pairs and, against 1, two ties and a loss.
    assert found["baselines"]["longer"] == pytest.approx((3 + 1) / 6)


def test_a_style_that_tells_solutions_apart_does_not_count_among_the_modified():
    """Scores know which solution has errors, and nothing of where they are."""
    rows = [row([0.9, 0.9], [1, 1]), row([0.1, 0.1], [1, 0]), row([0.9], [1]), row([0.1, 0.1], [0, 1])]
    found = report(rows, ["a", "a", "b", "b"])
    assert found["auc"] > 0.7 and found["auc_modified"] == 0.5
    assert not found["above_chance"]


def test_the_rows_of_a_problem_are_drawn_together():
    """One problem: every draw is the data itself. Two that disagree: a draw may hold either alone."""
    solutions = [("a", [0.9, 0.1], [True, False]), ("a", [0.1, 0.9], [True, False])]
    assert measures(solutions) == {"auc": 0.5, "interval": (0.5, 0.5)}
    assert measures([("a", *solutions[0][1:]), ("b", *solutions[1][1:])])["interval"] == (0.0, 1.0)
    assert measures([("a", [0.5], [True])]) == {"auc": None, "interval": None}
    assert measures([]) == {"auc": None, "interval": None}


def test_problems_stand_on_one_side(tmp_path):
    folder = tmp_path / "prmbench"
    folder.mkdir()
    lines = []
    for number in range(40):
        question = f"Question {number}?"
        for kind in ("one", "other"):
            lines.append(
                {
                    "idx": f"p{number}",
                    "original_question": question,
                    "modified_question": f"{question} {kind}",
                    "original_process": ["a", "b"],
                    "modified_process": ["a", kind],
                    "error_steps": [2],
                }
            )
    (folder / "x.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    problems = prepare_rows(folder, tmp_path, 10, 15, 0.3)
    train = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    heldout = [json.loads(line) for line in (tmp_path / "heldout.jsonl").read_text().splitlines()]
    assert (len(train), len(heldout), len(problems)) == (10, 15, 15)
    numbers = {line["question"].split("?")[0] for line in train}
    assert not numbers & {line["question"].split("?")[0] for line in heldout}
    assert all(line["question"].startswith(f"Question {p[1:]}?") for line, p in zip(heldout, problems, strict=True))
