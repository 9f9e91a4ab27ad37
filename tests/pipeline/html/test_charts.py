"""The report's charts: round axes that hold every number, and marks where the numbers are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.html.charts import ChartLine, Dot, DotRow, axis_over, dot_chart, line_chart

_numbers = st.floats(-1e6, 1e6, allow_nan=False)


@given(st.lists(_numbers, min_size=1, max_size=8))
def test_an_axis_holds_every_number_between_round_ends(values: list[float]) -> None:
    """No number falls off, the ends are multiples of a step of 1, 2 or 5, and there are few steps."""
    axis = axis_over(values, start=0, end=100)
    slack = 1e-6 * max(axis.step, 1e-9)
    assert axis.low - slack <= min(values) <= max(values) <= axis.high + slack
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 8
    assert np.allclose(np.diff(ticks), axis.step)
    mantissa = axis.step / 10.0 ** np.floor(np.log10(axis.step * (1 + 1e-9)))
    assert min(abs(mantissa - one) for one in (1, 2, 5)) < 1e-6


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0.0, 1.0], ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        ([0.066, 0.0703], ["0.066", "0.067", "0.068", "0.069", "0.070", "0.071"]),
        ([-0.1, 0.2], ["-0.1", "0.0", "0.1", "0.2"]),
        ([3.0, 58.0], ["0", "20", "40", "60"]),
    ],
)
def test_ticks_have_the_decimals_that_they_need(values: list[float], labels: list[str]) -> None:
    """Labels are the shortest that tell neighbours apart, and zero has no sign."""
    axis = axis_over(values, start=0, end=100)
    assert [axis.label(tick, percent=False) for tick in axis.ticks()] == labels


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0.0, 1.0], ["0%", "20%", "40%", "60%", "80%", "100%"]),
        ([0.801, 0.806], ["80.1%", "80.2%", "80.3%", "80.4%", "80.5%", "80.6%"]),
        ([0.5, 0.5004], ["50.00%", "50.01%", "50.02%", "50.03%", "50.04%"]),
    ],
)
def test_ticks_in_percent_are_distinct(values: list[float], labels: list[str]) -> None:
    """Small steps get decimals, too."""
    axis = axis_over(values, start=0, end=100)
    assert [axis.label(tick, percent=True) for tick in axis.ticks()] == labels


def test_a_dot_stands_where_its_number_is(parsed: Any) -> None:
    """A dot's place between the axis' ends is its number's, its line's ends are those of the interval."""
    rows = [DotRow("one", "0.50", (Dot(0.5, low=0.25, high=0.75), Dot(0.1, "chance")))]
    markup = dot_chart(rows, title="t", include=(0.0, 1.0), level=1.0)
    tags = parsed(markup).tags
    [circle] = [a for tag, a in tags if tag == "circle"]
    assert float(circle["cx"]) == pytest.approx(150)
    whisker = next(a for tag, a in tags if tag == "line" and a.get("stroke") == "var(--accent)")
    assert (float(whisker["x1"]), float(whisker["x2"])) == pytest.approx((78, 222))
    level = next(a for tag, a in tags if a.get("class") == "level")
    assert level["d"].startswith("M294.0 ")
    chance = next(a for tag, a in tags if a.get("class") == "chance")
    assert float(chance["x1"]) == pytest.approx(6 + 0.1 * 288)


def test_named_ticks_are_evenly_spaced(parsed: Any) -> None:
    """With the ticks 1, 2, 16 the middle point stands in the middle."""
    line = ChartLine("l", ((1, 0.0), (2, 0.5), (16, 1.0)))
    tags = parsed(line_chart([line], title="t", x_title="x", dots=True, x_ticks=(1, 2, 16))).tags
    first, second, third = (float(a["cx"]) for tag, a in tags if tag == "circle")
    assert second - first == pytest.approx(third - second, abs=0.02)


def test_hostile_names_are_text_in_a_chart(parsed: Any) -> None:
    """Markup in a label is shown, not run."""
    markup = dot_chart([DotRow("<script>", "<b>", (Dot(0.5),))], title="<i>")
    assert "<script>" in parsed(markup).text
    assert {tag for tag, _ in parsed(markup).tags}.isdisjoint({"script", "b", "i"})
