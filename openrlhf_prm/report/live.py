"""What a report says of a run that is not over: how far it is, and what its last update logged."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from html import escape

from openrlhf_prm.ppo.progress import FIGURES, PHASES, SECONDS_LEFT, SHARE
from openrlhf_prm.report.curves import series_of
from openrlhf_prm.report.run_folder import RunFolder, Series

CARDS = ("accuracy", "reward", "process reward", "step score", "tokens", "KL")


def render_state(run: RunFolder) -> str:
    """Headline, cards and seconds per phase of the last update. Needs one event file at the least."""
    scalars = run.scalars["after"]
    updates = max((series[-1][0] for series in scalars.values()), default=0)
    share = _last(scalars, SHARE)
    of = f" of {max(round(updates / share), updates)}" if share else ""
    told = [f"Last logged {datetime.fromtimestamp(run.logged_at):%Y-%m-%d %H:%M:%S}"]
    if (left := _last(scalars, SECONDS_LEFT)) is not None:
        told.append(f"about <b>{timedelta(seconds=round(left))}</b> left then")
    return (
        f'<p class="kicker">{escape(run.name)} · the run has written no evaluation yet</p>'
        f'<h1>Update {updates}{of}</h1><p class="lead">{"; ".join(told)}.</p>'
        f'<div class="cards">{_cards(scalars)}</div>{_phases(scalars)}'
    )


def seconds_table(seconds: Mapping[str, float]) -> str:
    """What took how long, as numbers and bars."""
    longest = max(seconds.values()) or 1
    rows = "".join(
        f"<tr><td>{escape(name.replace('_', ' '))}</td><td>{value:,.1f} s</td>"
        f'<td class="bar"><div style="width:{100 * value / longest:.1f}%"></div></td></tr>'
        for name, value in seconds.items()
    )
    return f"<table>{rows}</table>"


def _last(scalars: Mapping[str, Series], key: str) -> float | None:
    series = series_of((key,), scalars)
    return series[-1][1] if series else None


def _cards(scalars: dict[str, Series]) -> str:
    """The first four figures of `progress_line` that were logged: the last value, and the first."""
    cards = []
    for name, keys, form in FIGURES:
        series = series_of(keys, scalars)
        if name in CARDS and series and len(cards) < 4:
            (first, start), (_, value) = series[0], series[-1]
            cards.append(
                f'<div class="card"><div class="name">{escape(name.capitalize())}</div>'
                f'<div class="value">{form.format(value)}</div>'
                f'<div class="from">{form.format(start)} at update {first}</div></div>'
            )
    return "".join(cards)


def _phases(scalars: dict[str, Series]) -> str:
    seconds = {phase: value for phase, key in PHASES.items() if (value := _last(scalars, key)) is not None}
    if not seconds:
        return ""
    table = seconds_table(seconds)
    return f'<div class="facts"><div class="card"><h3>Seconds of the last update</h3>{table}</div></div>'
