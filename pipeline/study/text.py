"""Print a study as text: one table per ablation, the verdicts, and the claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from data.show import aligned, visible
from pipeline.study.ablation import MEASURES, measure_names, variant_title

_MARKS = {"better": "+", "worse": "-", "no difference": " "}
_HOLDS = {True: "holds", False: "does not hold", None: "undecided"}


def study_text(study: Mapping[str, Any]) -> str:
    """The study as lines: a cell is mean [95% interval], with + or - for a significant difference."""
    seeds, compared = len(study["seeds"]), 0
    lines = [
        f"{study['name']}: {study['dataset']}, {study['n_samples']:,} test samples, {seeds} seeds; % with 95%"
        " intervals over seeds and objects; + better and - worse than the reference (*), paired"
    ]
    for ablation in study["ablations"]:
        lines += ["", f"{ablation['name']}: {ablation['question']}"]
        names = measure_names(ablation["variants"])
        rows = [["", *(MEASURES[name].short if name in MEASURES else name for name in names)]]
        for variant in ablation["variants"]:
            compared += len(variant.get("against_reference", {}))
            star = "*" if variant["is_reference"] else " "
            if variant["error"]:
                lines.append(f"  {variant['name']}: {variant['error']}")
            else:
                rows.append([f"{star} {variant_title(variant)}", *(_cell(variant, name) for name in names)])
        lines += aligned(rows, indent="  ")
        lines += _verdicts(ablation["variants"])
    lines += ["", "claims"]
    lines += [f"  {_HOLDS[each['holds']]}: {each['text']} ({each['numbers']})" for each in study["claims"]]
    lines += [
        "",
        f"{compared:,} comparisons: if there were no difference at all, about {round(compared / 20):,} would"
        " still be marked.",
    ]
    return "\n".join(map(visible, lines))


def _cell(variant: Mapping[str, Any], measure: str) -> str:
    found = variant["measures"].get(measure)
    if found is None:
        return "–"
    verdict = variant.get("against_reference", {}).get(measure, {}).get("verdict", "no difference")
    scale = 100 if measure not in MEASURES or MEASURES[measure].share else 1
    digits = 1 if scale == 100 else 3
    text = f"{scale * found['mean']:.{digits}f}"
    if found["low"] is not None:
        text += f" [{scale * found['low']:.{digits}f}, {scale * found['high']:.{digits}f}]"
    return text + _MARKS[verdict]


def _verdicts(variants: Sequence[Mapping[str, Any]]) -> list[str]:
    """The verdict on each variant in words; none for one that failed."""
    lines = []
    for variant in variants:
        against = variant.get("against_reference")
        if not against:
            continue
        found_in = [
            f"{word} in " + ", ".join(MEASURES[m].short if m in MEASURES else m for m in found)
            for word in ("better", "worse")
            if (found := [m for m, each in against.items() if each["verdict"] == word])
        ]
        lines.append(
            f"    {variant['name']}: {'; '.join(found_in) or 'no difference that this study can show'}"
        )
    return lines
