"""The report's page of single categories: counted as by hand from the outcome table."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from pipeline.report.categories import answered, categories_section
from trainer.inputs import open_kb


def test_shares_and_confusions_are_those_of_the_outcomes(run: Any, parsed: Any) -> None:
    """Every cell of the matrix, every share: a plain count over named.parquet, without text samples."""
    base = open_kb(run.kb)
    found = answered(base, run.root)
    assert found is not None
    assert found.splits == ("seen_among_all", "unseen_among_all")
    counts_CC = np.zeros_like(found.counts_CC)
    for row in pq.read_table(run.root / "named.parquet").to_pylist():
        wanted = (row["model"], row["anchors"]) == ("aligned", "llm_centers")
        if wanted and row["split"] in found.splits and row["modality"] != "text":
            counts_CC[base.index[row["category_id"]], base.index[row["named"]]] += 1
    assert (found.counts_CC == counts_CC).all()
    assert found.totals.sum() == counts_CC.sum() > 0
    section = categories_section(base, run.root)
    assert section is not None
    words = parsed(section).text
    for category, name in enumerate(base.names):
        n = counts_CC[category].sum()
        assert f"{100 * counts_CC[category, category] / n:.1f}% of {n}" in words
        for other, wrong in enumerate(counts_CC[category]):
            if wrong:
                assert f"{name}: {wrong} of {n} recognised as {base.names[other]}" in words
    cells = re.findall(r'class="(right|wrong)"', section)
    assert cells.count("right") == (counts_CC.diagonal() > 0).sum()
    assert cells.count("wrong") == (counts_CC > 0).sum() - (counts_CC.diagonal() > 0).sum()


def test_without_outcomes_there_is_no_section(run: Any, tmp_path: Path) -> None:
    """A run that was not evaluated has no page of categories."""
    assert categories_section(open_kb(run.kb), tmp_path) is None
