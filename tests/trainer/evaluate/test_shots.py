"""Few-shot knowledge bases know a few train samples of each category, the same objects in every modality."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from trainer.evaluate.few_shot import with_shots
from trainer.inputs import open_kb, seen_categories


@pytest.mark.parametrize("shots", [1, 2, 4, 100])
def test_each_category_keeps_so_many_of_each_modality(planted_kb: Path, shots: int) -> None:
    """At most `shots` labelled train samples; val and test are all there; categories stay seen."""
    base = open_kb(planted_kb)
    few = with_shots(base, shots, seed=3)
    train = [row for row in few.samples if row["split"] == "train"]
    counts = Counter((row["modality"], row["category_id"]) for row in train)
    assert set(counts.values()) == {min(shots, 6)}
    assert [row for row in few.samples if row["split"] != "train"] == [
        row for row in base.samples if row["split"] != "train"
    ]
    assert (seen_categories(few) == seen_categories(base)).all()
    objects = {m: {row["object_id"] for row in train if row["modality"] == m} for m in ("image", "audio")}
    assert objects["image"] == objects["audio"]


def test_the_draw_is_that_of_the_seed(planted_kb: Path) -> None:
    """The same seed keeps the same samples, another seed others; more shots keep what fewer kept."""
    base = open_kb(planted_kb)
    one, same, other = (with_shots(base, 2, seed=seed).samples for seed in (1, 1, 2))
    assert one == same != other
    more = with_shots(base, 4, seed=1).samples
    assert {row["sample_id"] for row in one} < {row["sample_id"] for row in more}
