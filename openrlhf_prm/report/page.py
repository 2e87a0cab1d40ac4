"""A run folder -> one HTML page that needs no other file and no network.

All text that came from a model or a file is escaped, and the page's content policy forbids it to load anything.
"""

from collections.abc import Mapping
from html import escape

from openrlhf_prm.evaluation.responses import by_question
from openrlhf_prm.measures.intervals import paired_gain
from openrlhf_prm.report.charts import interval_chart
from openrlhf_prm.report.curves import STAGE_LABELS, draw_curves
from openrlhf_prm.report.live import render_state, seconds_table
from openrlhf_prm.report.look import SCRIPT, STYLE
from openrlhf_prm.report.run_folder import RunFolder
from openrlhf_prm.report.solutions import render_solutions, representative

COLUMN_TITLES = {"before": "before", "after": "step rewards", "stock": "stock OpenRLHF"}

# Rows of the table that are folded away at first.
DETAILS = ("Steps the PRM judges right", "PRM choice by ")


def render_report(run: RunFolder, reload_s: int | None = None) -> str:
    """The page as text. reload_s: seconds after which a browser reads the file again, for a run that goes on."""
    title = f"{run.name}: process-reward training report"
    if run.result:
        parts = [_headline(run), _cards(run), _table(run), _curves(run), _solutions(run), _facts(run)]
    else:
        parts = [render_state(run), _curves(run)]
    reload = f'<meta http-equiv="refresh" content="{reload_s}">' if reload_s else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        "script-src 'unsafe-inline'\">"
        f'<meta name="viewport" content="width=device-width, initial-scale=1">{reload}'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>{''.join(parts)}</main>"
        f'<div id="tip"></div><script>{SCRIPT}</script></body></html>\n'
    )


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}%"


def _points(gain: float) -> str:
    return f"{'+' if gain >= 0 else '−'}{abs(100 * gain):.1f} points"


def _main_measure(run: RunFolder) -> tuple[str, str]:
    """The key and the name of the accuracy the headline is about: the mean of the samples, which training raises and
    which rests on n times as many answers as the greedy one. That one where the evaluations have different n.
    """
    n = run.result["after"]["n"]
    if run.result["before"]["n"] == n:
        return f"mean_at_{n}", "Mean accuracy"
    return "greedy", "Greedy accuracy"


def _gain(run: RunFolder, key: str) -> dict | None:
    """The paired gain over the questions that were answered before and after; None without their samples."""
    if "before" not in run.samples or "after" not in run.samples:
        return None
    stages = [by_question(run.samples[stage]) for stage in ("before", "after")]
    common = sorted(stages[0].keys() & stages[1].keys())

    def share(responses) -> float:
        if key == "greedy":
            return float(representative(responses).correct)
        sampled = [response.correct for response in responses if response.kind == "sample"]
        return sum(sampled) / len(sampled)

    values = [[share(groups[index]) for index in common] for groups in stages]
    gain = paired_gain(*values, seed=run.result.get("seed") or 0)
    return gain and {**gain, "questions": len(common)}


def _headline(run: RunFolder) -> str:
    key, name = _main_measure(run)
    before, after = (run.result[stage][key] for stage in ("before", "after"))
    verb = "rose" if after > before else "fell" if after < before else "stayed"
    change = f"{verb} from {_shown(before)} to {_shown(after)}" if after != before else f"stayed at {_shown(after)}"
    questions = run.result["after"].get("questions")
    samples = "" if key == "greedy" else f", {run.result['after']['n']} samples each"
    lead = f"<b>{_points(after - before)}</b> on {questions} questions{samples}"
    gain = _gain(run, key)
    if gain is not None:
        low, high = (100 * bound for bound in gain["interval"])
        lead += f"; 95% interval {low:+.1f} to {high:+.1f}, paired by question".replace("-", "−")
    lead += "."
    if run.result.get("stock", {}).get(key) is not None:
        lead += f" Stock OpenRLHF, with the outcome reward alone, reached <b>{_shown(run.result['stock'][key])}</b>."
    return (
        f'<p class="kicker">{escape(run.name)} · training with process rewards</p>'
        f'<h1>{escape(name)} {change}</h1><p class="lead">{lead}</p>'
    )


