"""Which samples guide localization, and where each category's point."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data.errors import KnowledgeBaseError
from kb_builder.store.table import read_vectors, write_vectors
from kb_builder.tables.schemas import read_rows
from trainer.inputs import open_kb
from trainer.localize.choose import group_guides, guiding_samples

MakeKb = Callable[..., Path]
ZERO_SHOT = Path("embeddings/zs-0/samples")


@pytest.mark.parametrize(
    "splits", [("train",), ("val",), ("train", "val"), ("train", "val", "test"), ()], ids=str
)
def test_only_samples_of_the_named_splits_are_seen(planted_kb: Path, splits: tuple[str, ...]) -> None:
    """The images of those splits with their categories; samples of the modality text are left out."""
    kb = open_kb(planted_kb)
    vectors_MD, category_M = guiding_samples(kb, 24, splits)
    stored = read_vectors(planted_kb / ZERO_SHOT)
    rows = sorted(read_rows(planted_kb / "samples.parquet"), key=lambda row: str(row["sample_id"]))
    shown = [row for row in rows if row["modality"] == "image" and row["split"] in splits]
    assert [kb.categories[category] for category in category_M] == [row["category_id"] for row in shown]
    expected = [stored.vectors_ND[stored.ids.index(row["sample_id"])] for row in shown]
    assert np.array_equal(vectors_MD, np.reshape(expected, (-1, 24)))


def test_samples_without_direction_are_not_seen(make_kb: MakeKb) -> None:
    """A zero vector points nowhere."""
    kb = make_kb()
    stored = read_vectors(kb / ZERO_SHOT)
    stored.vectors_ND[::2] = 0
    write_vectors(kb / ZERO_SHOT, ids=stored.ids, groups=stored.groups, vectors_ND=stored.vectors_ND)
    vectors_MD, category_M = guiding_samples(open_kb(kb), 24, ("train", "val", "test"))
    assert len(vectors_MD) == len(category_M) == len(stored.ids) / 2
    assert vectors_MD.any(axis=1).all()


def test_without_a_zero_shot_encoder_nothing_is_seen(make_kb: MakeKb) -> None:
    """There is no space that samples and texts share, which is no error."""
    vectors_MD, category_M = guiding_samples(open_kb(make_kb(zero_shot=False)), 24, ("train",))
    assert vectors_MD.shape == (0, 24)
    assert category_M.shape == (0,)


def test_samples_of_another_space_are_refused(planted_kb: Path) -> None:
    """Texts of another length cannot be compared with the samples."""
    with pytest.raises(KnowledgeBaseError, match="zs-0 gives 24 dimensions and the texts have 7"):
        guiding_samples(open_kb(planted_kb), 7, ("train",))


def test_guides_are_grouped_by_category() -> None:
    """In their order, each category with its unit mean; what has no category, or cancels out, guides none."""
    vectors_MD = np.array([[1, 0], [0, 1], [0, -2], [9, 9], [0, 2], [0, 1]], dtype=np.float32)
    guides = group_guides(vectors_MD, np.array([2, 0, 3, -1, 3, 2]), 5, guided_by="train+val")
    assert guides.guided_by == "train+val"
    assert [guides.of(category).tolist() for category in range(5)] == [
        [[0, 1]],
        [],
        [[1, 0], [0, 1]],
        [[0, -2], [0, 2]],
        [],
    ]
    half = np.sqrt(0.5)
    np.testing.assert_allclose(guides.directions_CD, [[0, 1], [0, 0], [half, half], [0, 0], [0, 0]])
