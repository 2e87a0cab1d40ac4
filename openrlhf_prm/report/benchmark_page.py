"""The result of a benchmark -> one HTML page that needs no other file and no network."""

import re
from collections.abc import Sequence
from html import escape

from openrlhf_prm.evaluation.plots import Plot, PlotTable
from openrlhf_prm.report.drawing import draw
from openrlhf_prm.report.look import STYLE

MORE_STYLE = """
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 16px; margin-top: 24px; }
.plots figure { margin: 0; padding: 16px 18px 12px; }
.plots figcaption { font-size: 13px; line-height: 1.4; color: var(--muted); margin-bottom: 8px; }
.plots figcaption b { display: block; font-size: 15px; color: var(--ink); font-weight: 600; }
.plots svg { display: block; width: 100%; max-width: 520px; height: auto; margin: 0 auto; }
.table td { height: 36px; }
.made td { overflow-wrap: anywhere; }
.interval { white-space: nowrap; color: var(--muted); }
@media (max-width: 860px) { .interval { white-space: normal; } }
"""
FACTS = ("benchmark", "prm", "data", "solutions", "tuning_solutions", "unscored_solutions", "seed")


def render_benchmark(
    title: str,
    result: dict,
    tables: Sequence[PlotTable],
    plots: Sequence[Plot],
    of: str = "process reward model",
) -> str:
    """The page as text. Everything that came from a flag, a file or a model is escaped. of: what was measured."""
    figures = "".join(
        f'<figure class="card"><figcaption><b>{escape(plot.title)}</b>{escape(plot.caption)}</figcaption>'
        f"{draw(plot)}</figure>"
        for plot in plots
    )
    facts = {name.replace("_", " "): result[name] for name in FACTS if name in result} | result["versions"]
    rows = "".join(
        f"<tr><td>{escape(str(name))}</td><td>{escape(str(value))}</td></tr>" for name, value in facts.items()
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}{MORE_STYLE}</style></head><body><main>"
        f'<p class="kicker">{escape(of)}</p><h1>{escape(title)}</h1>{"".join(map(_table, tables))}'
        f'<div class="plots">{figures}</div><h2>Made with</h2><div class="table made card"><table>{rows}</table></div>'
        "</main></body></html>\n"
    )


def _cell(text: str) -> str:
    """A figure's interval stays in one line where there is room."""
    figure = re.fullmatch(r"(\S+) (\([^()]*\))", text)
    if figure is None:
        return f"<td>{escape(text)}</td>"
    value, interval = map(escape, figure.groups())
    return f'<td>{value} <span class="interval">{interval}</span></td>'


def _table(table: PlotTable) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in table.header)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in table.rows)
    return f'<h2>{escape(table.title)}</h2><div class="table card"><table><tr>{head}</tr>{body}</table></div>'
