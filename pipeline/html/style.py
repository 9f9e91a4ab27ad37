"""The style sheet of the reports: blue for the LLM centers, grey for controls, rust for a warning.

No script, no web font, no external address. Colours are custom properties, so that one sheet serves light
mode, dark mode and print; the SVG drawings use the same properties.
"""

from __future__ import annotations

# Seven hues that remain distinguishable with common colour-vision deficiencies (after Okabe and Ito 2008),
# each with a lighter version for dark mode; in the order of data.modality.MODALITIES.
MODALITY_COLOURS: dict[str, tuple[str, str]] = {
    "image": ("#0072b2", "#56a9e0"),
    "text": ("#555555", "#c9c9c9"),
    "audio": ("#d55e00", "#f08a4b"),
    "point": ("#008f6b", "#35c39b"),
    "thermal": ("#b0457f", "#e08bb8"),
    "video": ("#a87900", "#e6b93d"),
    "event": ("#6a4fb3", "#a593e8"),
}

_LIGHT = """
  --paper: #fffefb; --ink: #1c1b19; --quiet: #6b6862; --line: #dedad1; --wash: #f5f2ea;
  --accent: #0b5a7a; --warn: #b03a12; --warn-wash: #fbeae2; --heat: #07435c;
  --mid-ink: #1c1b19; --heat-ink: #ffffff; --shade: rgb(0 0 0 / .32);
  --dot-l: 0.56; --dot-c: 0.14;
"""
_DARK = """
  --paper: #161513; --ink: #e9e6df; --quiet: #a09b91; --line: #38352f; --wash: #201e1b;
  --accent: #7cc4e4; --warn: #f19a72; --warn-wash: #35211a; --heat: #7cc4e4;
  --mid-ink: #10100e; --heat-ink: #10100e; --shade: rgb(255 255 255 / .3);
  --dot-l: 0.74; --dot-c: 0.13;
"""


def _palette(which: int) -> str:
    return " ".join(f"--{name}: {pair[which]};" for name, pair in MODALITY_COLOURS.items())


def properties(*, dark: bool) -> str:
    """The colours as CSS custom properties, for the pages of `unibind ui` too."""
    return f"{_DARK if dark else _LIGHT} {_palette(int(dark))}"


_MODALITY_CLASSES = "\n".join(f".m-{name} {{ --c: var(--{name}); }}" for name in MODALITY_COLOURS)

