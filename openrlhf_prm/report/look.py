"""The report's style sheet and its script, kept inside the page so that it needs no other file."""

STYLE = """
:root { color-scheme: light dark; --page: #f7f6f3; --card: #ffffff; --ink: #1d2024; --muted: #6a6f76; --rule: #e3e1dc;
  --blue: #0b69b7; --orange: #b3530a; --grey: #8d9299; }
@media (prefers-color-scheme: dark) {
  :root { --page: #131518; --card: #1b1e22; --ink: #e9e8e4; --muted: #9a9fa6; --rule: #2d3137; --blue: #58aef0;
    --orange: #f0994a; --grey: #7d838b; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI",
  Roboto, "Helvetica Neue", Arial, sans-serif; font-variant-numeric: tabular-nums;
  -webkit-font-smoothing: antialiased; overflow-wrap: anywhere; }
main { max-width: 1120px; margin: 0 auto; padding: 56px 28px 80px; }
h1 { font-size: 36px; line-height: 1.2; letter-spacing: -.022em; font-weight: 650; margin: 6px 0 14px; }
h2 { font-size: 21px; letter-spacing: -.01em; font-weight: 650; margin: 64px 0 4px; }
h3 { font-size: 15px; font-weight: 650; margin: 0; }
h4 { font-size: 13px; font-weight: 600; margin: 0 0 8px; display: flex; gap: 10px; align-items: baseline; }
p { margin: 0 0 12px; max-width: 60em; }
.kicker { color: var(--muted); font-size: 14px; margin: 0; }
.lead { font-size: 18px; color: var(--muted); }
.lead b { color: var(--ink); font-weight: 600; }
.muted { color: var(--muted); font-weight: 400; }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 12px; }
code, .step, pre { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.cards { display: grid; grid-template-columns: repeat(4, 1fr); gap: 16px; margin: 34px 0 0; }
.cards .card { padding: 18px 20px 16px; }
.cards .name { font-size: 14px; color: var(--muted); }
.cards .value { font-size: 36px; line-height: 1.2; font-weight: 650; letter-spacing: -.025em; margin: 4px 0 2px; }
.cards .from { font-size: 14px; color: var(--muted); }
.cards .from b { color: var(--blue); font-weight: 600; }
table { border-collapse: collapse; width: 100%; font-size: 15px; }
.table { padding: 8px 22px 10px; margin-top: 20px; }
th { text-align: right; font-weight: 600; font-size: 13.5px; padding: 12px 0 10px 22px; overflow-wrap: normal; }
td { text-align: right; padding: 6px 0 6px 18px; height: 44px; border-top: 1px solid var(--rule);
  vertical-align: middle; overflow-wrap: normal; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
td:first-child { overflow-wrap: anywhere; min-width: 110px; }
td small { display: inline-block; width: 82px; color: var(--muted); font-size: 12.5px; white-space: nowrap; }
.spot { display: inline-block; width: 9px; height: 9px; border-radius: 50%; margin-right: 7px; }
.spot.stage-before { background: var(--grey); }
.spot.stage-after { background: var(--blue); }
.spot.stage-stock { background: var(--orange); }
details summary { cursor: pointer; color: var(--muted); font-size: 14px; padding: 12px 0 10px; border-top: 1px solid
  var(--rule); }
td.plot, th.plot { width: 240px; padding-left: 30px; }
.axis { display: flex; justify-content: space-between; width: 208px; font-weight: 400; color: var(--muted); font-size:
  12px; margin-left: auto; }
.intervals { display: block; margin-left: auto; }
.key { display: flex; flex-wrap: wrap; gap: 22px; align-items: center; font-size: 14px; color: var(--muted); margin:
  14px 0 0; }
.key i { display: inline-block; width: 22px; height: 0; border-top: 2.5px solid; vertical-align: middle; margin-right:
  7px; }
.curves { display: grid; grid-template-columns: repeat(auto-fill, minmax(280px, 1fr)); gap: 16px; margin-top: 18px; }
.curves figure { margin: 0; padding: 16px 16px 8px; }
.curves figcaption { font-size: 13px; line-height: 1.4; color: var(--muted); min-height: 56px; margin-bottom: 6px; }
.curves figcaption b { display: block; font-size: 15px; color: var(--ink); font-weight: 600; }
svg.chart { display: block; width: 100%; height: auto; overflow: visible; }
.grid { stroke: var(--rule); stroke-width: 1; }
.tick { fill: var(--muted); font-size: 10.5px; }
.cursor { stroke: var(--muted); stroke-width: 1; stroke-dasharray: 2 3; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.line.faint { stroke-width: 1; opacity: .38; }
.whisker { stroke-width: 2; opacity: .5; }
.line.stage-after, .whisker.stage-after { stroke: var(--blue); }
.line.stage-stock, .whisker.stage-stock { stroke: var(--orange); }
.line.stage-before, .whisker.stage-before { stroke: var(--grey); }
.dot.stage-after { fill: var(--blue); }
.dot.stage-stock { fill: var(--orange); }
.dot.stage-before { fill: var(--grey); }
.key .stage-after { border-color: var(--blue); }
.key .stage-stock { border-color: var(--orange); }
.key .stage-before { border-color: var(--grey); }
#tip { position: fixed; pointer-events: none; display: none; background: var(--ink); color: var(--page); font-size:
  12.5px; line-height: 1.5; padding: 6px 10px; border-radius: 7px; white-space: nowrap; z-index: 9; }
.ramp { display: inline-block; width: 150px; height: 12px; border-radius: 4px; margin: 0 8px; vertical-align: -1px;
  background: linear-gradient(90deg, color-mix(in srgb, var(--orange) 62%, transparent), transparent 50%, color-mix(in
  srgb, var(--blue) 62%, transparent)); border: 1px solid var(--rule); }
.change { margin: 30px 0 12px; }
.change .muted { margin-left: 6px; font-size: 13.5px; }
.question { background: var(--card); border: 1px solid var(--rule); border-radius: 12px; padding: 16px 20px 18px;
  margin-bottom: 14px; }
.question header { display: flex; gap: 18px; align-items: baseline; flex-wrap: wrap; margin-bottom: 14px; font-size:
  14px; }
.question header code { font-size: 15px; white-space: pre-wrap; overflow-wrap: anywhere; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(270px, 1fr)); gap: 18px; }
.response { min-width: 0; }
.verdict { font-weight: 650; }
.verdict.right { color: var(--blue); }
.verdict.wrong { color: var(--orange); }
.step { --hue: var(--rule); display: flex; gap: 10px; align-items: baseline; font-size: 13.5px; line-height: 1.5;
  padding: 4px 10px; margin-bottom: 3px; border-left: 3px solid var(--hue); border-radius: 4px; }
.step.high { --hue: var(--blue); }
.step.low { --hue: var(--orange); }
.step[style] { background: color-mix(in srgb, var(--hue) var(--w), transparent); }
.step span { flex: 1; min-width: 0; white-space: pre-wrap; overflow-wrap: anywhere; }
.step b { font-weight: 500; font-size: 12px; opacity: .8; white-space: nowrap; }
.step .mark { font-style: normal; font-size: 12px; opacity: .8; }
.step .mark.bad { opacity: 1; font-weight: 700; }
.facts { display: grid; grid-template-columns: 1fr 1fr; gap: 16px; margin-top: 18px; }
.facts .card { padding: 18px 22px; min-width: 0; }
.facts h3 { margin-bottom: 10px; }
.facts td { padding: 6px 0 6px 16px; height: auto; font-size: 14px; }
.facts td:last-child { overflow-wrap: anywhere; }
.facts td:first-child { padding-left: 0; }
.facts tr:first-child td { border-top: 0; }
.facts .bar { width: 45%; }
.facts .bar div { height: 8px; border-radius: 4px; background: var(--grey); opacity: .6; min-width: 2px; }
.facts .wide { grid-column: 1 / -1; }
pre { margin: 0; font-size: 13px; line-height: 1.6; white-space: pre-wrap; overflow-wrap: anywhere; }
@media (max-width: 860px) {
  .cards { grid-template-columns: repeat(2, 1fr); }
  .facts { grid-template-columns: 1fr; }
  h1 { font-size: 30px; }
  main { padding: 36px 18px 60px; }
  td.plot, th.plot { width: 150px; padding-left: 20px; }
  .axis, .intervals { width: 130px; height: auto; }
}
@media print {
  .question, .card { break-inside: avoid; }
}
"""

# Shows the values of the nearest update beside the pointer.
SCRIPT = """
const tip = document.getElementById('tip');
const closest = (points, x) => points.reduce((a, b) => Math.abs(b[1] - x) < Math.abs(a[1] - x) ? b : a);
for (const chart of document.querySelectorAll('svg.chart')) {
  const series = JSON.parse(chart.dataset.values), cursor = chart.querySelector('.cursor');
  chart.addEventListener('pointermove', event => {
    const box = chart.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * chart.viewBox.baseVal.width;
    const near = series.map(one => [one, closest(one.points, x)]);
    const best = closest(near.map(([, point]) => point), x);
    const lines = near.filter(([, p]) => p[0] === best[0]).map(([one, p]) => one.label + '  ' + p[3]);
    tip.innerText = ['update ' + best[0], ...lines].join('\\n');
    for (const end of ['x1', 'x2']) cursor.setAttribute(end, best[1]);
    cursor.setAttribute('visibility', 'visible');
    tip.style.display = 'block';
    tip.style.left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8) + 'px';
    tip.style.top = event.clientY + 14 + 'px';
  });
  chart.addEventListener('pointerleave', () => {
    tip.style.display = 'none';
    cursor.setAttribute('visibility', 'hidden');
  });
}
"""
