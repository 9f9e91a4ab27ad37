"""The report's section on retrieval across modalities: every ordered pair, by category and by object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, pstdev
from typing import Any

from data.modality import MODALITIES
from pipeline.accuracies import place
from pipeline.html.elements import Child, Html, el, figure, join, line, section, table

_LEVELS = {"category": "same category", "object": "same object"}
_Rows = Sequence[Mapping[str, Any]]
_DEPTHS = ("r1", "r5", "r10", "r20")


def retrieval_section(metrics: Mapping[str, Any], chances: Mapping[tuple[str, str, str], float]) -> Html:
    """Heat maps of recall@10 by level. `chances`: (level, query, gallery) -> recall@10 of a random order."""
    rows = metrics.get("retrieval", ())
    levels = [level for level in _LEVELS if any(row["level"] == level for row in rows)]
    if not levels:
        words = "Nothing to retrieve: fewer than two modalities share the space."
        return section("retrieval", "Retrieval across modalities", el("p", words))
    maps = [_heat_map([row for row in rows if row["level"] == level], level, chances) for level in levels]
    return section(
        "retrieval",
        "Retrieval across modalities",
        el(
            "p",
            "Queries of one modality search a gallery of another: the percentage of test samples with "
            "something relevant among their ten nearest. Rows are queries, columns galleries.",
        ),
        el("div", *maps, class_="panels wide"),
        _means(rows, levels),
        _pairs(rows, levels),
    )


def _means(rows: _Rows, levels: Sequence[str]) -> Html:
    """The mean over all ordered pairs at each depth and, if measured, of the median ranks."""
    ranked = all(row.get("median_rank") is not None for row in rows)
    body = []
    for level in levels:
        own = [row for row in rows if row["level"] == level]
        cells = [_LEVELS[level], *(_percent0(fmean(row[depth] for row in own)) for depth in _DEPTHS)]
        body.append([*cells, f"{fmean(row['median_rank'] for row in own):.1f}"] if ranked else cells)
    head = ["relevant is", *(f"recall@{depth[1:]}" for depth in _DEPTHS), *(["median rank"] * ranked)]
    caption = "Mean over all ordered pairs of modalities; recall in percent."
    if ranked:
        caption += " Median rank: the rank of the first relevant item, median over queries; 1 is best."
    return table(f"lrrrr{'r' * ranked}", head, body, caption=caption)


def _pairs(rows: _Rows, levels: Sequence[str]) -> Html:
    """Every ordered pair in numbers."""
    ranked = any(row.get("median_rank") is not None for row in rows)
    columns = f"lrrrr{'r' * ranked}r"
    body: list[Html] = []
    for level in levels:
        body.append(el("tr", el("th", _LEVELS[level], colspan=len(columns)), class_="group"))
        for row in _ordered(rows, level):
            cells: list[Child] = [f"{row['query']} → {row['gallery']}"]
            cells += [_with_interval(row, depth) for depth in _DEPTHS]
            rank = row.get("median_rank")
            cells += ["–" if rank is None else f"{rank:g}"] * ranked
            body.append(line(columns, [*cells, str(row["n"])]))
    head = ["", *(f"recall@{depth[1:]}" for depth in _DEPTHS), *(["median rank"] * ranked), "n"]
    caption = "Recall in percent with its 95% interval. n: queries with something relevant in the gallery."
    whole = el("div", table(columns, head, body, caption=caption), class_="pinned")
    return el("details", el("summary", "Every pair in numbers"), whole)


def _ordered(rows: _Rows, level: str) -> _Rows:
    """The pairs of a level in the order of the heat map."""
    own = (row for row in rows if row["level"] == level)
    return sorted(own, key=lambda row: (place(MODALITIES, row["query"]), place(MODALITIES, row["gallery"])))


def _with_interval(row: Mapping[str, Any], depth: str) -> Child:
    number = f"{100 * row[depth]:.1f}"
    low, high = row.get(f"{depth}_low"), row.get(f"{depth}_high")
    if low is None or high is None:
        return number
    return join([number, el("span", f"{100 * low:.1f}–{100 * high:.1f}", class_="ci")])


def _heat_map(rows: _Rows, level: str, chances: Mapping[tuple[str, str, str], float]) -> Html:
    value = {(row["query"], row["gallery"]): row["r10"] for row in rows}
    names = [name for name in MODALITIES if any(name in pair for pair in value)]
    head: list[Child] = ["", *(el("span", name) for name in (*names, "mean"))]
    body: list[Html] = []
    for query in names:
        asked = [value[query, gallery] for gallery in names if (query, gallery) in value]
        cells = [_cell(value.get((query, gallery)), own=query == gallery) for gallery in names]
        mean = el("td", _percent0(fmean(asked)) if asked else "", class_="sum")
        body.append(el("tr", el("th", query, scope="row"), *cells, mean))
    found = [[value[query, gallery] for query in names if (query, gallery) in value] for gallery in names]
    sums = [el("td", _percent0(fmean(column)) if column else "", class_="sum") for column in found]
    body.append(
        el(
            "tr",
            el("th", "mean", scope="row"),
            *sums,
            el("td", _percent0(fmean(value.values())), class_="sum"),
        )
    )
    header = el("tr", *(el("th", name, scope="col") for name in head))
    whole = el(
        "div", el("table", el("thead", header), el("tbody", *body)), class_="heat scroll", tabindex="0"
    )
    return figure(join([el("h3", f"Recall@10, {_LEVELS[level]}"), whole]), _heat_words(value, level, chances))


def _heat_words(
    value: Mapping[tuple[str, str], float], level: str, chances: Mapping[tuple[str, str, str], float]
) -> str:
    ranked = sorted(value, key=lambda pair: (value[pair], pair))
    lowest, highest = (f"{pair[0]} → {pair[1]} {_percent0(value[pair])}" for pair in (ranked[0], ranked[-1]))
    mean, spread = fmean(value.values()), pstdev(value.values())
    words = (
        f"{len(value)} ordered pairs: mean {_percent0(mean)}, spread {_percent0(spread)}; "
        f"worst {lowest}, best {highest}."
    )
    known = [chances[level, *pair] for pair in value if (level, *pair) in chances]
    if known:
        words += f" A random order would score {_percent0(fmean(known))} on average."
    return words


def _cell(value: float | None, *, own: bool) -> Html:
    if value is None:
        return el("td", "·" if own else "–", class_="own")
    # Above these values white text has more contrast than black: `deep` on a light page, `mid` on a dark one.
    ink = " deep" if value > 0.72 else " mid" if value > 0.55 else ""
    return el("td", _percent0(value), class_=f"cell{ink}", style=f"--v:{value:.3f}")


def _percent0(value: float) -> str:
    return f"{100 * value:.0f}"
