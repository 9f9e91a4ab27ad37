"""The report's balance: every space that was measured stands beside the others, in the pipeline's order."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pipeline.report.balance import balance_section


def _row(measure: str, anchors: str, value: float) -> dict[str, Any]:
    return {"measure": measure, "anchors": anchors, "value": value}


def test_a_run_is_drawn_whole(run: Any, page: Any) -> None:
    """Every measure of the run and of its baselines stands in the table with three decimals."""
    text = page.text[page.text.index("Do vectors group by category") :]
    assert "aligned to bare names" in text
    assert "aligned to images" in text
    for row in run.metrics["balance"]:
        assert f"{row['value']:.3f}" in text


def test_spaces_stand_side_by_side_in_order(parsed: Any) -> None:
    """Without training, baselines, this run, and then an unknown space; what one lacks is a dash."""
    rows = [
        _row("modality_probe_accuracy", "tilted_space", 0.7),
        _row("modality_probe_accuracy", "aligned", 0.9),
        _row("modality_probe_accuracy", "image_centred", 1.0),
        _row("modality_probe_accuracy", "zero_shot", 0.95),
        _row("modality_probe_chance", "image_centred", 1 / 6),
        _row("modality_probe_chance", "aligned", 1 / 7),
        _row("silhouette_by_category", "image_centred", -0.001),
    ]
    markup = balance_section({"balance": rows})
    text = parsed(markup).text
    probe, silhouette = re.findall(
        r"<svg.*?<title>(.*?)</title>", re.sub(r"<svg[^>]*aria.*?</svg>", "", markup)
    )
    assert probe == ("without training 0.95; aligned to images 1.00; this run 0.90; tilted space 0.70")
    assert silhouette == "aligned to images 0.00", "no minus sign before zero"
    assert "modality probe 0.950 1.000 0.900 0.700" in text
    assert "modality probe, chance – 0.167 0.143 –" in text
    assert "so compare spaces with the same modalities" in text
    assert "Uniformity" not in text, "what no space has is not drawn"


def test_chance_and_ideal_are_marked(parsed: Any) -> None:
    """The probe's chance is a stroke in each space's row; the gap's ideal is a line at 0."""
    rows = [
        _row("modality_probe_accuracy", "aligned", 0.9),
        _row("modality_probe_chance", "aligned", 0.25),
        _row("modality_gap_mean", "aligned", 0.5),
    ]
    tags = parsed(balance_section({"balance": rows})).tags
    strokes = [float(a["x1"]) for tag, a in tags if tag == "line" and a.get("class") == "chance"]
    assert strokes[-1] == pytest.approx(6 + 0.25 * 288)
    assert [a["d"][:5] for _, a in tags if a.get("class") == "level"] == ["M6.0 "]


def test_the_spread_stays_within_the_possible(parsed: Any) -> None:
    """Mean recall with its standard deviation is drawn inside 0 and 1."""
    rows = [_row("category_r10_mean", "aligned", 0.9), _row("category_r10_spread", "aligned", 0.3)]
    tags = parsed(balance_section({"balance": rows})).tags
    whisker = next(a for tag, a in tags if tag == "line" and a.get("stroke-width") == "1.6" and "y1" in a)
    assert (float(whisker["x1"]), float(whisker["x2"])) == pytest.approx((6 + 0.6 * 288, 294))


def test_without_two_modalities_there_is_a_sentence(parsed: Any) -> None:
    """No rows, no chart."""
    assert "needs test samples of two in one space" in parsed(balance_section({})).text