_RULES = """
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 68rem; background: var(--paper);
  color: var(--ink); font: 1.0625rem/1.55 "Iowan Old Style", Palatino, "Palatino Linotype", "Book Antiqua",
  Georgia, serif; }
h1 { font-weight: 500; font-size: 2.1rem; line-height: 1.15; margin: 0 0 .35rem; overflow-wrap: anywhere; }
h2 { font-weight: 500; font-size: 1.4rem; margin: 3.2rem 0 .6rem; padding-top: .8rem;
  border-top: 1px solid var(--line); }
h3 { font-weight: 600; font-size: 1rem; margin: 1.6rem 0 .3rem; overflow-wrap: anywhere; }
p, ul, dl { max-width: 44rem; margin: .5rem 0 .9rem; }
ul { padding-left: 1.1rem; } li { margin: .2rem 0; }
a { color: var(--accent); text-decoration-thickness: 1px; text-underline-offset: .18em; }
.lead { font-size: 1.3rem; line-height: 1.45; max-width: 46rem; margin: 1rem 0; }
.lead strong { font-weight: 600; color: var(--accent); white-space: nowrap; }
.sub, .note, figcaption, .caption { color: var(--quiet); font-size: .9rem; line-height: 1.45;
  font-weight: 400; }
.note, figcaption { max-width: 46rem; }
nav { font: .85rem/1.9 system-ui, sans-serif; margin: 1.3rem 0 0; }
nav a { margin-right: 1.1rem; white-space: nowrap; }
figure { margin: 1.2rem 0; } figcaption { margin-top: .5rem; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { font: 10px system-ui, sans-serif; fill: var(--ink); }
svg .faint { fill: var(--quiet); } svg .title { font-weight: 600; font-size: 11px; }
svg .halo { paint-order: stroke; stroke: var(--paper); stroke-width: 2.5px; stroke-linejoin: round; }
.panels { display: grid; gap: 1.6rem 2.2rem; --least: 19rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, var(--least)), 1fr)); }
.panels.wide { --least: 26rem; }
.panels.charts { grid-template-columns: repeat(auto-fill, minmax(min(100%, var(--least)), 1fr)); }
.panels h3 { margin-top: .4rem; } .panels .sub { margin: 0 0 .5rem; }
.grid { stroke: var(--line); stroke-width: .6px; }
.chance { stroke: var(--quiet); stroke-dasharray: 2 2; }
.level { stroke: var(--ink); stroke-width: 1px; }
.key { display: flex; flex-wrap: wrap; gap: .15rem 1.2rem; font: .82rem/1.7 system-ui, sans-serif;
  color: var(--quiet); margin: .4rem 0; padding: 0; max-width: none; list-style: none; }
.key li { display: inline-flex; align-items: center; gap: .4rem; margin: 0; white-space: nowrap; }
.key svg { width: 14px; height: 14px; flex: none; } .key svg.long { width: 24px; }
details { margin: 1rem 0; } summary { cursor: pointer; color: var(--accent); font-size: .95rem; }
.folded { border-top: 1px solid var(--line); margin: 0; }
.folded > summary { font-size: 1.15rem; padding: .65rem 0; } .folded h2 { display: none; }
/* A shadow at the end that can be scrolled to: the covers move with the table, the shadows stay. */
.scroll { overflow-x: auto; margin: .8rem 0 1rem; background:
  linear-gradient(to right, var(--paper) 30%, transparent) local left / 3rem 100% no-repeat,
  linear-gradient(to left, var(--paper) 30%, transparent) local right / 3rem 100% no-repeat,
  radial-gradient(farthest-side at 0 50%, var(--shade), transparent) left / 1rem 100% no-repeat,
  radial-gradient(farthest-side at 100% 50%, var(--shade), transparent) right / 1rem 100% no-repeat; }
.shares { list-style: none; padding: 0; max-width: none; margin: .4rem 0;
  font: .86rem/1.4 system-ui, sans-serif; font-variant-numeric: tabular-nums;
  columns: 22rem; column-gap: 2.4rem; }
.shares li { display: grid; grid-template-columns: 8.5rem 1fr 6.5rem; gap: .6rem; align-items: center;
  margin: 0; break-inside: avoid; }
.shares .name { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.shares .of { color: var(--quiet); white-space: nowrap; text-align: right; }
.track { background: var(--wash); height: .62rem; display: flex; } .track .bar { height: 100%; }
.matrix { max-width: 44rem; } svg text.small { font-size: 8px; }
.right { fill: var(--accent); } .wrong { fill: var(--warn); }
.drawn { list-style: none; padding: 0; } .drawn .who { font-weight: 600; }
audio { display: block; width: 100%; max-width: 15rem; height: 2.2rem; margin-top: .3rem; }
table { border-collapse: collapse; font: .86rem/1.35 system-ui, sans-serif;
  font-variant-numeric: tabular-nums; }
.caption { max-width: 46rem; margin: 1.4rem 0 -.3rem; }
th { font-weight: 500; text-align: left; vertical-align: bottom; }
thead th { color: var(--quiet); border-bottom: 1px solid var(--line); font-weight: 400; }
td, th { padding: .22rem .9rem .22rem 0; vertical-align: baseline; }
tbody th { overflow-wrap: anywhere; min-width: 7rem; }
.bars { white-space: nowrap; } .prose { display: block; min-width: 14rem; overflow-wrap: anywhere; }
.num { text-align: right; white-space: nowrap; }
td.wrap, .wrap { white-space: normal; }
tr.group th { padding-top: 1.1rem; color: var(--quiet); font-style: italic; font-weight: 400; }
tr.mean > * { border-top: 1px solid var(--line); }
.ci { display: block; color: var(--quiet); font-size: .74rem; }
.best { font-weight: 700; }
.center { color: var(--accent); }
.over { color: var(--warn); background: var(--warn-wash); padding: 0 .3em; border-radius: 3px; }
.tag { display: block; min-width: 13rem; color: var(--warn); font-size: .8rem; }
.better { color: var(--accent); } .worse { color: var(--warn); }
.question { font-size: 1.15rem; font-style: italic; } tr.reference { background: var(--wash); }
.set { white-space: normal; max-width: 16rem; overflow-wrap: anywhere; }
.study thead th { white-space: normal; max-width: 7rem; }
.study tbody th { position: sticky; left: 0; background: var(--paper); z-index: 1; }
.study tr.reference th { background: var(--wash); }
.bar { display: inline-block; height: .62rem; background: var(--accent); min-width: 1px; }
.bar.rest { background: var(--line); }
.heat table { table-layout: fixed; }
.heat td { text-align: center; padding: 0; height: 2.1rem; vertical-align: middle; }
.heat th { padding: .2rem .5rem .2rem 0; vertical-align: middle; min-width: 0; width: 4.1rem; }
.heat thead th { border: 0; vertical-align: bottom; padding: 0 0 .3rem; text-align: center;
  font-size: .74rem; width: 2.85rem; } .heat thead th:first-child { width: 4.1rem; }
.heat .cell { background: color-mix(in srgb, var(--heat) calc(var(--v) * 92%), var(--paper)); }
.heat .cell.mid { color: var(--mid-ink); } .heat .cell.deep { color: var(--heat-ink); }
.heat .own { color: var(--line); }
.heat .sum { color: var(--quiet); padding-left: .5rem; }
.dot { fill: none; stroke: var(--c); stroke-linecap: round; stroke-width: 3.4px; }
.leader { stroke: var(--quiet); stroke-width: .5px; }
.ring { fill: none; stroke: var(--c); stroke-width: 1.5px; }
svg text.label { font-size: 8.5px; }
.hue { --c: oklch(var(--dot-l) var(--dot-c) var(--h)); }
.frame { fill: none; stroke: var(--line); }
.mistakes { display: grid; gap: 1.2rem 1.6rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 13rem), 1fr)); }
.mistakes figcaption p { margin: .25rem 0; } .who { color: var(--ink); }
.mistakes figure { margin: 0; } .mistakes figcaption { font-size: .84rem; overflow-wrap: anywhere; }
.thumb { display: block; width: 100%; max-width: 15rem; height: auto; max-height: 12rem; object-fit: contain;
  object-position: left top; }
.words { background: var(--wash); margin: 0; padding: .7rem .8rem; font-size: .9rem;
  overflow-wrap: anywhere; }
q, .said { font-style: italic; quotes: "“" "”"; }
code { font: .85em ui-monospace, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
footer { margin-top: 3.5rem; border-top: 1px solid var(--line); padding-top: .8rem; }
@media (max-width: 34rem) {
  body { padding: 1.4rem .9rem 3rem; font-size: 1rem; }
  h1 { font-size: 1.6rem; } .lead { font-size: 1.12rem; }
  .heat td { height: 1.9rem; } .heat table { font-size: .76rem; width: 100%; }
  .heat thead th { width: auto; } .heat thead span { writing-mode: vertical-rl; rotate: 180deg; }
  .mistakes { grid-template-columns: 1fr 1fr; gap: .9rem; }
  .pinned tbody th { position: sticky; left: 0; background: var(--paper); z-index: 1; }
}
@media print {
  @page { margin: 1.6cm; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav { display: none; } details::details-content { content-visibility: visible; block-size: auto; }
  .scroll { overflow: visible; }
  .panels { --least: 12rem; } .panels.wide { --least: 18rem; }
  section { break-inside: auto; } h2, h3 { break-after: avoid; }
  figure, .panels > *, .mistakes > *, tr { break-inside: avoid; }
  .cell, .over, .bar, .words { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""

STYLE = (
    f":root {{ color-scheme: light dark; {properties(dark=False)} }}\n"
    f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {properties(dark=True)} }} }}\n"
    f"{_MODALITY_CLASSES}\n{_RULES}"
)
