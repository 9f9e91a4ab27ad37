"""docs/benchmarks.md says what the registry says."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.benchmarks import BENCHMARKS

DOC = " ".join((Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8").split())


@pytest.mark.parametrize("name", BENCHMARKS)
def test_each_benchmark_is_documented_as_it_is(name: str) -> None:
    """Home, licence, rules, command and the paper's four numbers stand there word for word."""
    benchmark = BENCHMARKS[name]
    for said in (
        benchmark.title,
        benchmark.home,
        benchmark.licence,
        benchmark.split_rule,
        benchmark.metric_rule,
    ):
        assert said in DOC
    assert f"unibind reproduce {name} --data" in DOC
    paper = benchmark.paper
    numbers = (
        paper.zero_shot_base,
        paper.zero_shot_unibind,
        paper.fine_tuned_probe,
        paper.fine_tuned_unibind,
    )
    row = " | ".join("–" if number is None else f"{number:.2f}" for number in numbers)
    assert f"| {row} |" in DOC
