"""The style sheet of the report: readable on a laptop, a narrow window and on paper; nothing is told by colour alone."""

STYLE = """
:root { color-scheme: light; --ink: #1b1f24; --soft: #57606a; --line: #d0d7de; --tint: #f6f8fa; --focus: #0072B2; }
* { box-sizing: border-box; }
html { scroll-padding-top: 3.2rem; }
body { margin: 0 auto; max-width: 1180px; padding: 0 1.2rem 3rem; color: var(--ink); background: #fff;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 1.4rem 0 0.3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 0.4rem; padding-top: 0.4rem; border-top: 1px solid var(--line); }
p { max-width: 80ch; margin: 0.4rem 0 0.8rem; }
.skip { position: absolute; left: -999px; }
.skip:focus { left: 1rem; top: 0.5rem; background: #fff; padding: 0.3rem 0.6rem; z-index: 2; }
nav { position: sticky; top: 0; background: #fff; border-bottom: 1px solid var(--line); z-index: 1; padding: 0.4rem 0; }
nav ul { display: flex; flex-wrap: wrap; gap: 0.1rem 1rem; list-style: none; margin: 0; padding: 0; font-size: 0.9rem; }
a { color: #0b5c92; }
:focus-visible { outline: 3px solid var(--focus); outline-offset: 2px; }
dl.facts { display: grid; grid-template-columns: max-content 1fr; gap: 0.1rem 1rem; margin: 0.6rem 0; font-size: 0.92rem; }
dl.facts dt { color: var(--soft); } dl.facts dd { margin: 0; overflow-wrap: anywhere; }
.tables { display: grid; gap: 0.8rem; }
.wide { overflow-x: auto; margin: 0.4rem 0; }
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: 0.2rem 0; }
th, td { padding: 0.16rem 0.5rem; text-align: right; white-space: nowrap; }
th[scope=row] { font-weight: 400; }
th[scope=row], th[scope=rowgroup], thead th.left, thead tr:first-child > th:first-child { text-align: left; }
thead th { border-bottom: 1px solid var(--ink); font-weight: 600; }
th.group { text-align: center; } th.kind { font-weight: 600; vertical-align: top; }
tr.first th, tr.first td { border-top: 1px solid var(--line); }
td.mean { background: var(--tint); }
td b::after { content: "*"; } td b { margin-right: -0.45em; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 320px), 1fr)); gap: 0.6rem 1.2rem; margin:
  0.5rem 0; }
.charts.pairs { grid-template-columns: repeat(auto-fill, minmax(min(100%, 420px), 1fr)); }
figure { margin: 0; } figcaption { font-weight: 600; font-size: 0.9rem; }
svg { display: block; } svg.chart { width: 100%; height: auto; max-width: 560px; }
svg.chart text { font-size: 11px; fill: #333; } svg.chart .label { font-size: 12px; }
.grid { stroke: #e4e8ec; } .axis { stroke: #57606a; fill: none; } .diagonal { stroke: #8a8f98; stroke-dasharray: 2 4; }
.line { fill: none; stroke-width: 2; } .whisker { stroke-width: 1.4; opacity: 0.55; fill: none; } .marker { stroke: none; }
ul.legend { display: flex; flex-wrap: wrap; gap: 0.1rem 1.2rem; list-style: none; margin: 0.4rem 0; padding: 0; font-size:
  0.88rem; }
ul.legend li { display: flex; align-items: center; gap: 0.4rem; }
details { margin: 0.3rem 0; } summary { cursor: pointer; color: #0b5c92; font-size: 0.9rem; width: fit-content; }
form { display: flex; flex-wrap: wrap; gap: 0.6rem 1.2rem; align-items: end; margin: 0.6rem 0; padding: 0.6rem 0.8rem;
  background: var(--tint); border: 1px solid var(--line); border-radius: 6px; }
form[hidden] { display: none; }
label { display: flex; flex-direction: column; font-size: 0.85rem; color: var(--soft); }
select, button { font: inherit; color: var(--ink); padding: 0.25rem 0.6rem; border: 1px solid #6e7781; border-radius: 5px;
  background: #fff; min-height: 2.2rem; }
output { font-size: 0.9rem; padding-bottom: 0.4rem; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); gap: 1rem; margin: 0.8rem
  0;
  padding: 0; list-style: none; }
.card { border: 1px solid var(--line); border-radius: 6px; padding: 0.6rem; display: flex; flex-direction: column; gap:
  0.4rem; }
.card[hidden] { display: none; }
.card h3 { font-size: 0.95rem; margin: 0; } .card p { margin: 0; font-size: 0.8rem; color: var(--soft); overflow-wrap:
  anywhere; }
svg.scene { width: 100%; height: auto; background: #fbfbfa; border: 1px solid var(--line); }
.scene path, .scene circle { vector-effect: non-scaling-stroke; fill: none; stroke-linejoin: round; }
.scene .driveway { fill: #f1efe9; stroke: #d8d4c8; } .scene .crosswalk { fill: #f5ead0; stroke: #c8b070; }
.scene .lane { stroke: #d3d9e0; stroke-width: 1.4; } .scene .roadline { stroke: #aab2bb; stroke-dasharray: 5 4; }
.scene .edge { stroke: #59616b; stroke-width: 1.3; } .scene .stopsign { fill: #D55E00; stroke: #fff; }
.scene .past { stroke: #8a8f98; stroke-width: 1; } .scene .own.past { stroke-width: 3; stroke-dasharray: 2 3; }
.scene .other { fill: #b6bbc2; stroke: #6b7280; stroke-width: 0.8; } .scene .recorder { stroke: #000; stroke-width: 2; }
.scene .agent { stroke: #fff; stroke-width: 1; }
.scene path.agent { fill-opacity: 1; } .scene .mode { stroke-linecap: round; } .scene circle.modeend { stroke: #fff; }
.scene .truth { stroke: #111; stroke-width: 2; stroke-dasharray: 7 4; } .scene .truth.halo { stroke: #fff; stroke-width: 5;
  stroke-dasharray: none; stroke-opacity: 0.75; }
.scene .truthend { fill: #111; stroke: #fff; } .scene .bar { stroke: #111; stroke-width: 2; }
.scene .signal { stroke: #1b1f24; } .scene .signal.stop { fill: #D55E00; } .scene .signal.caution { fill: #F0E442; }
.scene .signal.go { fill: #009E73; } .scene .signal.unknown { fill: #fff; }
.scene text { fill: #111; } .scene .p text { paint-order: stroke; stroke: #fff; stroke-linejoin: round; font-weight: 600; }
.crop { display: grid; grid-template-columns: 1fr 1fr; gap: 0.3rem 0.6rem; align-items: center; } .crop p { grid-column: 1 /
  -1; }
.crop svg { width: 100%; max-height: 84px; background: #fbfbfa; } .crop path { vector-effect: non-scaling-stroke; fill:
  none; }
.crop .outline { stroke: #8a8f98; } .crop .points { stroke: #0072B2; stroke-width: 2.4; stroke-linecap: round; }
.key { display: flex; flex-wrap: wrap; gap: 0.1rem 1.1rem; list-style: none; padding: 0; margin: 0.4rem 0; font-size:
  0.85rem; }
.key li { display: flex; align-items: center; gap: 0.4rem; } .key svg.scene { width: 30px; height: 18px; border: 0;
  background: none; }
pre { background: var(--tint); border: 1px solid var(--line); border-radius: 6px; padding: 0.7rem; overflow: auto;
  max-height: 28rem;
  font: 12px/1.45 ui-monospace, "DejaVu Sans Mono", monospace; }
.note { border-left: 4px solid #E69F00; padding: 0.2rem 0.8rem; background: var(--tint); }
@media print {
  @page { size: A4; margin: 12mm; }
  body { font-size: 9.5pt; max-width: none; padding: 0; } nav, form, .skip, summary { display: none; }
  h2 { break-after: avoid; } figure, .card, tr, .crop { break-inside: avoid; }
  details { display: block; } details::details-content { content-visibility: visible; display: block; }
  table { font-size: 7.6pt; } th, td { padding: 0.08rem 0.32rem; } .wide { overflow: visible; }
  .charts { grid-template-columns: repeat(3, minmax(0, 1fr)); }
  .charts.pairs { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .gallery { grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 0.5rem; padding-right: 1px; }
  .card p { font-size: 7pt; } pre { max-height: none; overflow: visible; white-space: pre-wrap; overflow-wrap: anywhere;
    font-size: 6.5pt; columns: 3; }
  a { color: inherit; text-decoration: none; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
