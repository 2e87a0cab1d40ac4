"""Sampled solutions with every step coloured by its score, side by side for the policies of a run."""

from collections.abc import Mapping, Sequence
from html import escape

from openrlhf_prm.evaluation.responses import GradedResponse, by_question

STAGE_TITLES = {"before": "before", "after": "after", "stock": "stock OpenRLHF"}

# What happened to a question, and how many of each kind are shown. Steps that went wrong matter as much as the gains.
CHANGES = {
    (False, True): ("wrong before, right after", 4),
    (True, False): ("right before, wrong after", 2),
    (False, False): ("wrong both times", 2),
    (True, True): ("right both times", 2),
}


def representative(responses: Sequence[GradedResponse]) -> GradedResponse:
    """The response that stands for a question: the greedy one, else the first sample."""
    return next((response for response in responses if response.kind == "greedy"), responses[0])


def choose(samples: Mapping[str, Sequence[GradedResponse]]) -> tuple[list[tuple[str, list[int]]], dict[str, int]]:
    """The questions to show by kind of change, the first ones of the file within each kind, and how often each kind
    occurs.

    Only questions that were answered before and after count.
    """
    before, after = by_question(samples["before"]), by_question(samples["after"])
    kinds: dict[tuple[bool, bool], list[int]] = {change: [] for change in CHANGES}
    for index in before.keys() & after.keys():
        kinds[representative(before[index]).correct, representative(after[index]).correct].append(index)
    chosen = [(title, sorted(kinds[change])[:limit]) for change, (title, limit) in CHANGES.items()]
    return chosen, {title: len(kinds[change]) for change, (title, _) in CHANGES.items()}


def render_solutions(samples: Mapping[str, Sequence[GradedResponse]]) -> str:
    """The chosen questions as HTML, each with one column per policy. Without both before and after: ""."""
    if "before" not in samples or "after" not in samples:
        return ""
    grouped = {stage: by_question(responses) for stage, responses in samples.items()}
    chosen, counts = choose(samples)
    parts = []
    for title, indices in chosen:
        if not counts[title]:
            continue
        shown = f"{len(indices)} of {counts[title]}" if len(indices) < counts[title] else f"all {counts[title]}"
        parts.append(f'<h3 class="change">{escape(title)} <span class="muted">{shown}</span></h3>')
        for index in indices:
            stages = [stage for stage in STAGE_TITLES if index in grouped.get(stage, {})]
            columns = "".join(
                render_response(representative(grouped[stage][index]), STAGE_TITLES[stage]) for stage in stages
            )
            first = grouped["before"][index][0]
            parts.append(
                f'<article class="question"><header><code>{escape(first.question.strip())}</code>'
                f'<span class="muted">reference {escape(first.label)}</span></header>'
                f'<div class="columns">{columns}</div></article>'
            )
    return "".join(parts)


def render_response(response: GradedResponse, title: str) -> str:
    """One response: its verdict, and its steps as rows."""
    verdict = ("right", "✓ right") if response.correct else ("wrong", "✗ wrong")
    notes = f"{response.tokens} tokens" + (", cut at the limit" if response.truncated else "")
    scores = response.step_scores or [None] * len(response.steps)
    checks = response.step_checks or [None] * len(response.steps)
    rows = "".join(map(render_step, response.steps, scores, checks))
    return (
        f'<section class="response"><h4>{escape(title)} <span class="verdict {verdict[0]}">{verdict[1]}</span>'
        f'<span class="muted">{notes}</span></h4>'
        f"{rows or '<p class=muted>no step</p>'}</section>"
    )


def render_step(step: str, score: float | None, check: bool | None) -> str:
    """One step as a row: text, exact verdict where known, score where known.

    The colour runs from orange (0) over none (0.5) to blue (1) and follows the distance from 0.5; scores outside [0, 1]
    take the colour of the nearer end.
    """
    mark = {
        True: '<i class="mark" title="checked: right">✓</i>',
        False: '<i class="mark bad" title="checked: wrong">✗</i>',
    }
    shown = mark.get(check, "")
    if score is None:
        return f'<div class="step"><span>{escape(step)}</span>{shown}</div>'
    strength = min(1.0, abs(score - 0.5) * 2)
    side = "high" if score >= 0.5 else "low"
    return (
        f'<div class="step {side}" style="--w:{4 + 34 * strength:.0f}%" title="step score {score:.4f}">'
        f"<span>{escape(step)}</span>{shown}<b>{score:.2f}</b></div>"
    )
