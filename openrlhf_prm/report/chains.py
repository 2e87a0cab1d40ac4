"""Long chains of thought as one HTML page: a chain's parts by kind, and the tree of its steps beside it.

All text that came from a model or a file is escaped, and the page's content policy forbids it to load anything.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from html import escape

from openrlhf_prm.report.sample_page import chosen, sample_page
from openrlhf_prm.report.trees import TREE_STYLE

KINDS = {
    "plan": "plan",
    "step": "step",
    "failed": "taken back",
    "reflection": "way back",
    "check": "check",
    "answer": "answer",
}
"""Kind of a part -> what the page calls it."""

CHAIN_STYLE = """
.chain { display: grid; grid-template-columns: minmax(0, 3fr) minmax(0, 2fr); gap: 28px; }
.chain h4 { margin: 0 0 8px; }
.part { border-left: 3px solid var(--rule); padding: 3px 10px 3px 12px; margin-bottom: 7px; display: flex; gap: 12px;
  align-items: baseline; font-size: 14.5px; line-height: 1.5; }
.part span { flex: 1; min-width: 0; white-space: pre-wrap; overflow-wrap: anywhere; }
.part i { flex: none; width: 74px; font-style: normal; font-size: 12px; color: var(--muted); }
.part b { flex: none; font-weight: 500; font-size: 12px; color: var(--muted); }
.part.is-step, .part.is-answer { border-color: var(--blue); }
.part.is-answer span { font-weight: 650; }
.part.is-failed { border-color: var(--orange); background: color-mix(in srgb, var(--orange) 5%, transparent); }
.part.is-reflection span { font-style: italic; }
.part.is-reflection { border-left-style: dotted; border-color: var(--orange); }
.part.is-check, .part.is-plan { border-color: var(--grey); }
.part.is-check span, .part.is-plan span { color: var(--muted); }
.chain .branch { margin-left: 4px; padding-left: 8px; }
.reason { color: var(--orange); font-weight: 650; }
@media (max-width: 860px) { .chain { grid-template-columns: minmax(0, 1fr); } }
"""


@dataclass
class ChainTotals:
    """What a file of chains holds in all."""

    chains: int = 0
    with_detours: int = 0
    taken_back: int = 0
    tokens: int = 0
    shortcut_tokens: int = 0


def sample_chains(rows: Iterable[dict], count: int, seed: int) -> tuple[list[dict], ChainTotals]:
    """`count` of the rows, chosen by a hash of seed and id, in the file's order; and the whole file's totals."""
    totals = ChainTotals()

    def entries() -> Iterator[tuple[str, dict]]:
        for row in rows:
            failed = sum(part["kind"] == "failed" for part in row["chain"])
            totals.chains += 1
            totals.with_detours += failed > 0
            totals.taken_back += failed
            totals.tokens += row["tokens"]
            totals.shortcut_tokens += row["shortcut_tokens"]
            yield row["id"], row

    return chosen(entries(), count, seed), totals


def render_chains(name: str, rows: list[dict], totals: ChainTotals) -> str:
    """The page as text. `name`: the file's."""
    shown = f"{len(rows)} of {totals.chains}" if len(rows) < totals.chains else "all"
    cards = {
        "Chains": f"{totals.chains:,}",
        "With a step back": f"{totals.with_detours / totals.chains:.0%}",
        "Steps taken back": f"{totals.taken_back:,}",
        "Tokens, without detours": f"{totals.tokens:,} → {totals.shortcut_tokens:,}",
    }
    body = (
        f'<h2>Chains, {shown}</h2><p class="muted">Left: the text, part by part, with the critic\'s score where there '
        "is one. Right: every step that was written, under the step it follows; blue ones lead to the answer, orange "
        f"ones were taken back.</p>{''.join(map(_chain, rows))}"
    )
    return sample_page(f"{name}: chains", name, "Long chains of thought", cards, TREE_STYLE + CHAIN_STYLE, body)


def _chain(row: Mapping) -> str:
    reasons = row.get("reasons", ())
    why = f'<span class="reason">left out: {escape(", ".join(reasons))}</span>' if reasons else ""
    parts = "".join(map(_part, row["chain"])) or '<p class="muted">no chain</p>'
    return (
        f'<article class="question"><header><code>{escape(row["question"].strip())}</code>'
        f'<span class="muted">reference {escape(row["label"]) or "none"}</span>'
        f'<span class="muted">{row["tokens"]} tokens, {row["shortcut_tokens"]} without detours; '
        f"{row['calls']} calls, {row['completion_tokens']} tokens written</span>{why}</header>"
        f'<div class="chain"><section><h4>Chain</h4>{parts}</section>'
        f'<section><h4>Tree</h4><div class="tree">{"".join(_tree(row))}</div></section></div></article>'
    )


def _part(part: Mapping) -> str:
    score = "" if part["score"] is None else f"<b>{part['score']:.2f}</b>"
    kind = part["kind"] if part["kind"] in KINDS else "plan"
    return f'<div class="part is-{kind}"><i>{KINDS[kind]}</i><span>{escape(part["text"])}</span>{score}</div>'


def _tree(row: Mapping) -> Iterator[str]:
    """Every step that was written: one after the other along the only one that goes on, the others in blocks."""
    kinds = {part["node"]: part["kind"] for part in row["chain"] if part["node"] is not None}
    on_the_way = {node for node, kind in kinds.items() if kind in ("step", "answer")}
    scores = {event["node"]: event["score"] for event in row["events"] if event["score"] is not None}
    scores |= {part["node"]: part["score"] for part in row["chain"] if part["score"] is not None}
    children: dict[int, list[Mapping]] = {}
    for event in row["events"]:
        if event["node"] is not None and event["parent"] is not None:
            children.setdefault(event["parent"], []).append(event)

    def shown(event: Mapping) -> str:
        side = {"failed": "low", "step": "high", "answer": "high"}.get(kinds.get(event["node"], ""), "")
        score = scores.get(event["node"])
        value = "" if score is None else f'<b class="value">{score:.2f}</b>'
        return f'<div class="step {side}"><span>{escape(event["text"])}</span>{value}</div>'

    def below(node: int) -> Iterator[str]:
        while steps := children.get(node, []):
            *others, last = sorted(steps, key=lambda event: (event["node"] in children, event["node"] in on_the_way))
            alone = not others or others[-1]["node"] not in children
            for event in others if alone else steps:
                yield f'<div class="branch">{shown(event)}{"".join(below(event["node"]))}</div>'
            if not alone:
                return
            yield shown(last)
            node = last["node"]

    return below(0)
