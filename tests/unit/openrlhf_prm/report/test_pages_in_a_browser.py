"""Every kind of page as a browser shows it: nothing scrolls sideways, nothing overlaps, everything can be read, and
what a model wrote stays text.
"""

import itertools
import math

import browser
import pytest

from openrlhf_prm.evaluation.plots import Plot, PlotCurve, PlotTable, reliability_plot
from openrlhf_prm.evaluation.responses import GradedResponse
from openrlhf_prm.evaluation.summary import summarize
from openrlhf_prm.report.benchmark_page import render_benchmark
from openrlhf_prm.report.chains import render_chains, sample_chains
from openrlhf_prm.report.page import render_report
from openrlhf_prm.report.run_folder import RunFolder
from openrlhf_prm.report.trees import render_trees, sample_questions

pytestmark = pytest.mark.skipif(browser.PROGRAM is None, reason="no chromium on this machine")

# Whatever of it became markup would run, be there as an element, or be missing from the text.
MARKUP = (
    "</td></tr></table></code></div><script>window.taken = 1</script><img src=x onerror='window.taken = 1'>"
    "\"><svg onload=window.taken=1></svg></style></script>' onload='window.taken = 1' &lt;b&gt; &amp;lt; <b>"
)
LONG = "w" * 400 + " " + "f(x) = " + "1+" * 200 + "1"
WIDTHS, SCHEMES = (1200, 700), ("light", "dark")


def response(index: int, sample: int | None, correct: bool) -> GradedResponse:
    steps = [f"{MARKUP} step {index}", LONG, "12+35=47", "Answer: 47"][: 2 + index % 3]
    return GradedResponse(
        index=index,
        kind="greedy" if sample is None else "sample",
        sample=sample,
        question=f"{MARKUP} question {index} {LONG}",
        label=MARKUP,
        response=MARKUP,
        answer="47" if correct else MARKUP,
        correct=correct,
        steps=steps,
        step_scores=[(position + index) % 5 / 4 for position in range(len(steps))],
        step_checks=[position % 2 == 0 for position in range(len(steps))],
        tokens=1234 + index,
        truncated=index == 1,
    )


def run_report() -> str:
    """All stages, samples, and curves from one point to many."""
    stages = ("before", "after", "stock")
    samples = {
        stage: [
            response(index, sample, (index + place + (sample or 0)) % 3 != 0)
            for index in range(12)
            for sample in (None, *range(8))
        ]
        for place, stage in enumerate(stages)
    }
    result = {stage: summarize(samples[stage], step_kind=lambda step: step[:90]) for stage in stages}
    curves = {
        "score": [(at, 0.4 + 0.5 * at / 60 + 0.05 * math.sin(at)) for at in range(1, 61)],
        "process/reward": [(at, -1234.5 + 100 * math.cos(at)) for at in range(1, 13)],
        "process/step_score": [(1, 0.5)],
        "vllm_kl": [(at, 1e-5 * at) for at in range(1, 100)],
        "rollout/response_length_mean": [(at, 123456.0) for at in range(1, 4)],
    }
    return render_report(
        RunFolder(
            name=f"run {MARKUP} {LONG}",
            result={
                **result,
                "seconds": {"train_ppo": 1234.5, f"evaluate {MARKUP}": 0.1},
                "seed": 0,
                "versions": {"vllm": "0.29.0", MARKUP: MARKUP},
                "command": f"python -m openrlhf_prm.cli.train_ppo_ray {MARKUP} {LONG}",
            },
            samples=samples,
            scalars={"after": curves, "stock": {tag: series[:40] for tag, series in curves.items()}},
            missing=[f"tensorboard/{MARKUP}"],
        )
    )


def live_report() -> str:
    """A run that goes on."""
    logged = {
        "process/accuracy": [0.25, 0.5, 0.75],
        "rollout/reward_mean": [-1234.5678, 1e-9, 1e9],
        "process/step_score": [0.5],
        "rollout/response_length_mean": [123456.0],
        "progress/share": [0.0001, 0.0002, 0.0003],
        "progress/seconds_left": [1e7],
        **{f"timing/{phase}": [1234.5] for phase in ("generation", "make_experience", "ppo_train", "broadcast")},
    }
    scalars = {f"train/{key}": list(enumerate(values, start=1)) for key, values in logged.items()}
    return render_report(RunFolder(f"run {MARKUP} {LONG}", {}, 1.8e9, scalars={"after": scalars}), reload_s=60)


