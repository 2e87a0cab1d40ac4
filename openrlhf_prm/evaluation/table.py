"""Results of evaluations as tables on the terminal."""

from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from openrlhf_prm.evaluation.plots import PlotTable


def results_table(results: Iterable[dict]) -> PlotTable:
    """The accuracies of every policy with their 95% intervals, one column a policy."""
    columns = [(Path(result["policy"]).name, _rows(result)) for result in results]
    names = dict.fromkeys(name for _, rows in columns for name in rows)
    header = ["measure", *(policy for policy, _ in columns)]
    return PlotTable(
        "% [95% interval]", header, [[name, *(rows.get(name, "-") for _, rows in columns)] for name in names]
    )


def print_results(results: Iterable[dict]) -> None:
    """Prints that table."""
    print_tables([results_table(results)])


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
    changed = result.get("self_correction", {})
    for name, interval in changed.get("intervals", {}).items():
        rows[f"self_correction {name}"] = _percent(changed[name], interval)
    for mode, curve in result.get("budgets", {}).items():
        for row in curve["curve"]:
            rows[f"{row['budget']} tokens, {mode}"] = _percent(row["accuracy"], row["interval"])
        if len(curve["curve"]) > 1:
            rows[f"gain of the last budget, {mode}"] = _percent(curve["gain"]["gain"], curve["gain"]["interval"])
    rows["truncated"] = _percent(result["truncated"], None)
    return {**rows, "mean_tokens": f"{result['mean_tokens']:.1f}", "questions": str(result["questions"])}


def _percent(value: float | None, interval) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.1f}" + (f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else "")
