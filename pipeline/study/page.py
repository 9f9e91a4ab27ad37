"""The page of an ablation study: its claims, and the effect of each part of the method.

One HTML file in the report's style: no network, no script, no other file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.files import write_text
from pipeline.html.elements import Html, counted, document, el, join, section, table
from pipeline.html.style import STYLE
from pipeline.study.ablation import ablation_section

_HOLDS = {True: "holds", False: "does not hold", None: "undecided"}
_HOLDS_CLASS = {True: "better", False: "worse", None: "sub"}


def write_study_page(study: Mapping[str, Any], target: Path) -> Path:
    """Write the page of a study to `target` and return `target`.

    `study` holds `name`, `dataset`, `seeds`, `n_samples`, `reference` (settings by key), `ablations` (name,
    question, variants) and `claims` (text, holds: true, false or null, numbers). A variant has a name, its
    settings, `is_reference`, `measures` (measure -> mean, low, high, per_seed) and `against_reference`
    (measure -> difference, low, high, verdict: better, worse or no difference). Nothing on the page depends
    on the clock.
    """
    ablations: Sequence[Mapping[str, Any]] = study["ablations"]
    anchors = [f"ablation-{number}" for number in range(1, len(ablations) + 1)]
    links = [("claims", "claims"), *zip(anchors, (one["name"] for one in ablations), strict=True)]
    links.append(("reference", "the reference"))
    header = el(
        "header",
        el("h1", f"Ablation study: {study['name']}"),
        el("p", _facts(study), class_="sub"),
        el("p", _lead(study["claims"]), class_="lead"),
        el("p", _how_to_read(study), class_="note"),
        el("nav", join([el("a", name, href=f"#{anchor}") for anchor, name in links], " ")),
    )
    parts = [
        _claims(study["claims"]),
        *(ablation_section(one, anchor) for one, anchor in zip(ablations, anchors, strict=True)),
        _reference(study["reference"]),
    ]
    body = el("body", header, el("main", *parts))
    write_text(target, document(f"{study['name']}: ablation study", body, style=STYLE))
    return target


def _facts(study: Mapping[str, Any]) -> str:
    seeds = ", ".join(str(seed) for seed in study["seeds"])
    samples = counted(study["n_samples"], "sample")
    ablations = counted(len(study["ablations"]), "ablation")
    return (
        f"Data set {study['dataset']}: {samples}. {ablations}, each variant trained and measured with "
        f"{counted(len(study['seeds']), 'seed')} ({seeds})."
    )


def _lead(claims: Sequence[Mapping[str, Any]]) -> str:
    if not claims:
        return "No claim was tested."
    counts = Counter(claim["holds"] for claim in claims)
    parts = [f"{counts[True]} {'holds' if counts[True] == 1 else 'hold'}"]
    parts.append(f"{counts[False]} {'does' if counts[False] == 1 else 'do'} not")
    if counts[None]:
        parts.append(f"{counts[None]} {'is' if counts[None] == 1 else 'are'} undecided")
    return f"Of {counted(len(claims), 'claim')} about the method, {', '.join(parts)}."


def _how_to_read(study: Mapping[str, Any]) -> str:
    compared = sum(
        len(variant.get("against_reference") or {})
        for ablation in study["ablations"]
        for variant in ablation["variants"]
    )
    words = (
        "How to read it: an ablation changes one part of the reference and nothing else. A dot is the mean "
        "over the seeds, the line through it the 95% interval, a small tick one seed. "
        "Accuracies and recalls are means over modalities. "
    )
    if len(study["seeds"]) < 2:
        words += "With one seed, the variation between seeds is not known. "
    if compared:
        words += (
            f"The page holds {counted(compared, 'comparison')}: even if no part had an effect, about "
            f"{max(1, round(compared / 20))} would be significant at 95%."
        )
    return words


def _claims(claims: Sequence[Mapping[str, Any]]) -> Html:
    rows = [
        [
            el("span", claim["text"], class_="prose"),
            el("b", _HOLDS[claim["holds"]], class_=_HOLDS_CLASS[claim["holds"]]),
            el("span", claim["numbers"], class_="prose"),
        ]
        for claim in claims
    ]
    content = table("lll", ["claim", "", "numbers"], rows) if rows else el("p", "None.")
    return section("claims", "Claims", content)


def _reference(settings: Mapping[str, Any]) -> Html:
    """The settings that every ablation starts from."""
    rows = [[el("code", key), el("code", str(value))] for key, value in flat_settings(settings)]
    content = table("ll", ["setting", "value"], rows) if rows else el("p", "Its settings are not recorded.")
    return section("reference", "The reference", content)


def flat_settings(settings: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """Nested settings by dotted key."""
    found: list[tuple[str, Any]] = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found += flat_settings(value, f"{before}{key}.")
        else:
            found.append((f"{before}{key}", value))
    return found