def benchmark_page() -> str:
    """A wide table, plots of many curves, marks at the edges."""
    bins = [
        {"mean_score": at / 10 + 0.05, "right": at / 10, "interval": (max(0, at / 10 - 0.1), min(1, at / 10 + 0.1))}
        for at in range(10)
    ]
    sizes = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]
    curves = [
        PlotCurve(f"{name} {MARKUP[:20]}", [(size, 0.3 + 0.08 * place + 0.05 * math.log2(size)) for size in sizes])
        for place, name in enumerate(("any right (pass@N)", "majority vote", "best by min", "best by prod", "by last"))
    ]
    plots = [
        Plot("Best-of-N", f"Which response. {MARKUP}", "responses N", "accuracy", curves, powers=True),
        Plot(
            "Threshold",
            "Only the marked threshold was chosen without them.",
            "a step below this score is called wrong",
            "accuracy, F1",
            [PlotCurve("F1", [(at / 50, 0.5 * math.sin(at / 16)) for at in range(51)])],
            mark=(0.01, "used"),
            dots=False,
        ),
        reliability_plot(bins),
    ]
    header = ["choice", *(f"N={size:g}" for size in sizes)]
    rows = [[f"best by {MARKUP}", *["100.0 (100.0–100.0)"] * len(sizes)], ["vote", *["3.1 (2.0–4.5)"] * len(sizes)]]
    result = {"benchmark": "best_of_n", "prm": MARKUP, "data": f"/data/{LONG}", "seed": 0, "versions": {"vllm": MARKUP}}
    return render_benchmark(f"Best-of-N: {MARKUP} {LONG}", result, [PlotTable(f"% {MARKUP}", header, rows)], plots)


def label_viewer() -> str:
    """Branching trees, first errors, deep nesting."""
    shared = [f"first {MARKUP}", LONG]
    rows = []
    for question in range(3):
        for branch in range(6):
            steps = [*shared, *(f"step {level} of {branch >> level} {MARKUP}" for level in range(4)), "Answer: 7"]
            rows.append(
                {
                    "id": str(question),
                    "question": f"{MARKUP} {LONG}",
                    "label": MARKUP,
                    "root": {"right": 5, "rollouts": 16, "visits": 3},
                    "steps": steps,
                    "correct": branch % 2 == 0,
                    "mc_values": [None if place == 2 else place / 6 for place in range(len(steps))],
                    "hard_labels": [int(place < 4 or branch % 2 == 0) for place in range(len(steps))],
                    "right": [place for place in range(len(steps))],
                    "rollouts": [0 if place == 2 else 16 for place in range(len(steps))],
                    "visits": [place % 2 * 1000 for place in range(len(steps))],
                }
            )
    return render_trees(f"labels {MARKUP} {LONG}.jsonl", *sample_questions(iter(rows), 3, 0))


def chain_viewer() -> str:
    """Every kind of part, branches, scores and none, a chain that came to nothing."""
    rows = []
    for question in range(4):
        chain, events = [], []
        for node, kind in enumerate(("plan", "step", "failed", "reflection", "step", "check", "answer", "failed")):
            step = kind in ("step", "failed", "answer")
            text, parent = f"{kind} {node} {LONG if node % 3 == 1 else MARKUP}", max(0, node - 1 - node % 2)
            score = None if node % 2 else node / 8
            places = {"node": node if step else None, "parent": parent if step else None, "score": score}
            chain.append({"kind": kind, "text": text, "target": None, **places})
            if step:
                events.append({"role": "elaborator", "text": text, "verdict": None, **places, "score": None})
        counts = {"tokens": 123456, "shortcut_tokens": 12, "calls": 345, "completion_tokens": 1234567}
        row = {"id": str(question), "question": f"{MARKUP} {LONG}", "label": MARKUP, "events": events, **counts}
        rows.append({**row, "chain": chain if question else [], "reasons": [MARKUP] if question == 1 else []})
    return render_chains(f"chains {MARKUP} {LONG}.jsonl", *sample_chains(iter(rows), 4, 0))


PAGES = {
    "run_report": run_report,
    "live_report": live_report,
    "benchmark_page": benchmark_page,
    "label_viewer": label_viewer,
    "chain_viewer": chain_viewer,
}
# Where MARKUP must be read as it was written, at the least.
TEXTS = {"run_report": 40, "live_report": 1, "benchmark_page": 6, "label_viewer": 40, "chain_viewer": 29}
SCRIPTS = {"run_report": 1, "live_report": 1, "benchmark_page": 0, "label_viewer": 0, "chain_viewer": 0}


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with browser.Browser(tmp_path_factory.mktemp("profile")) as window:
        yield window


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    for name, render in PAGES.items():
        (folder / f"{name}.html").write_text(render(), encoding="utf-8")
    return folder


@pytest.fixture(params=itertools.product(PAGES, WIDTHS, SCHEMES), ids=lambda values: "-".join(map(str, values)))
def page(request, chromium, files):
    """A page that is open; its name, its width and its scheme."""
    name, width, scheme = request.param
    chromium.open(files / f"{name}.html", width, scheme)
    return request.param


