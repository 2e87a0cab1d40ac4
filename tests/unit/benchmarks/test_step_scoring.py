import json

import pytest

from benchmarks import scoring_load, scoring_memory, step_scoring
from benchmarks.step_scoring_systems import System
from benchmarks.step_scoring_worker import growing, load_solutions, measure

SOLUTIONS = [("q", ["a", "b"]), ("r", ["c"]), ("s", [])]


class Letters:
    """Scores are the numbers of letters so far; each request costs as many tokens."""

    def __init__(self):
        self.forgotten, self.tokens = 0, 0

    def render(self, question, steps):
        return type("Rendered", (), {"token_ids": [0] * (len(question) + sum(map(len, steps)))})

    def whole(self, solutions):
        return [
            [self.ask(question, steps[:count]) for count in range(1, len(steps) + 1)] for question, steps in solutions
        ]

    def newest(self, solutions):
        return [self.ask(*solution) for solution in solutions]

    def ask(self, question, steps):
        self.tokens += len(self.render(question, steps).token_ids)
        return float(sum(map(len, steps)))

    def forget(self):
        self.forgotten += 1


@pytest.mark.parametrize("part", step_scoring.PARTS)
def test_what_is_measured(part):
    letters = Letters()
    letters.tokens = 100  # of the warm-up
    system = System(letters, letters.whole, letters.newest, letters.forget, lambda: letters.tokens)
    found = measure(system, part, SOLUTIONS)
    assert found["scores"] == [[1.0, 2.0], [1.0], []]
    assert (found["computed_tokens"], found["solution_tokens"], letters.forgotten) == (2 + 3 + 2, 3 + 2 + 1, 1)
    assert found["seconds"] >= 0 and found["cpu_seconds"] >= 0


def test_solutions_grow_together():
    assert growing(SOLUTIONS) == [[(0, ("q", ["a"])), (1, ("r", ["c"]))], [(0, ("q", ["a", "b"]))]]
    assert growing([]) == []


def test_the_longest_solutions(tmp_path):
    rows = [{"problem": str(size), "steps": ["x" * size] * 2} for size in (3, 9, 1, 9, 5)]
    (tmp_path / "data.json").write_text(json.dumps(rows))
    assert [question for question, _ in load_solutions(tmp_path / "data.json", 2, False)] == ["3", "9"]
    assert [question for question, _ in load_solutions(tmp_path / "data.json", 3, True)] == ["9", "9", "5"]
    with pytest.raises(ValueError, match="--items 6: .* has 5 solutions"):
        load_solutions(tmp_path / "data.json", 6, True)
    with pytest.raises(ValueError, match="not a ProcessBench file"):
        load_solutions(tmp_path / "none.json", 1, False)


def run_of(seconds, score):
    return {
        "seconds": seconds,
        "cpu_seconds": 2 * seconds,
        "computed_tokens": 10,
        "solution_tokens": 5,
        "scores": score,
    }


def test_ratios_are_of_one_round():
    """A load that falls on one round falls on both its sides: 2/1 and 30/10 and 2/1, not the ratio of medians."""
    runs = {
        "stock": {"grow": [run_of(2.0, [[0.5]]), run_of(30.0, [[0.5]]), run_of(2.0, [[0.5]])]},
        "ours": {"grow": [run_of(1.0, [[0.5]]), run_of(10.0, [[0.25]]), run_of(1.0, [[0.5]])]},
        "alone": {"whole": [run_of(4.0, [[0.5]])]},
    }
    found = step_scoring.summary(runs, {"stock": "ours", "missing": "ours"})
    assert found["ratio"] == {"stock over ours": {"grow": {"seconds": 2.0, "cpu_seconds": 2.0}}}
    assert found["largest difference"] == {"stock from ours": {"grow": 0.25}}
    assert found["median"]["alone"]["whole"]["seconds"] == 4.0
    assert step_scoring.summary({}, {"stock": "ours"}) == {"median": {}, "ratio": {}, "largest difference": {}}


def test_a_missing_file_is_one_line(tmp_path, capsys):
    flags = ["--data", str(tmp_path / "none.json"), "--work-dir", str(tmp_path / "work")]
    for command in (step_scoring, scoring_load, scoring_memory):
        with pytest.raises(SystemExit) as ended:
            command.main(flags)
        assert ended.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_shares_and_latencies_by_hand():
    def one(http, offline, latencies, lost=0):
        figures = {"http_s": http, "offline_s": offline, "requests": 4, "difference": 0.1 * http, "lost": lost}
        return {**figures, "latencies": latencies}

    found = scoring_load.summary([one(2.0, 1.9, [1.0, 2.0]), one(8.0, 6.4, [3.0]), one(4.0, 3.6, [4.0], lost=1)])
    assert found["throughput_share"] == pytest.approx(0.9)
    assert (found["http_s"], found["offline_s"], found["requests_per_second"]) == (4.0, 3.6, 1.0)
    assert (found["latency_median_s"], found["latency_p99_s"], found["answers"], found["lost"]) == (2.5, 4.0, 4, 1)
    assert found["largest_difference"] == pytest.approx(0.8)
    assert [scoring_load.percentile(range(1, 101), share) for share in (0.5, 0.99, 1.0)] == [50, 99, 100]
    assert scoring_load.percentile([7], 0.99) == 7


def test_growth_is_the_slope_of_the_second_half():
    seen = [[1000 * n, 100.0] for n in range(1, 5)] + [[1000 * n, 100.0 + n] for n in range(5, 9)]
    found = scoring_memory.summary(seen)
    assert found["slope_mib_per_1000"] == pytest.approx(1.0)
    assert found["extrapolated_growth_mib_in_100000"] == pytest.approx(100.0)
    assert (found["requests"], found["first_mib"], found["half_mib"], found["last_mib"]) == (8000, 100.0, 105.0, 108.0)
    assert "slope_mib_per_1000" not in scoring_memory.summary(seen[:1])


def test_requests_grow_and_then_begin_anew():
    requests = scoring_memory.growing_requests([("q", ["a", "b"]), ("r", ["c"])])
    assert [next(requests) for _ in range(4)] == [
        ("(0) q", ["a"]),
        ("(0) r", ["c"]),
        ("(0) q", ["a", "b"]),
        ("(1) q", ["a"]),
    ]
