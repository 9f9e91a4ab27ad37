"""The page section of one ablation: its question, the verdicts, forest charts, and the numbers.

A study is a mapping of the form that `pipeline.study.page.write_study_page` describes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data.show import shorten
from pipeline.accuracies import percent, points
from pipeline.html.charts import Dot, DotRow, dot_chart
from pipeline.html.elements import Child, Html, el, figure, join, line, section, table

Variant = Mapping[str, Any]

_COLOURS = {"better": "var(--accent)", "worse": "var(--warn)"}
_VERDICTS = ("better", "worse", "no difference")


@dataclass(frozen=True, slots=True)
class StudyMeasure:
    """A measure's title, its name in a sentence, which direction is better, and whether it is a share."""

    title: str
    short: str
    good: str
    share: bool = True


MEASURES: dict[str, StudyMeasure] = {
    "seen": StudyMeasure("Top-1, seen categories", "seen", "higher is better"),
    "unseen": StudyMeasure("Top-1, unseen categories", "unseen", "higher is better"),
    "unseen_among_all": StudyMeasure(
        "Top-1, unseen samples among all categories", "unseen among all", "higher is better"
    ),
    "zero_shot": StudyMeasure("Top-1, zero-shot", "zero-shot", "higher is better"),
    "r10_mean": StudyMeasure("Recall@10 by category, mean of pairs", "recall@10", "higher is better"),
    "r10_worst": StudyMeasure(
        "Recall@10 by category, worst pair", "recall@10 of the worst pair", "higher is better"
    ),
    "object_r10_mean": StudyMeasure(
        "Recall@10 by object, mean of pairs", "recall@10 of objects", "higher is better"
    ),
    "object_r10_worst": StudyMeasure(
        "Recall@10 by object, worst pair", "recall@10 of objects, worst pair", "higher is better"
    ),
    "modality_probe": StudyMeasure("Modality probe", "modality probe", "lower is better, down to chance"),
    "modality_knn": StudyMeasure(
        "Nearest-neighbour modality probe", "nearest-neighbour probe", "lower is better, down to chance"
    ),
    "mixed_share": StudyMeasure(
        "Other modalities among the ten nearest", "other modalities nearby", "higher is better"
    ),
    "modality_gap": StudyMeasure("Modality gap", "modality gap", "lower is better", share=False),
}


def ablation_section(ablation: Mapping[str, Any], anchor: str) -> Html:
    """The section of one ablation, with the id `anchor`."""
    variants: Sequence[Variant] = ablation["variants"]
    names = measure_names(variants)
    still = [name for name in names if name in MEASURES and _unmoved(variants, name)]
    compared = [name for name in names if sum(name in one["measures"] for one in variants) > 1]
    moved = [name for name in compared if name in MEASURES and name not in still]
    panels = [_forest(variants, name) for name in moved]
    parts: list[Child] = [el("p", ablation["question"], class_="question")]
    parts.append(el("ul", *(el("li", _verdict(one)) for one in variants if not one.get("is_reference"))))
    if panels:
        caption = "The line down through each chart is the reference."
        if still:
            caption += f" The same in every variant: {', '.join(_title(name) for name in still)}."
        parts.append(figure(el("div", *panels, class_="panels charts"), caption))
    elif still:
        parts.append(el("p", "No measure differs between the variants.", class_="sub"))
    parts += [_numbers(variants, names), _by_seed(variants, names)]
    return section(anchor, ablation["name"], *parts)


def measure_names(variants: Sequence[Variant]) -> list[str]:
    """Every measure of these variants: the known ones in their order, then the others."""
    found = dict.fromkeys(str(name) for one in variants for name in one["measures"])
    return [name for name in MEASURES if name in found] + [name for name in found if name not in MEASURES]


def variant_title(variant: Variant) -> str:
    """A variant's name, marked where its LLM centers include the bare category name."""
    return f"{variant['name']} [centers + name]" if variant.get("with_name") else str(variant["name"])


def measure_text(name: str, value: float | None) -> str:
    """A value as text: a share in percent, any other with three decimals."""
    if value is None:
        return "–"
    return f"{percent(value)}%" if _share(name) else f"{round(value, 3) + 0.0:.3f}"


def difference_text(name: str, value: float | None) -> str:
    """A difference with its sign, for a share in percentage points."""
    if value is None:
        return "–"
    if _share(name):
        return points(value)
    rounded = round(value, 3) + 0.0
    return f"{rounded:+.3f}".replace("-", "−") if rounded else "0.000"


def _share(name: str) -> bool:
    return name in MEASURES and MEASURES[name].share


def _title(name: str) -> str:
    return MEASURES[name].title if name in MEASURES else name.replace("_", " ")


def _unmoved(variants: Sequence[Variant], name: str) -> bool:
    """Whether all of several variants have the same mean, so that a chart would show nothing."""
    means = [one["measures"][name]["mean"] for one in variants if name in one["measures"]]
    return len(means) > 1 and len(set(means)) == 1


