"""The trees of annotated questions as one HTML page that needs no other file and no network.

Equal first steps of a question's solutions are one node. A node shows the step, its Monte Carlo value with the counts
behind it, whether it is the first error of a solution, and where solutions end. All text that came from a model or a
file is escaped, and the page's content policy forbids it to load anything.
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html import escape

from openrlhf_prm.report.sample_page import chosen, sample_page

TREE_STYLE = """
.tree { margin-top: 6px; }
.branch { border-left: 2px solid var(--rule); margin: 9px 0 9px 12px; padding-left: 12px; }
.key { margin-bottom: 16px; }
.step .counts { flex: none; width: 74px; text-align: right; font-size: 12px; opacity: .8; }
.step .value { flex: none; width: 40px; text-align: right; }
.step .end { font-style: normal; font-weight: 650; font-size: 12px; white-space: nowrap; }
.step .error { font-style: normal; font-weight: 700; font-size: 12px; white-space: nowrap; }
.step .verdict { color: var(--ink); }
.question header b { font-weight: 600; }
"""


@dataclass
class Node:
    """A step that one or more solutions of a question share up to here. `hard_label` is 1 for good; `ends` holds the
    outcome of each solution that ends here."""

    step: str
    value: float | None = None
    right: int = 0
    rollouts: int = 0
    visits: int = 0
    hard_label: int = 1
    first_error: bool = False
    ends: list[bool] = field(default_factory=list)
    children: dict[str, "Node"] = field(default_factory=dict)


@dataclass
class Totals:
    """What a label file holds in all."""

    questions: int = 0
    solutions: int = 0
    wrong: int = 0
    labels: int = 0
    measured: int = 0


def tree_of(records: Iterable[dict]) -> Node:
    """The tree of one question's records. Of equal nodes the one with the most rollouts gives the counts; rollouts that
    count at several nodes are shown at each."""
    root = Node("")
    for record in records:
        root.right, root.rollouts, root.visits = (record["root"][key] for key in ("right", "rollouts", "visits"))
        root.value = root.right / root.rollouts if root.rollouts else None
        node, before = root, 1
        for index, step in enumerate(record["steps"]):
            node = node.children.setdefault(step, Node(step))
            rollouts, label = record["rollouts"][index], record["hard_labels"][index]
            if rollouts > node.rollouts or (node.value is None and not node.rollouts):
                node.value, node.right, node.rollouts = record["mc_values"][index], record["right"][index], rollouts
            node.visits = max(node.visits, record["visits"][index])
            node.hard_label = min(node.hard_label, label)
            node.first_error = node.first_error or (before == 1 and label == 0)
            before = label
        node.ends.append(record["correct"])
    return root


def sample_questions(rows: Iterable[dict], count: int, seed: int) -> tuple[list[list[dict]], Totals]:
    """The records of `count` questions, chosen by a hash of seed and id, in the file's order; and the whole file's
    totals. Memory holds the chosen ones only."""
    totals = Totals()

    def questions() -> Iterator[tuple[str, list[dict]]]:
        for identity, group in itertools.groupby(rows, key=lambda row: row["id"]):
            records = list(group)
            totals.questions += 1
            totals.solutions += len(records)
            totals.wrong += sum(not record["correct"] for record in records)
            totals.labels += sum(len(record["steps"]) for record in records)
            totals.measured += sum(count > 0 for record in records for count in record["rollouts"])
            yield identity, records

    return chosen(questions(), count, seed), totals


def render_trees(name: str, questions: list[list[dict]], totals: Totals) -> str:
    """The page as text. `name`: the file's."""
    shown = f"{len(questions)} of {totals.questions}" if len(questions) < totals.questions else "all"
    cards = {
        "Questions": f"{totals.questions:,}",
        "Solutions": f"{totals.solutions:,}",
        "Of them wrong": f"{totals.wrong:,}",
        "Steps measured": f"{totals.measured / totals.labels:.0%}" if totals.labels else "–",
    }
    key = (
        f'<h2>Questions, {shown}</h2><p class="muted">Solutions that begin alike share their first steps; '
        "where they part, the tree branches. The number is the Monte Carlo value of the state after a step, right / "
        "rollouts beside it; no number: the step was not measured, its label follows from the search.</p>"
        '<div class="key"><span>value 0<span class="ramp"></span>1</span>'
        "<span><b>✗ first error</b></span><span>✓ ✗ outcome of a solution that ends here</span></div>"
    )
    heading = f"{totals.labels:,} step labels from trees of rollouts"
    return sample_page(
        f"{name}: step labels", name, heading, cards, TREE_STYLE, key + "".join(map(_question, questions))
    )


def _question(records: list[dict]) -> str:
    root = tree_of(records)
    counts = f"{root.right}/{root.rollouts} responses right"
    return (
        f'<article class="question"><header><code>{escape(records[0]["question"].strip())}</code>'
        f'<span class="muted">reference {escape(records[0]["label"])}</span>'
        f'<span class="muted">{len(records)} solutions, {counts}</span></header>'
        f'<div class="tree">{"".join(_below(root))}</div></article>'
    )


def _below(node: Node) -> Iterator[str]:
    """The steps after a node: one after the other as long as there is one, a block each where they part."""
    while len(node.children) == 1:
        [node] = node.children.values()
        yield _row(node)
    for child in node.children.values():
        yield f'<div class="branch">{_row(child)}{"".join(_below(child))}</div>'


def _row(node: Node) -> str:
    side = "high" if node.hard_label else "low"
    strength = 4 + (34 * min(1.0, abs(node.value - 0.5) * 2) if node.value is not None else 0)
    marks = '<i class="error">✗ first error</i>' if node.first_error else ""
    if node.ends:
        right, wrong = sum(node.ends), len(node.ends) - sum(node.ends)
        ends = [f"{mark}{f' ×{count}' if count > 1 else ''}" for mark, count in (("✓", right), ("✗", wrong)) if count]
        marks += f'<i class="end verdict {"right" if right else "wrong"}">{" ".join(ends)}</i>'
    if node.visits:
        marks += f'<span class="counts" title="searches that began here">N={node.visits}</span>'
    counts = f"{node.right}/{node.rollouts}" if node.rollouts else ""
    value = "" if node.value is None else f"{node.value:.2f}"
    return (
        f'<div class="step {side}" style="--w:{strength:.0f}%"><span>{escape(node.step)}</span>{marks}'
        f'<span class="counts">{counts}</span><b class="value">{value}</b></div>'
    )