def _cards(run: RunFolder) -> str:
    before, after = run.result["before"], run.result["after"]
    n = after["n"]
    cards = []
    names = {
        f"mean_at_{n}": f"Mean accuracy of {n} samples",
        "greedy": "Greedy accuracy",
        "step_accuracy": "Steps that are right",
        "mean_tokens": "Tokens per response",
        "weighted_vote": f"PRM-weighted vote of {n}",
        "majority_vote": f"Majority vote of {n}",
    }
    for key, name in names.items():
        old, new = before.get(key), after.get(key)
        if old is None or new is None or len(cards) == 4:
            continue
        if key == "mean_tokens":
            value, first, change = f"{new:.1f}", f"{old:.1f}", f"{new - old:+.1f}".replace("-", "−")
        else:
            value, first, change = _shown(new), _shown(old), _points(new - old)
        cards.append(
            f'<div class="card"><div class="name">{escape(name)}</div><div class="value">{value}</div>'
            f'<div class="from">from {first} · <b>{change}</b></div></div>'
        )
    return f'<div class="cards">{"".join(cards)}</div>'


def _measures(evaluation: Mapping) -> dict[str, tuple[float | None, list | None]]:
    """Row title -> (share, interval) of the accuracies of one evaluation, in the order of the table."""
    n, intervals = evaluation["n"], evaluation.get("intervals", {})
    titles = {
        f"mean_at_{n}": f"Mean of {n} samples",
        "greedy": "Greedy",
        f"pass_at_{n}": f"Any of {n} right (pass@{n})",
        "majority_vote": f"Majority vote of {n}",
        "weighted_vote": f"PRM-weighted vote of {n}",
    }
    rows = {title: (evaluation[key], intervals.get(key)) for key, title in titles.items() if key in evaluation}
    best = f"best_of_{n}"
    for kind, value in evaluation.get(best, {}).items():
        title = f"Best of {n} by the PRM" if kind == "min" else f"PRM choice by {kind} score"
        rows[title] = (value, intervals.get(best, {}).get(kind))
    for key, title in (("step_accuracy", "Steps that are right"), ("prm_step_accuracy", "Steps the PRM judges right")):
        if key in evaluation:
            rows[title] = (evaluation[key], intervals.get(key))
    return rows


def _table(run: RunFolder) -> str:
    columns = {stage: _measures(run.result[stage]) for stage in run.stages}
    shares = []
    for title in dict.fromkeys(title for column in columns.values() for title in column):
        cells, plot = "", []
        for stage, column in columns.items():
            value, interval = column.get(title, (None, None))
            cells += f"<td>{_shown(value)}{_interval(interval)}</td>"
            if value is not None:
                plot.append((value, interval, f"stage-{stage}"))
        shares.append((title, f'<tr><td>{escape(title)}</td>{cells}<td class="plot">{interval_chart(plot)}</td></tr>'))
    first = "".join(row for title, row in shares if not title.startswith(DETAILS))
    more = "".join(row for title, row in shares if title.startswith(DETAILS)) + _plain_rows(run)
    head = _table_head(run)
    details = f"<details><summary>More measures</summary><table>{head}<tbody>{more}</tbody></table></details>"
    return (
        f'<h2>Before and after</h2><p class="muted">Greedy is temperature 0; the other rows rest on '
        f"{run.result['after']['n']} samples per question. "
        "Small figures and whiskers are 95% intervals over questions.</p>"
        f'<div class="card table"><table>{head}<tbody>{first}</tbody></table>{details if more else ""}</div>'
    )


def _table_head(run: RunFolder) -> str:
    titles = "".join(f'<th><i class="spot stage-{s}"></i>{escape(COLUMN_TITLES[s])}</th>' for s in run.stages)
    axis = '<span class="axis"><span>0</span><span>50</span><span>100%</span></span>'
    return f'<thead><tr><th></th>{titles}<th class="plot">{axis}</th></tr></thead>'


