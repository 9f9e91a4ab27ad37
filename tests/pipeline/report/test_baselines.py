"""The report's probe, few-shot and sweep pages: every number, honest means, nothing without measurement."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pipeline.report.baselines import few_shot_section, probe_section, sweeps_section


def _charts(markup: str) -> list[str]:
    """The titles of the charts of a section: what each shows, in words."""
    return re.findall(r"<svg[^>]*role[^>]*><title>(.*?)</title>", markup)


def test_the_probe_stands_beside_the_heads(record: Any, parsed: Any) -> None:
    """Only where both were measured; the mean leaves text out; the model is named."""
    metrics = {
        "recognition": [
            record("image", "seen", "llm_centers", 0.8),
            record("audio", "seen", "llm_centers", 0.6),
            record("text", "seen", "llm_centers", 0.1),
            record("event", "seen", "llm_centers", 0.3),
            record("image", "unseen", "llm_centers", 0.5),
        ],
        "probe": [
            record("image", "seen", "linear_probe", 0.9, model="probe"),
            record("audio", "seen", "linear_probe", 0.5, model="probe"),
            record("text", "seen", "linear_probe", 0.2, model="probe"),
        ],
    }
    markup = probe_section(metrics)
    assert markup is not None
    assert _charts(markup) == [
        "image, seen categories: aligned heads, LLM centers 80.0%; linear probe 90.0%",
        "text, seen categories: aligned heads, LLM centers 10.0%; linear probe 20.0%",
        "audio, seen categories: aligned heads, LLM centers 60.0%; linear probe 50.0%",
    ]
    words = "On seen categories the LLM centers reach 70.0%, the probe 70.0% (mean of 2 modalities)."
    assert words in parsed(markup).text


def _shot(method: str, shots: int, top1: float, **other: Any) -> dict[str, Any]:
    row = {
        "method": method,
        "shots": shots,
        "modality": "image",
        "split": "seen",
        "top1": top1,
        "top1_low": top1 - 0.1,
        "top1_high": top1 + 0.1,
        "n": 72,
        "n_train": 18 * shots,
    }
    return {**row, **other}


def test_few_shot_lines_go_by_shots(parsed: Any) -> None:
    """Points come in the order of shots, each with its interval; one chart a modality."""
    rows = [
        _shot("heads", 16, 0.7),
        _shot("heads", 1, 0.5),
        _shot("probe", 1, 0.2),
        _shot("probe", 16, 0.8),
        _shot("probe", 1, 0.3, modality="audio"),
        _shot("<b>", 1, 0.3, modality="audio"),
    ]
    markup = few_shot_section({"few_shot": rows})
    assert markup is not None
    image, audio = _charts(markup)
    assert (
        image == "image, seen categories: heads 50.0% at 1, 70.0% at 16; linear probe 20.0% at 1, 80.0% at 16"
    )
    assert audio == "audio, seen categories: linear probe 30.0% at 1; &lt;b&gt; 30.0% at 1"
    text = parsed(markup).text
    assert "image, seen categories linear probe 16 288 80.0 70.0–90.0 72" in text
    lines = re.findall(r'<line x1="[\d.]+" x2="[\d.]+" y1="([\d.]+)" y2="([\d.]+)" stroke="', markup)
    whiskers = [(low, high) for low, high in lines if low != high]  # the key's lines lie flat
    assert len(whiskers) == len(rows)
    heights = {round(float(low) - float(high), 1) for low, high in whiskers[:4]}
    assert max(heights) - min(heights) <= 0.1, "equal intervals are equally high"


def test_sweeps_are_means_over_whole_sets(record: Any, parsed: Any) -> None:
    """A point that a modality lacks is not drawn; text is left out; every row is in the table."""
    rows = [
        record(modality, "seen", "llm_centers", top1, k=k, scorer=scorer)
        for modality, k, scorer, top1 in (
            ("image", 1, "nearest", 0.4),
            ("audio", 1, "nearest", 0.2),
            ("text", 1, "nearest", 0.9),
            ("image", 8, "nearest", 0.6),
            ("audio", 8, "nearest", 0.5),
            ("image", 8, "mean", 0.7),
        )
    ]
    markup = sweeps_section({"sweeps": [*rows, record("image", "seen", "class_name", 0.9, k=1)]})
    assert markup is not None
    assert _charts(markup) == ["seen categories: nearest 30.0% at 1, 55.0% at 8"]
    text = parsed(markup).text
    for row in rows:
        assert f"{row['modality']} {row['scorer']} {row['k']} {100 * row['top1']:.1f}" in text
    assert "class_name" not in text


@pytest.mark.parametrize("made", [probe_section, few_shot_section, sweeps_section])
def test_what_was_not_measured_has_no_page(made: Any) -> None:
    """Metrics of a run without these stages give nothing, not an empty chart."""
    assert made({}) is None
