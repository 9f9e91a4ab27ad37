"""The table: means over folds, what is missing, and how the bad samples count."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.benchmarks import BENCHMARKS
from pipeline.accuracies import Accuracy
from pipeline.reproduce.result import Outcome, Result


def accuracy(top1: float) -> Accuracy:
    return Accuracy(top1=top1, low=top1 - 0.05, high=top1 + 0.05, k=50)


def outcome(fold: int | None, top1: float, bad: int = 0) -> Outcome:
    return Outcome(
        fold=fold,
        n_test=400,
        n_categories=50,
        n=400 - bad,
        quarantined={"test": bad} if bad else {},
        names=accuracy(top1 - 0.1),
        zero_shot=accuracy(top1),
        probe=None,
        fine_tuned=None,
    )


def result(*outcomes: Outcome) -> Result:
    return Result(BENCHMARKS["esc-50"], outcomes, "clap:x", "openai gpt", 50, ("fold 1 of 5 alone",))


def test_one_fold_has_an_interval_and_several_a_deviation(tmp_path: Path) -> None:
    """Mean and sample deviation are NumPy's."""
    values = [0.61, 0.7, 0.66, 0.72, 0.69]
    many = result(*(outcome(fold, value) for fold, value in enumerate(values, start=1)))
    line = many.lines()[1]
    assert line.ours == pytest.approx(np.mean(values))
    assert line.deviation == pytest.approx(np.std(values, ddof=1))
    assert line.cells() == ["zero-shot", "UniBind", "67.6 ± 4.3", "71.70"]
    assert "mean of 5 folds ± deviation" in many.to_text()
    one = result(outcome(1, 0.61)).lines()[1]
    assert one.cells()[2] == "61.0 [56.0–66.0]"
    many.write(tmp_path / "result.json")
    written = json.loads((tmp_path / "result.json").read_text())
    assert written["rows"][1]["paper"] == 71.70
    assert len(written["outcomes"]) == 5


def test_a_fold_without_a_number_leaves_no_mean() -> None:
    """A mean over some of the folds would mislead."""
    lame = replace(outcome(2, 0.7), zero_shot=None)
    assert result(outcome(1, 0.6), lame).lines()[1].ours is None
    assert len(result(outcome(1, 0.6)).lines()) == 2  # nothing was trained
    trained = replace(outcome(1, 0.6), probe=accuracy(0.8), fine_tuned=accuracy(0.85))
    assert [line.paper for line in result(trained).lines()] == [66.90, 71.70, 83.40, 84.01]


def test_the_papers_numbers_are_bracketed_where_ours_are_not_comparable(tmp_path: Path) -> None:
    """The reasons stand beside the table and in the JSON; without one nothing is bracketed."""
    other = replace(result(outcome(1, 0.6)), apart=("the encoder is clap:x, not the paper's", "a part alone"))
    told = other.to_text()
    assert "(the paper)" in told
    assert "(71.70)" in told
    assert "no comparison with the paper: the encoder is clap:x, not the paper's; a part alone" in told
    other.write(tmp_path / "result.json")
    written = json.loads((tmp_path / "result.json").read_text())
    assert written["comparable"] is False
    assert written["not_comparable_since"] == list(other.apart)
    plain = result(outcome(1, 0.6)).to_text()
    assert "(71.70)" not in plain
    assert "no comparison" not in plain
    dash = replace(
        other, benchmark=BENCHMARKS["llvip"], outcomes=(replace(outcome(None, 0.6), probe=accuracy(0.8)),)
    )
    assert dash.lines()[-1].cells(comparable=False)[-1] == "–"


def test_bad_samples_are_counted_and_weighed() -> None:
    """The table says over how many samples it speaks, and what the bad ones would cost as errors."""
    told = result(outcome(1, 0.6, bad=4)).to_text()
    assert "over 396 of 400 test samples; quarantined: 4" in told
    assert "multiply each number by 0.9900" in told
    assert "MARKED: fold 1 of 5 alone" in told
    lost = replace(outcome(1, 0.6), without_train=3)
    assert "3 not scored" in result(lost).to_text()
