"""The report's section on balance: do vectors group by category, or by modality?

Compares every measured space: without training, the baselines' (the same heads, aligned to other targets),
and the run's own. The ideal value or the chance level of each measure is marked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.html.charts import Dot, DotRow, Mark, dot_chart, dot_key
from pipeline.html.elements import Child, Html, el, figure, join, section, table

# The spaces by their name under `anchors`, in the order of the pipeline; others come last, as named.
_SPACES = {
    "zero_shot": "without training",
    "class_name": "aligned to bare names",
    "image_centred": "aligned to images",
    "text_centred": "aligned to texts",
    "aligned": "this run",
}

# The measures of trainer/evaluate/balance.py, and which direction is better.
_MEASURES = {
    "modality_gap_mean": ("modality gap, mean of pairs", "distance of two modalities’ means; 0 is best"),
    "modality_gap_max": ("modality gap, widest pair", "0 is best"),
    "alignment": ("alignment", "mean squared distance of one object in two modalities; smaller is better"),
    "uniformity": ("uniformity", "how evenly the sphere is used; more negative is better"),
    "modality_probe_accuracy": (
        "modality probe",
        "accuracy of a linear probe of the modality; chance is best",
    ),
    "modality_probe_knn": (
        "modality of the five nearest",
        "how often it is the sample’s own; chance is best",
    ),
    "modality_probe_mlp": (
        "modality probe, hidden layer",
        "accuracy of a small network that guesses the modality; chance is best",
    ),
    "modality_probe_chance": ("modality probe, chance", "the share of the most frequent modality"),
    "silhouette_by_modality": (
        "silhouette by modality",
        "-1 to 1; at or below 0 is best: no clusters by modality",
    ),
    "silhouette_by_category": ("silhouette by category", "-1 to 1; higher is better: clusters by category"),
    "category_r10_mean": ("recall@10 by category, mean", "over all ordered pairs; higher is better"),
    "category_r10_spread": (
        "recall@10 by category, spread",
        "standard deviation over the pairs; smaller is better",
    ),
    "category_r10_worst": ("recall@10 by category, worst pair", "higher is better"),
    "object_r10_mean": ("recall@10 by object, mean", "over all ordered pairs; higher is better"),
    "object_r10_spread": (
        "recall@10 by object, spread",
        "standard deviation over the pairs; smaller is better",
    ),
    "object_r10_worst": ("recall@10 by object, worst pair", "higher is better"),
    "mixed_share": (
        "other modalities among the ten nearest",
        "in one gallery of all modalities; higher is better",
    ),
    "mixed_precision10": (
        "precision@10 of one mixed list",
        "right categories among the ten; higher is better",
    ),
    "mixed_ndcg10": ("NDCG@10 of one mixed list", "all modalities in one gallery; higher is better"),
}


@dataclass(frozen=True, slots=True)
class _Panel:
    """One chart: a measure (the full dot), and related measures of the same space."""

    title: str
    good: str
    measure: str
    beside: str | None = None  # an open dot
    spread: str | None = None  # a line to either side of the full dot
    chance: str | None = None  # a dashed stroke
    include: tuple[float, ...] = (0.0, 1.0)
    level: float | None = None
    key: tuple[tuple[Mark, str], ...] = ()


_RECALL_KEY: tuple[tuple[Mark, str], ...] = (("full", "mean, ± spread"), ("open", "worst pair"))
_PANELS = (
    _Panel(
        "Modality gap",
        "Good: 0, all modalities have the same mean.",
        "modality_gap_mean",
        beside="modality_gap_max",
        include=(0.0,),
        level=0.0,
        key=(("full", "mean of pairs"), ("open", "widest pair")),
    ),
    _Panel(
        "Modality probe",
        "Good: at chance, vectors do not show their modality.",
        "modality_probe_accuracy",
        beside="modality_probe_knn",
        chance="modality_probe_chance",
        key=(("full", "linear probe"), ("open", "five nearest"), ("chance", "chance")),
    ),
    _Panel(
        "Silhouette",
        "Good: high by category (clusters of meaning), at or below 0 by modality (no clusters).",
        "silhouette_by_category",
        beside="silhouette_by_modality",
        include=(-0.1, 0.2),
        level=0.0,
        key=(("full", "by category"), ("open", "by modality")),
    ),
    _Panel(
        "Recall@10, same category",
        "Good: far right, with a small spread and the worst pair close to the mean.",
        "category_r10_mean",
        beside="category_r10_worst",
        spread="category_r10_spread",
        key=_RECALL_KEY,
    ),
    _Panel(
        "Recall@10, same object",
        "Good: as above. Harder: the same object must be found, not a similar one.",
        "object_r10_mean",
        beside="object_r10_worst",
        spread="object_r10_spread",
        key=_RECALL_KEY,
    ),
    _Panel(
        "One gallery of all modalities",
        "Good: far right, the ten nearest are of the right category and of any modality.",
        "mixed_precision10",
        beside="mixed_share",
        key=(("full", "right category"), ("open", "other modalities")),
    ),
    _Panel(
        "NDCG@10 of one mixed list",
        "Good: 1, the first ten of one gallery of all modalities are of the right category.",
        "mixed_ndcg10",
        level=1.0,
    ),
    _Panel(
        "Alignment",
        "Good: towards 0, an object’s vectors are close in any two modalities.",
        "alignment",
        include=(0.0,),
        level=0.0,
    ),
    _Panel(
        "Uniformity",
        # Evenly spread in D dimensions: log E exp(-2 (2 - 2t)) with t of variance 1/D is -4 + 8/D nearly.
        "Good: towards −4, vectors are spread evenly over a sphere of many dimensions.",
        "uniformity",
        include=(-4.0, 0.0),
        level=-4.0,
    ),
)


def balance_section(metrics: Mapping[str, Any]) -> Html:
    """The balance of each measured space: charts with the ideal marked, and the numbers."""
    rows = metrics.get("balance", ())
    if not rows:
        words = "Balance is between modalities: it needs test samples of two in one space."
        return section("balance", "Balance", el("p", words))
    values: dict[str, dict[str, float]] = {}
    for row in rows:
        values.setdefault(row["anchors"], {})[row["measure"]] = row["value"]
    known = list(_SPACES)
    spaces = sorted(values, key=lambda name: known.index(name) if name in known else len(known))
    panels = [_panel(panel, spaces, values) for panel in _PANELS]
    charts = el("div", *(panel for panel in panels if panel), class_="panels charts")
    return section(
        "balance",
        "Balance",
        el("p", "Do vectors group by category, or by modality?"),
        figure(charts, _words(spaces)),
        _numbers(rows, spaces, values),
    )


def _panel(panel: _Panel, spaces: Sequence[str], values: Mapping[str, Mapping[str, float]]) -> Html | None:
    """The chart of one panel; None where no space has its measure."""
    measured = [name for name in spaces if panel.measure in values[name]]
    if not measured:
        return None
    rows = []
    for name in measured:
        found = values[name]
        value = found[panel.measure]
        spread = found.get(panel.spread) if panel.spread else None
        low, high = (None, None) if spread is None else (max(0.0, value - spread), min(1.0, value + spread))
        dots, value_text = [Dot(value, low=low, high=high)], _short(value)
        if panel.beside and panel.beside in found:
            dots.insert(0, Dot(found[panel.beside], "open"))
            value_text += f" · {_short(found[panel.beside])}"
        if panel.chance and panel.chance in found:
            dots.insert(0, Dot(found[panel.chance], "chance"))
        rows.append(DotRow(_space(name), value_text, tuple(dots), strong=name == spaces[-1]))
    title = "; ".join(f"{row.label} {row.value}" for row in rows)
    chart = dot_chart(rows, title=title, include=panel.include, level=panel.level)
    key = dot_key(panel.key) if panel.key else join([])
    return el("div", el("h3", panel.title), el("p", panel.good, class_="sub"), key, chart)


def _short(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}"  # no minus sign before zero


def _space(name: str) -> str:
    return _SPACES.get(name, name.replace("_", " "))


def _words(spaces: Sequence[str]) -> str:
    words = "A solid line is the ideal, a dashed one is chance."
    if len(spaces) == 1:
        return f"{words} One space was measured: {_space(spaces[0])}."
    return (
        f"{words} A space without vectors of some modality is measured without it, so compare spaces with "
        "the same modalities."
    )


def _numbers(
    rows: Sequence[Mapping[str, Any]], spaces: Sequence[str], values: Mapping[str, Mapping[str, float]]
) -> Html:
    """Every number: a row per measure, a column per space."""
    body: list[list[Child]] = []
    for measure in dict.fromkeys(row["measure"] for row in rows):
        title, meaning = _MEASURES.get(measure, (measure.replace("_", " "), ""))
        numbers = [f"{values[name][measure]:.3f}" if measure in values[name] else "–" for name in spaces]
        body.append([title, *numbers, el("span", meaning, class_="sub prose")])
    head = ["measure", *(_space(name) for name in spaces), ""]
    return table(f"l{'r' * len(spaces)}l", head, body)
