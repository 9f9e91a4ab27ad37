"""The report's sections on calibration, stages and trained parameters.

All of it is read from `metrics`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.accuracies import (
    split_title,
)
from pipeline.html.elements import Html, el, section, table

_MODELS = {"aligned": "aligned heads", "zero_shot": "zero-shot", "mean": "mean of both"}


def calibration_section(metrics: Mapping[str, Any]) -> Html:
    """The calibration of probabilities, before and after fitting a temperature."""
    found = metrics.get("calibration", ())
    if not found:
        words = "Not measured: it needs labelled samples in the val split, to fit on, and in the test split."
        return section("calibration", "Calibration", el("p", words))
    rows = [
        [
            row["modality"],
            _MODELS[row["model"]],
            el("span", split_title(row["split"]), class_="prose"),
            _decimals(row["temperature"], 4),
            *(_decimals(row[name], 3) for name in ("nll_before", "nll", "ece_before", "ece")),
            str(row["n_fit"]),
            str(row["n"]),
        ]
        for row in found
    ]
    words = (
        "A probability is the softmax of the categories’ scores divided by a temperature, which is fitted on "
        "the val split for each modality and model; `unibind predict` uses it. NLL is the mean negative "
        "log-likelihood, ECE the expected calibration error (15 bins): the mean difference between "
        "confidence and accuracy. Before: temperature 1. A temperature fitted on trained categories may "
        "make predictions of others overconfident: compare the rows. No temperature: the val samples were "
        "all right, or no better than chance."
    )
    head = ["", "model", "samples", "temperature", "NLL before", "NLL", "ECE before", "ECE", "n val", "n"]
    return section(
        "calibration", "Calibration", el("p", words, class_="sub"), table("lllrrrrrrr", head, rows)
    )


def _decimals(value: float | None, places: int) -> str:
    return "–" if value is None else f"{value:.{places}f}"


def stages_section(metrics: Mapping[str, Any]) -> Html:
    """The stages that ran, and their times."""
    stages = metrics.get("stages", ())
    longest = max((stage["seconds"] for stage in stages), default=0.0) or 1.0
    rows = [
        [
            stage["name"],
            f"{stage['seconds']:.1f}",
            el("span", class_="bar" + (" rest" if stage["skipped"] else ""), style=_share(stage, longest)),
            "skipped: nothing had changed; time of its last run" if stage["skipped"] else "",
        ]
        for stage in stages
    ]
    total = sum(stage["seconds"] for stage in stages if not stage["skipped"])
    work = (
        f"{total:,.1f} seconds of work"
        if any(not stage["skipped"] for stage in stages)
        else "every stage was skipped"
    )
    facts = [f"Data set {metrics['dataset']}"] if "dataset" in metrics else []
    facts += [f"seed {metrics['seed']}"] if "seed" in metrics else []
    return section(
        "stages",
        "Stages",
        el("p", f"{', '.join([*facts, work])}.", class_="sub"),
        table("lrll", ["stage", "seconds", "", ""], rows) if rows else "",
    )


def parameters_section(metrics: Mapping[str, Any]) -> Html:
    """The numbers of trained and of frozen parameters."""
    rows = [
        [
            row["modality"],
            f"{row['head']:,}",
            f"{row['encoder']:,}" if row["encoder"] else "unknown",
            f"{100 * row['ratio']:.1f}%" if row["ratio"] is not None else "–",
        ]
        for row in metrics.get("parameters", ())
    ]
    if not rows:
        return section("parameters", "Parameters", el("p", "Nothing was trained."))
    words = "Each modality has one linear head into the text space; the encoders stay frozen."
    head = ["modality", "trained", "frozen encoder", "trained share"]
    return section("parameters", "Parameters", el("p", words), table("lrrr", head, rows))


def _share(stage: Mapping[str, Any], longest: float) -> str:
    return f"width:{12 * stage['seconds'] / longest:.2f}rem"
