"""The report's mistakes: counted as by hand, with pictures where the files are still there."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kb_builder.tables.schemas import CENTERS, read_rows, write_table
from pipeline.report.mistakes import mistakes_section, worst_confusions
from pipeline.report.page import unified_centers, unified_samples, write_report
from trainer.inputs import open_kb


def test_confusions_are_counted_as_by_hand(run: Any) -> None:
    """The commonest confusions equal a plain recount of nearest centers, sample by sample."""
    base = open_kb(run.kb)
    space = unified_samples(base, run.root)
    centers = unified_centers(base, run.root)
    split, confusions = worst_confusions(base, space, centers, labels_used=True)
    assert split == "unseen"
    unseen = [base.index[c] for c in sorted(run.unseen)]
    recount: Counter[tuple[str, str]] = Counter()
    for samples in space.values():
        for row in np.flatnonzero(np.isin(samples.category_N, unseen)):
            best = {
                c: float(
                    np.round(centers.vectors_ND[centers.category_N == c] @ samples.vectors_ND[row], 6).max()
                )
                for c in unseen
            }
            named = max(unseen, key=lambda c: best[c])
            if named != samples.category_N[row]:
                recount[base.names[samples.category_N[row]], base.names[named]] += 1
    assert recount, "the planted world must have mistakes, or this test says nothing"
    assert {(one.true, one.named): one.count for one in confusions} == dict(recount)
    assert all(one.of == 36 for one in confusions)


def test_a_sample_that_is_gone_is_named_and_the_page_is_whole(run: Any, tmp_path: Path, parsed: Any) -> None:
    """A file removed since the run costs its picture, not the report."""
    target = write_report(
        title="moved",
        run=run.root,
        kb=run.kb,
        data_root=tmp_path / "nowhere",
        metrics=run.metrics,
        target=tmp_path / "report.html",
    )
    page = parsed(target.read_text(encoding="utf-8"))
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert ".png" in page.text[page.text.index("Mistakes") :]


def test_both_texts_are_the_nearest_of_their_category(run: Any, page: Any) -> None:
    """Under each example stand the best center of the wrong and of the right category, found by hand."""
    base = open_kb(run.kb)
    space = unified_samples(base, run.root)
    centers = unified_centers(base, run.root)
    _, confusions = worst_confusions(base, space, centers, labels_used=True)
    texts = {row["row_id"]: row["text"] for row in read_rows(run.kb / "descriptions" / "category")}
    section = page.text[page.text.index("The most frequent confusions") :]
    examples = [(pair, mistake) for pair in confusions for mistake in pair.examples]
    assert examples
    for pair, mistake in examples:
        samples = space[mistake.modality]
        vector = samples.vectors_ND[samples.sample_ids.index(mistake.sample_id)].astype(float)
        cosines = centers.vectors_ND.astype(float) @ vector
        for name, row_id, value in (
            (pair.named, mistake.row_id, mistake.score),
            (pair.true, mistake.own_row_id, mistake.own_score),
        ):
            own = centers.category_N == base.names.index(name)
            best = int(np.argmax(np.where(own, cosines, -np.inf)))
            assert (row_id, value) == (centers.row_ids[best], pytest.approx(cosines[best], abs=1e-6))
            assert texts[row_id] in section
        assert mistake.own_score is not None
        assert mistake.own_score <= mistake.score


def test_a_category_without_centers_is_said_to_have_none(run: Any, tmp_path: Path, parsed: Any) -> None:
    """A sample whose own category has no center is a mistake with one text, and the page says why."""
    kb = tmp_path / "kb"
    shutil.copytree(run.kb, kb)
    rows = [row for row in read_rows(kb / "centers.parquet") if row["category_id"] != "c"]
    write_table(kb / "centers.parquet", rows, CENTERS)
    base = open_kb(kb)
    space = unified_samples(base, run.root)
    centers = unified_centers(base, run.root)
    section = mistakes_section(base, run.root / "media", space, centers, labels_used=True)
    assert (
        f"true category {run.names['c']}, which has no center, so it is never recognised"
        in parsed(section).text
    )
    _, confusions = worst_confusions(base, space, centers, labels_used=True)
    assert all(one.true == run.names["c"] for one in confusions)
    assert sum(one.count for one in confusions) == 36
