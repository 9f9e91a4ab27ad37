"""The report's sections on baselines: a linear probe, few labels, and other numbers of centers and scorers.

Each is written if the metrics have it: `probe` (a linear probe on the frozen features), `few_shot` (probe and
heads by the number of labelled samples per category), `sweeps` (numbers of centers, and scorers).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from data.modality import MODALITIES
from pipeline.accuracies import (
    SPLITS,
    AccuracyRow,
    centers_title,
    media,
    percent,
    place,
    recognition_rows,
    split_title,
)
from pipeline.html.charts import LOOKS, ChartLine, Dot, DotRow, Look, dot_chart, line_chart, line_key
from pipeline.html.elements import Child, Html, el, figure, join, line, section, table
from trainer.evaluate.tasks import CENTERS

_METHODS: dict[str, tuple[str, Look]] = {"heads": ("heads", "strong"), "probe": ("linear probe", "second")}
_Records = Sequence[Mapping[str, Any]]


def probe_section(metrics: Mapping[str, Any]) -> Html | None:
    """The aligned heads beside a linear probe on the frozen features; None without a probe."""
    probes = {(r["split"], r["modality"]): r for r in metrics.get("probe", ())}
    rows = [row for row in recognition_rows(metrics) if (row.split, row.modality) in probes and row.centers]
    if not rows:
        return None
    panels = [_probe_panel(row, probes[row.split, row.modality]) for row in rows]
    limit = "percent, with 95% intervals; the dashed stroke is chance"
    return section(
        "probe",
        "Against a linear probe",
        el(
            "p",
            "A linear probe learns the categories from labels on the same frozen features, without texts. It "
            "cannot recognise a category without a train sample; on seen categories it shows what the "
            "features contain. Heads near the probe lose little by using texts.",
            class_="sub",
        ),
        el("p", _probe_words(rows, probes)),
        figure(el("div", *panels, class_="panels charts"), f"Top-1 in {limit}."),
    )


def _probe_panel(row: AccuracyRow, probe: Mapping[str, Any]) -> Html:
    if row.centers is None:
        raise ValueError(f"{row.modality}: no LLM centers to set beside the probe")
    chance = Dot(row.chance, "chance")
    own = Dot(row.centers.top1, low=row.centers.low, high=row.centers.high)
    other = Dot(probe["top1"], low=probe["top1_low"], high=probe["top1_high"])
    model = "aligned heads" if row.model == "aligned" else "without training"
    rows = [
        DotRow(f"{model}, {centers_title([row])}", f"{percent(row.centers.top1)}%", (chance, own)),
        DotRow("linear probe", f"{percent(probe['top1'])}%", (chance, other), strong=False),
    ]
    title = f"{row.modality}, {split_title(row.split)}"
    words = f"{title}: {'; '.join(f'{one.label} {one.value}' for one in rows)}"
    return el("div", el("h3", title), dot_chart(rows, title=words, percent=True, include=(0.0, 1.0)))


def _probe_words(rows: Sequence[AccuracyRow], probes: Mapping[tuple[str, str], Mapping[str, Any]]) -> str:
    """The means of both over the media modalities, split by split."""
    words = []
    for split in dict.fromkeys(row.split for row in rows):
        shown = [row for row in media(row for row in rows if row.split == split) if row.centers]
        own = fmean(row.centers.top1 for row in shown if row.centers)
        other = fmean(probes[split, row.modality]["top1"] for row in shown)
        of = f"mean of {len(shown)} modalities" if len(shown) > 1 else shown[0].modality
        reached = f"the {centers_title(rows)} reach {percent(own)}%, the probe {percent(other)}%"
        words.append(f"On {split_title(split)} {reached} ({of}).")
    return " ".join(words)


def few_shot_section(metrics: Mapping[str, Any]) -> Html | None:
    """Accuracy by the number of labelled samples per category, a chart per modality; None if not measured."""
    records: _Records = metrics.get("few_shot", ())
    if not records:
        return None
    groups = _grouped(records)
    shots = sorted({record["shots"] for record in records})
    panels = []
    for (split, modality), rows in groups.items():
        lines = [
            ChartLine(
                name,
                tuple((r["shots"], r["top1"]) for r in ours),
                look,
                tuple((r["shots"], r["top1_low"], r["top1_high"]) for r in ours),
            )
            for method, (name, look) in _methods(records).items()
            if (ours := sorted((r for r in rows if r["method"] == method), key=lambda r: int(r["shots"])))
        ]
        title = f"{modality}, {split_title(split)}"
        words = "; ".join(
            f"{one.name} {', '.join(f'{percent(y)}% at {x}' for x, y in one.points)}" for one in lines
        )
        chart = line_chart(
            lines, title=f"{title}: {words}", x_title="shots", percent=True, dots=True, x_ticks=shots
        )
        panels.append(el("div", el("h3", title), chart))
    head = ["", "method", "shots", "train samples", "top-1 %", "95% interval", "n"]
    body = [
        [
            f"{r['modality']}, {split_title(r['split'])}",
            _methods(records)[r["method"]][0],
            str(r["shots"]),
            f"{r['n_train']:,}",
            percent(r["top1"]),
            f"{percent(r['top1_low'])}–{percent(r['top1_high'])}",
            str(r["n"]),
        ]
        for rows in groups.values()
        for r in sorted(rows, key=lambda r: (r["method"], r["shots"]))
    ]
    return section(
        "few-shot",
        "With few labelled samples",
        el(
            "p",
            "Shots: labelled train samples per category. Good: the heads are ahead with few labels, because "
            "they also have the texts.",
            class_="sub",
        ),
        figure(
            join([line_key(_methods(records).values()), el("div", *panels, class_="panels charts")]),
            "Top-1 with its 95% interval. The axis of shots is not to scale.",
        ),
        el("details", el("summary", "The numbers"), table("llrrrrr", head, body)),
    )


def _methods(records: _Records) -> dict[str, tuple[str, Look]]:
    """The methods that occur, with name and line style; unknown ones as named."""
    found = dict.fromkeys(str(record["method"]) for record in records)
    ordered = [name for name in _METHODS if name in found] + [name for name in found if name not in _METHODS]
    return {name: _METHODS.get(name, (name.replace("_", " "), "third")) for name in ordered}


def sweeps_section(metrics: Mapping[str, Any]) -> Html | None:
    """Accuracy of the LLM centers by number and by scorer, a chart per split; None if not measured."""
    records: _Records = [r for r in metrics.get("sweeps", ()) if r["anchors"] == CENTERS]
    if not records:
        return None
    scorers = list(dict.fromkeys(str(record["scorer"]) for record in records))
    looks = {name: LOOKS[turn % len(LOOKS)] for turn, name in enumerate(scorers)}
    panels, body = [], []
    for split in sorted({str(r["split"]) for r in records}, key=lambda name: place(SPLITS, name)):
        for model in dict.fromkeys(r.get("model", "") for r in records):
            rows = [r for r in records if r["split"] == split and r.get("model", "") == model]
            if not rows:
                continue
            means = _means(rows)
            ks = sorted({k for _, k in means})
            lines = [
                ChartLine(name, tuple((k, means[name, k]) for k in ks if (name, k) in means), looks[name])
                for name in scorers
                if any((name, k) in means for k in ks)
            ]
            title = split_title(split) + (" (without training)" if model == "zero_shot" else "")
            words = "; ".join(
                f"{one.name} {', '.join(f'{percent(y)}% at {x:g}' for x, y in one.points)}" for one in lines
            )
            if lines:
                chart = line_chart(
                    lines, title=f"{title}: {words}", x_title="centers", percent=True, dots=True, x_ticks=ks
                )
                panels.append(el("div", el("h3", title), chart))
            body += _sweep_rows(title, rows)
    head = ["", "scorer", "centers", "top-1 %", "95% interval", "n"]
    return section(
        "sweeps",
        "Other numbers of centers, other scorers",
        el(
            "p",
            "The first centers of each category, best first, with each scorer. Good: a flat line, the result "
            "does not depend on the choice. Do not choose by these numbers: they are of the test samples.",
            class_="sub",
        ),
        figure(
            join([line_key(looks.items()), el("div", *panels, class_="panels charts")]),
            "Top-1, mean over the modalities (without text where there are others), where all were measured. "
            "The axis of centers is not to scale.",
        ),
        el("details", el("summary", "The numbers"), table("llrrrr", head, body)),
    )


def _means(rows: _Records) -> dict[tuple[str, int], float]:
    """(scorer, k) -> the mean top-1 over media modalities, where all were measured."""
    modalities = {str(r["modality"]) for r in rows}
    modalities = modalities - {"text"} or modalities
    found: dict[tuple[str, int], dict[str, float]] = {}
    for r in rows:
        if r["modality"] in modalities:
            found.setdefault((r["scorer"], r["k"]), {})[r["modality"]] = r["top1"]
    return {key: fmean(top1.values()) for key, top1 in found.items() if top1.keys() == modalities}


def _sweep_rows(title: str, rows: _Records) -> list[Html]:
    body = [el("tr", el("th", title, colspan=6), class_="group")]
    for r in sorted(rows, key=lambda r: (place(MODALITIES, r["modality"]), r["scorer"], r["k"])):
        interval = f"{percent(r['top1_low'])}–{percent(r['top1_high'])}"
        cells: list[Child] = [
            r["modality"],
            r["scorer"],
            str(r["k"]),
            percent(r["top1"]),
            interval,
            str(r["n"]),
        ]
        body.append(line("llrrrr", cells))
    return body


def _grouped(records: _Records) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    """(split, modality) -> its rows, in the order of the report."""
    keys: Iterable[tuple[str, str]] = {(r["split"], r["modality"]) for r in records}
    ordered = sorted(keys, key=lambda key: (place(SPLITS, key[0]), place(MODALITIES, key[1])))
    return {key: [r for r in records if (r["split"], r["modality"]) == key] for key in ordered}