def _plain_rows(run: RunFolder) -> str:
    """Rows of what is not an accuracy: the PRM's AUC, lengths, kinds of steps."""
    rows = []
    for key, title, form in (
        ("prm_auc", "PRM's AUC on steps", "{:.3f}"),
        ("mean_tokens", "Tokens per response", "{:.1f}"),
        ("mean_steps", "Steps per response", "{:.2f}"),
        ("truncated", "Responses cut at the limit", "{:.1%}"),
    ):
        values = [run.result[stage].get(key) for stage in run.stages]
        if any(value is not None for value in values):
            rows.append((title, ["–" if value is None else form.format(value) for value in values]))
    for kind in dict.fromkeys(kind for stage in run.stages for kind in run.result[stage].get("habits", {})):
        values = [run.result[stage].get("habits", {}).get(kind, 0.0) for stage in run.stages]
        rows.append((f"Steps of kind “{kind}”", [_shown(value) for value in values]))
    return "".join(
        f"<tr><td>{escape(title)}</td>{''.join(f'<td>{cell}<small></small></td>' for cell in cells)}<td></td></tr>"
        for title, cells in rows
    )


def _interval(interval) -> str:
    return "<small></small>" if interval is None else f"<small>{100 * interval[0]:.1f}–{100 * interval[1]:.1f}</small>"


def _curves(run: RunFolder) -> str:
    drawn, absent = draw_curves(run)
    if not drawn:
        return '<h2>Training</h2><p class="muted">No curves: the run folder holds no TensorBoard event files.</p>'
    key = ""
    if all(run.scalars.get(stage) for stage in STAGE_LABELS):
        key = "".join(f'<span><i class="stage-{stage}"></i>{label}</span>' for stage, label in STAGE_LABELS.items())
        key = f'<div class="key">{key}</div>'
    figures = "".join(
        f'<figure class="card"><figcaption><b>{escape(curve.title)}</b>{escape(curve.meaning)}</figcaption>'
        f"{chart}</figure>"
        for curve, chart in drawn
    )
    note = f'<p class="muted" style="margin-top:14px">Not logged: {escape(", ".join(absent))}.</p>' if absent else ""
    return f'<h2>Training</h2>{key}<div class="curves">{figures}</div>{note}'


def _solutions(run: RunFolder) -> str:
    solutions = render_solutions(run.samples)
    if not solutions:
        return ""
    checked = any(r.step_checks is not None for responses in run.samples.values() for r in responses[:1])
    scored = any(r.step_scores is not None for responses in run.samples.values() for r in responses[:1])
    key = '<span>PRM step score 0<span class="ramp"></span>1</span>' if scored else "<span>No PRM scored these.</span>"
    if checked:
        key += "<span>✓ ✗ exact check of the step</span>"
    return (
        '<h2>Solutions, step by step</h2><p class="muted">Greedy responses. Within each group these are the first '
        f'questions of the file, not a selection by looks.</p><div class="key">{key}</div>{solutions}'
    )


def _facts(run: RunFolder) -> str:
    result = run.result
    parts = []
    logged = result.get("seconds")
    seconds = {stage: value for stage, value in logged.items() if stage != "total"} if isinstance(logged, dict) else {}
    if seconds:
        total = f'<span class="muted">{sum(seconds.values()):,.0f} s in all</span>'
        parts.append(f'<div class="card"><h3>Seconds per stage {total}</h3>{seconds_table(seconds)}</div>')
    versions = result.get("versions") or result["after"].get("versions") or {}
    facts = {"seed": result.get("seed", result["after"].get("seed")), **versions}
    rows = "".join(
        f"<tr><td>{escape(str(name))}</td><td>{escape(str(value))}</td></tr>"
        for name, value in facts.items()
        if value is not None
    )
    parts.append(f'<div class="card"><h3>Versions and seed</h3><table>{rows}</table></div>')
    if result.get("command"):
        command = f"<pre>{escape(str(result['command']))}</pre>"
        parts.append(f'<div class="card wide"><h3>Command</h3>{command}</div>')
    missing = f'<p class="muted">Not in the run folder: {escape(", ".join(run.missing))}.</p>' if run.missing else ""
    return f'<h2>How it was run</h2>{missing}<div class="facts">{"".join(parts)}</div>'