def _verdict(variant: Variant) -> Html:
    """The differences from the reference, in words."""
    against: Mapping[str, Mapping[str, Any]] = variant.get("against_reference") or {}
    parts = []
    for verdict in _VERDICTS:
        names = [name for name in measure_names([variant]) if against.get(name, {}).get("verdict") == verdict]
        if not names:
            continue
        if verdict == "no difference":
            parts.append(el("span", f"no difference in {', '.join(_short(name) for name in names)}"))
            continue
        differences = (
            f"{_short(name)} ({difference_text(name, against[name]['difference'])})" for name in names
        )
        parts.append(el("span", f"{verdict} in {', '.join(differences)}", class_=verdict))
    words = join(parts, "; ") if parts else "not compared with the reference"
    return join([el("b", variant["name"]), ": ", words, "."])


def _short(name: str) -> str:
    return MEASURES[name].short if name in MEASURES else name.replace("_", " ")


def _forest(variants: Sequence[Variant], name: str) -> Html:
    """A row per variant: its mean with the interval, a tick per seed; a line at the reference."""
    rows, level = [], None
    for one in variants:
        measured = one["measures"].get(name)
        if measured is None or measured["mean"] is None:
            continue
        mean = measured["mean"]
        reference = bool(one.get("is_reference"))
        level = mean if reference else level
        against = (one.get("against_reference") or {}).get(name, {})
        seeds = [Dot(value, "tick") for value in measured.get("per_seed", ()) if value is not None]
        dots = [*(seeds if len(seeds) > 1 else ()), Dot(mean, low=measured["low"], high=measured["high"])]
        difference = "" if reference or not against else f" ({difference_text(name, against['difference'])})"
        rows.append(
            DotRow(
                f"{variant_title(one)} (reference)" if reference else variant_title(one),
                f"{measure_text(name, mean)}{difference}",
                tuple(dots),
                strong=reference,
                colour="var(--ink)" if reference else _COLOURS.get(against.get("verdict", "")),
            )
        )
    title = f"{_title(name)}: {'; '.join(f'{row.label} {row.value}' for row in rows)}"
    chart = dot_chart(rows, title=title, percent=_share(name), level=level)
    words = MEASURES[name].good
    return el("div", el("h3", _title(name)), el("p", f"{words[0].upper()}{words[1:]}.", class_="sub"), chart)


def _numbers(variants: Sequence[Variant], names: Sequence[str]) -> Html:
    """A row per variant, a column per measure: the mean, its interval, the difference from the reference."""
    columns = f"l{'r' * len(names)}"
    body = []
    for one in variants:
        settings = ", ".join(f"{key} = {value}" for key, value in (one.get("settings") or {}).items())
        reference = bool(one.get("is_reference"))
        name = f"{variant_title(one)} (reference)" if reference else variant_title(one)
        cells: list[Child] = [join([name, el("span", shorten(settings, 160), class_="ci set")])]
        cells += [_cell(one, measure) for measure in names]
        body.append(line(columns, cells, class_="reference" if reference else None))
    caption = (
        "Mean, its interval, and the difference from the reference with its own interval (for shares in "
        "percentage points); bold where it is significant."
    )
    whole = table(columns, ["variant", *(_title(name) for name in names)], body, caption=caption)
    return el("div", whole, class_="pinned study")


def _cell(variant: Variant, name: str) -> Child:
    measured = variant["measures"].get(name)
    if measured is None or measured["mean"] is None:
        return "–"
    parts: list[Child] = [measure_text(name, measured["mean"])]
    if measured["low"] is not None and measured["high"] is not None:
        ends = (measure_text(name, measured[end]).removesuffix("%") for end in ("low", "high"))
        parts.append(el("span", "–".join(ends), class_="ci"))
    against = (variant.get("against_reference") or {}).get(name)
    if against:
        verdict = against["verdict"] if against["verdict"] in _COLOURS else None
        difference = el("b" if verdict else "span", difference_text(name, against["difference"]))
        ends = (difference_text(name, against[end]) for end in ("low", "high"))
        parts.append(el("span", difference, f" ({' to '.join(ends)})", class_=f"ci {verdict or ''}".strip()))
    return join(parts)


def _by_seed(variants: Sequence[Variant], names: Sequence[str]) -> Html:
    """The values of each seed."""
    body: list[list[Child]] = [
        [
            variant_title(one),
            _title(name),
            ", ".join(measure_text(name, value) for value in one["measures"][name].get("per_seed", ())),
        ]
        for one in variants
        for name in names
        if name in one["measures"]
    ]
    return el(
        "details",
        el("summary", "Seed by seed"),
        table("lll", ["variant", "measure", "in the order of the seeds"], body),
    )
