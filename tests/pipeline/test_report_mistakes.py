"""The report's mistakes: counted as by hand, with pictures where the files are still there."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.report import unified_samples, write_report
from pipeline.report_mistakes import worst_confusions
from trainer.centers import load_centers
from trainer.inputs import open_kb


def test_confusions_are_counted_as_by_hand(run: Any) -> None:
    """The commonest confusions equal a plain recount of nearest centers, sample by sample."""
    base = open_kb(run.kb)
    space = unified_samples(base, run.root)
    split, confusions = worst_confusions(base, space, labels_used=True)
    assert split == "unseen"
    centers = load_centers(base)
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
