"""Results of evaluations as tables on the terminal."""

from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from openrlhf_prm.evaluation.plots import PlotTable


def print_results(results: Iterable[dict]) -> None:
    """Prints the accuracies of every policy with their 95% intervals, one column a policy."""
    results = list(results)
    table = Table(title="% [95% interval]", title_style="")
    table.add_column("measure")
    for result in results:
        table.add_column(escape(Path(result["policy"]).name), justify="right")
    for name in dict.fromkeys(name for result in results for name in _rows(result)):
        table.add_row(name, *(_rows(result).get(name, "-") for result in results))
    Console().print(table)


def print_tables(tables: Iterable[PlotTable]) -> None:
    """Prints tables of a benchmark; all columns but the first to the right."""
    for content in tables:
        table = Table(title=escape(content.title), title_style="", title_justify="left")
        for index, name in enumerate(content.header):
            table.add_column(escape(name), justify="right" if index else "left")
        for row in content.rows:
            table.add_row(*map(escape, row))
        Console().print(table)


def _rows(result: dict) -> dict[str, str]:
    n, intervals = result["n"], result["intervals"]
    names = [
        "greedy",
        f"mean_at_{n}",
        f"pass_at_{n}",
        "majority_vote",
        "weighted_vote",
        "step_accuracy",
        "prm_step_accuracy",
    ]
    rows = {name: _percent(result[name], intervals.get(name)) for name in names if name in result}
    for kind, value in result.get(f"best_of_{n}", {}).items():
        rows[f"best_of_{n} ({kind})"] = _percent(value, intervals[f"best_of_{n}"][kind])
    if result.get("prm_auc") is not None:
        rows["prm_auc"] = f"{result['prm_auc']:.3f}"
    rows["truncated"] = _percent(result["truncated"], None)
    return {**rows, "mean_tokens": f"{result['mean_tokens']:.1f}", "questions": str(result["questions"])}


def _percent(value: float | None, interval) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.1f}" + (f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else "")