def test_the_console_stays_empty(page, chromium):
    for x, y in chromium.run(CHARTS):  # the script answers the pointer
        chromium.move_pointer(x, y)
    assert chromium.faults() == []
    if page[0] == "run_report":
        assert "update " in chromium.run("document.getElementById('tip').innerText")


def test_nothing_scrolls_sideways(page, chromium):
    """Neither the page nor a box in it; what is folded away counts, too."""
    chromium.run("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert chromium.run("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    assert chromium.run(WIDER_THAN_THEIR_BOX) == []


def test_markup_stays_text(page, chromium):
    name = page[0]
    assert chromium.run("typeof window.taken") == "undefined"
    assert chromium.run("document.scripts.length") == SCRIPTS[name]
    foreign = "img, b[onload], svg[onload], [onerror], table table, link, iframe"
    assert chromium.run(f"document.querySelectorAll({foreign!r}).length") == 0
    assert chromium.run("document.body.textContent").count(MARKUP) >= TEXTS[name]
    assert MARKUP in chromium.run("document.title")


def test_everything_can_be_read(page, chromium):
    """Light text on dark or dark on light, as asked for, and every contrast at least 4.5 to 1 (WCAG 2, AA)."""
    light = chromium.run(f"({LUMINANCE})(getComputedStyle(document.body).backgroundColor)")
    assert light > 0.8 if page[2] == "light" else light < 0.05
    chromium.run("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert chromium.run(HARD_TO_READ) == []


def test_labels_stay_apart_and_inside_their_charts(page, chromium):
    assert chromium.run(MISPLACED_LABELS) == []


# -- what is asked of a page -----------------------------------------------------------------------------------------

CHARTS = """
[...document.querySelectorAll('svg.chart')].map(chart => {
  chart.scrollIntoView();
  const box = chart.getBoundingClientRect();
  return [box.x + box.width / 2, box.y + box.height / 2];
}).slice(-1)
"""

WIDER_THAN_THEIR_BOX = """
[...document.querySelectorAll('main *')]
  .filter(one => !one.closest('svg') && getComputedStyle(one).display !== 'inline'
    && (one.scrollWidth > one.clientWidth + 1 || one.getBoundingClientRect().right > innerWidth))
  .map(one => one.tagName + '.' + one.className + ' ' + one.scrollWidth + ' > ' + one.clientWidth)
"""

# A colour as the browser computed it, in any notation -> relative luminance (WCAG 2).
LUMINANCE = """
colour => {
  const context = document.createElement('canvas').getContext('2d');
  context.fillStyle = colour;
  context.fillRect(0, 0, 1, 1);
  const [r, g, b] = [...context.getImageData(0, 0, 1, 1).data].slice(0, 3).map(value => value / 255)
    .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
"""

HARD_TO_READ = """
(() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const luminance = (colours, opacity = 1) => {  // of colours laid over one another, the last one with this opacity
    canvas.clearRect(0, 0, 1, 1);
    colours.forEach((colour, place) => {
      canvas.globalAlpha = place === colours.length - 1 ? opacity : 1;
      canvas.fillStyle = colour;
      canvas.fillRect(0, 0, 1, 1);
    });
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map(value => value / 255)
      .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const faint = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const holder = walker.currentNode.parentElement;
    const text = walker.currentNode.textContent.trim();
    if (!text || holder.closest('script, style') || !holder.getClientRects().length) continue;
    const layers = [];
    let opacity = 1;
    for (let one = holder; one; one = one.parentElement) {
      layers.unshift(getComputedStyle(one).backgroundColor);
      opacity *= getComputedStyle(one).opacity;
    }
    const style = getComputedStyle(holder);
    const below = luminance(layers);
    const ink = luminance([...layers, holder.closest('svg') ? style.fill : style.color], opacity);
    const contrast = (Math.max(below, ink) + 0.05) / (Math.min(below, ink) + 0.05);
    if (contrast < 4.5) faint.push([text.slice(0, 40), holder.className.baseVal ?? holder.className, contrast]);
  }
  return faint;
})()
"""

MISPLACED_LABELS = """
[...document.querySelectorAll('svg')].flatMap(svg => {
  const labels = [...svg.querySelectorAll('text')].filter(one => one.textContent.trim());
  const boxes = labels.map(one => one.getBoundingClientRect());
  const meet = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 2 && b.top < a.bottom - 2;
  const all = svg.getBoundingClientRect();
  const outside = labels.filter((_, i) => boxes[i].left < all.left - 1 || boxes[i].right > all.right + 1
    || boxes[i].top < all.top - 1 || boxes[i].bottom > all.bottom + 1).map(one => one.textContent + ' is outside');
  return outside.concat(labels.flatMap((one, i) => labels.slice(i + 1)
    .filter((_, j) => meet(boxes[i], boxes[i + 1 + j])).map(other => one.textContent + ' | ' + other.textContent)));
})
"""
