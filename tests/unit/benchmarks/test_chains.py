"""The benchmark of chains, on few questions and engines that answer at once: whose turn it is, and what is counted."""

import asyncio
import json

import pytest

from benchmarks import chains


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(chains, "LATENCY_S", 0.001)
    monkeypatch.setattr(chains, "ENGINES", (1, 2))


def test_figures_are_those_of_the_chains(tmp_path, quick):
    flags = ["--parts", "scaling", "--questions", "5", "--work-dir", str(tmp_path / "work")]
    args = chains.build_parser().parse_args([*flags, "--output", str(tmp_path / "figures.json")])
    summary = chains.measure(args)
    cells = json.loads(args.output.read_text())["cells"]
    assert summary == {name: cell["chains_per_hour"] for name, cell in cells.items()} and "ratio" not in summary
    for engines, cell in ((1, cells["scaling/1"]), (2, cells["scaling/2"])):
        assert cell["questions"] == 5 * engines and 0 < cell["kept"] <= cell["questions"]
        assert cell["calls"] > 4 * cell["questions"]  # 3 to 5 additions and an answer, and tries
        calls_per_hour = engines * chains.PLACES / chains.LATENCY_S * 3600
        assert cell["ideal"] == pytest.approx(calls_per_hour / cell["calls"] * cell["questions"], rel=1e-3)


def test_engines_are_asked_in_turn(quick):
    async def run():
        engines = chains.StubEngines(2)
        said = await asyncio.gather(*(engines.answer(None, "", "Q: 12+35=?\n12+35=47\n", seed) for seed in range(6)))
        assert {answer.text for answer in said} == {"Answer: 47"}
        return [engine.calls for engine in engines.engines]

    assert asyncio.run(run()) == [3, 3]
