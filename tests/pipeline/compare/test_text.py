"""A comparison as text: every number, in words, in aligned columns."""

from __future__ import annotations

from dataclasses import replace

from pipeline.compare.runs import ComparedValue, Comparison
from pipeline.compare.text import comparison_text

SAME = "no difference that these samples can show"


def _run(name: str, left_out: int = 0) -> dict[str, object]:
    return {"name": name, "folder": f"runs/{name}", "model": "zero_shot", "left_out": left_out}


def _line(measure: str, group: str, modality: str | None, run: str, p: float, verdict: str) -> ComparedValue:
    return ComparedValue(measure, group, modality, run, 0.5, 0.625, 0.125, -0.01, 0.26, p, p, 40, verdict)


COMPARISON = Comparison(
    runs=(_run("base"), _run("other", 7)),
    lines=(
        _line("top1", "seen", "image", "other", 0.0002, "better"),
        _line("top1", "seen", None, "other", 0.25, SAME),
        _line("r10_worst", "object", None, "other", 0.25, SAME),
    ),
    balance=(
        {"measure": "alignment", "run": "base", "value": 0.5},
        {"measure": "alignment", "run": "other", "value": None},
    ),
    notes=("they differ",),
    descriptions=(
        {"split": "unseen", "run": "base", "gain": 0.021, "low": -0.01, "high": 0.05, "texts": 15.26},
        {"split": "unseen", "run": "other", "gain": -0.1, "low": -0.2, "high": -0.05, "texts": 3.0},
    ),
)


def test_every_number_stands_in_its_line() -> None:
    """Runs with what was left out, notes, a block per split and level, balance side by side."""
    lines = [" ".join(line.split()) for line in comparison_text(COMPARISON).splitlines()]
    for expected in (
        "base: runs/base (zero-shot)",
        "left out: 7 of its samples, which not every run has",
        "note: they differ",
        "other beside base",
        "seen categories",
        "image 40 50.0 62.5 +12.5 [-1.0 to +26.0] <0.001 better",
        f"mean over modalities 40 50.0 62.5 +12.5 [-1.0 to +26.0] 0.250 {SAME}",
        "retrieval by object, recall@10",
        f"worst pair 40 50.0 62.5 +12.5 [-1.0 to +26.0] 0.250 {SAME}",
        "alignment 0.5000 -",
        "unseen categories: base +2.1 [-1.0 to +5.0] 15.3",
        "unseen categories: other -10.0 [-20.0 to -5.0] 3.0",
    ):
        assert expected in lines


def test_three_runs_have_a_block_each_and_say_that_p_is_corrected() -> None:
    """Every run beside the first has its own table."""
    third = tuple(replace(line, run="third") for line in COMPARISON.lines)
    words = comparison_text(
        replace(
            COMPARISON, runs=(*COMPARISON.runs, _run("third")), lines=COMPARISON.lines + third, balance=()
        )
    )
    assert "Holm-corrected" in words
    assert "Holm-corrected" not in comparison_text(COMPARISON)
    assert words.index("other beside base") < words.index("third beside base")
