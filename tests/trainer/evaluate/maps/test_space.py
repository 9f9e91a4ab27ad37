"""The pictures of the space show the right points."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from kb_builder.tables.schemas import SAMPLES, read_rows, write_table
from trainer.align.train import train
from trainer.evaluate.maps.space import CENTER, space_maps
from trainer.localize.choose import localize
from trainer.settings import Localize, Train

MakeKb = Callable[..., Path]


def test_before_and_after_show_samples_and_centers(make_kb: MakeKb, tmp_path: Path) -> None:
    """Before: the encoder's modalities. After: those and text, and one point per category."""
    kb = make_kb()
    localize(kb, Localize(k=5))
    train(kb, tmp_path, Train(epochs=1))
    pictures = space_maps(kb, tmp_path, most=80)
    assert sorted(pictures) == ["after", "before"]
    before, after = pictures["before"], pictures["after"]
    assert {kind: before.kinds.count(kind) for kind in set(before.kinds)} == {
        "audio": 20,
        "image": 20,
        "point": 20,
    }
    assert after.kinds.count("text") == 20
    assert after.kinds.count(CENTER) == 12
    assert after.ids[-1] == "m3-s2"
    assert after.category_N[-12:].tolist() == list(range(12))
    assert after.categories[0] == "m0 s0"
    for picture in pictures.values():
        assert picture.xy_N2.shape == (len(picture.kinds), 2)
        assert len(picture.ids) == len(picture.category_N) == len(picture.kinds)
        assert np.isfinite(picture.xy_N2).all()
    test = {row["sample_id"] for row in read_rows(kb / "samples.parquet") if row["split"] == "test"}
    assert set(before.ids) <= test


def test_without_heads_the_zero_shot_space_is_drawn(make_kb: MakeKb, tmp_path: Path) -> None:
    """Zero-shot samples with centers, where there is such an encoder; else only what the encoder sees."""
    kb = make_kb()
    localize(kb, Localize(k=5))
    picture = space_maps(kb, tmp_path, most=20)["zero_shot"]
    assert {kind: picture.kinds.count(kind) for kind in set(picture.kinds)} == {
        "image": 10,
        "text": 10,
        CENTER: 12,
    }


def test_without_test_sample_there_is_no_picture(make_kb: MakeKb, tmp_path: Path) -> None:
    """There is nothing to draw."""
    kb = make_kb()
    rows = read_rows(kb / "samples.parquet")
    write_table(kb / "samples.parquet", [{**row, "split": "train"} for row in rows], SAMPLES)
    assert space_maps(kb, tmp_path) == {}
