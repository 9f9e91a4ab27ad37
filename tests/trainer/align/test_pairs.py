"""Which texts a train sample meets, how often, and what cannot be trained on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data.errors import TrainingError
from kb_builder.tables.schemas import DESCRIPTIONS, SAMPLES, read_rows, write_table
from trainer.align.pairs import Pairs, Span, batches, make_pairs
from trainer.align.shared import SharedSpace
from trainer.inputs import load_sample_texts, load_samples, open_kb, seen_categories
from trainer.localize.centers import load_centers
from trainer.localize.choose import localize
from trainer.records import Floats
from trainer.score.geometry import unit_rows
from trainer.settings import Localize, Train

MakeKb = Callable[..., Path]


def _pairs(kb: Path, *, text_head: bool = False) -> tuple[dict[str, Pairs], Floats, dict[str, int]]:
    localize(kb, Localize(k=3, rule="text"))
    base = open_kb(kb)
    sets, texts = load_samples(base, "samples")[0], load_sample_texts(base)[0]
    return make_pairs(sets, texts, load_centers(base), text_head=text_head)


def test_every_sample_meets_its_own_text_and_its_category(make_kb: MakeKb) -> None:
    """Own spans hold the sample's description and its object's note, center spans its category's centers."""
    kb = make_kb()
    pairs, texts_MT, counts = _pairs(kb)
    base = open_kb(kb)
    own, centers = load_sample_texts(base)[0], load_centers(base)
    notes = load_samples(base, "samples")[0]["text"]
    own_ND, notes_ND = unit_rows(own.vectors_ND), unit_rows(notes.vectors_ND)  # stored as float16
    assert sorted(pairs) == ["audio", "image", "point"]
    for p in pairs.values():
        assert set(p.samples.splits_N) == {"train"}
        for i in (0, 20, 53):
            row = own.rows[p.samples.sample_ids[i]][0]
            start = p.own.starts_N[i]
            np.testing.assert_allclose(texts_MT[start], own_ND[row], atol=1e-6)
            note = notes.sample_ids.index(p.samples.sample_ids[i].replace(p.samples.modality, "text"))
            np.testing.assert_allclose(texts_MT[start + 1], notes_ND[note], atol=1e-6)
            assert p.own.counts_N[i] == 2
            start, count = p.centers.starts_N[i], p.centers.counts_N[i]
            expected = centers.vectors_ND[centers.category_N == p.samples.category_N[i]]
            assert count == 3
            np.testing.assert_allclose(texts_MT[start : start + count], expected, atol=1e-6)
        assert np.array_equal(p.groups_N, p.samples.category_N)
    assert counts == {
        "train_samples": 162,
        "train_without_own_text": 0,
        "train_without_label": 0,
        "train_without_any_text": 0,
    }


def test_only_notes_of_the_train_split_are_read(make_kb: MakeKb) -> None:
    """A note in val or test is to be found by retrieval, not learned from."""
    kb = _with_splits(make_kb(sample_texts=False), lambda row: row["modality"] != "text")
    pairs, _, counts = _pairs(kb)
    assert not any(p.own.counts_N.any() for p in pairs.values())
    assert counts["train_without_own_text"] == 162


def test_without_labels_an_object_is_a_group(make_kb: MakeKb) -> None:
    """Unlabelled samples of one object do not repel each other, and have no centers."""
    pairs, _, counts = _pairs(make_kb(labelled=False))
    groups = {
        m: dict(zip(p.samples.object_N.tolist(), p.groups_N.tolist(), strict=True)) for m, p in pairs.items()
    }
    assert groups["audio"] == groups["image"] == groups["point"]
    assert len(set(groups["audio"].values())) == 54
    assert not any(p.centers.counts_N.any() for p in pairs.values())
    assert counts["train_without_label"] == 162


def test_without_label_and_object_every_sample_is_a_group(make_kb: MakeKb) -> None:
    """Nothing is known to be the same, so nothing is left out of the negatives."""
    kb = make_kb(labelled=False)
    rows = read_rows(kb / "samples.parquet")
    write_table(kb / "samples.parquet", [{**row, "object_id": None} for row in rows], SAMPLES)
    pairs, _, _ = _pairs(kb)
    groups = np.concatenate([p.groups_N for p in pairs.values()])
    assert len(np.unique(groups)) == len(groups) == 162


def test_samples_without_any_text_are_counted_and_left_out(make_kb: MakeKb) -> None:
    """A train sample with neither description nor label is not trained on, and the count says so."""
    kb = make_kb()
    rows = read_rows(kb / "samples.parquet")
    mute = [row for row in rows if row["split"] == "train" and row["modality"] == "audio"][:5]
    for row in mute:
        row["category_id"] = row["object_id"] = None
    write_table(kb / "samples.parquet", rows, SAMPLES)
    descriptions = kb / "descriptions" / "sample" / "part-00000.parquet"
    ids = {row["sample_id"] for row in mute}
    kept = [row for row in read_rows(descriptions) if row["sample_id"] not in ids]
    write_table(descriptions, kept, DESCRIPTIONS)
    pairs, _, counts = _pairs(kb)
    assert counts["train_without_any_text"] == counts["train_without_label"] == 5
    assert len(pairs["audio"].samples) == 49


def test_draws_are_even_and_within_the_span() -> None:
    """Each text of a span comes about equally often; an empty span says that it has none."""
    span = Span(starts_N=np.array([10, 50, 90]), counts_N=np.array([4, 0, 1]))
    rows_B = np.repeat([0, 1, 2], 4000)
    drawn_B, has_B = span.draw(rows_B, np.random.default_rng(0))
    values, counts = np.unique(drawn_B[rows_B == 0], return_counts=True)
    assert values.tolist() == [10, 11, 12, 13]
    assert (abs(counts - 1000) < 120).all()
    assert set(drawn_B[rows_B == 2]) == {90}
    assert has_B[rows_B != 1].all()
    assert not has_B[rows_B == 1].any()


@pytest.mark.parametrize(("n", "size", "steps"), [(5, 5, 3), (5, 2, 7), (3, 4, 4), (10, 3, 1)])
def test_batches_show_every_sample_before_any_twice(n: int, size: int, steps: int) -> None:
    """Read in a row, the batches are whole permutations, the last one perhaps cut."""
    flat = batches(n, size, steps, np.random.default_rng(0)).reshape(-1)
    assert len(flat) == size * steps
    for start in range(0, len(flat), n):
        part = flat[start : start + n].tolist()
        assert len(set(part)) == len(part)
        assert set(part) <= set(range(n))


def _with_splits(kb: Path, keep: Callable[[dict[str, object]], bool]) -> Path:
    rows = read_rows(kb / "samples.parquet")
    write_table(
        kb / "samples.parquet", [row if keep(row) else {**row, "split": "test"} for row in rows], SAMPLES
    )
    return kb


def test_no_train_sample_is_refused(make_kb: MakeKb) -> None:
    """Without train samples there is nothing to train on, and the message says what to do."""
    kb = _with_splits(make_kb(), lambda row: False)
    with pytest.raises(TrainingError, match=r"no encoded train sample.*train.enabled = false"):
        _pairs(kb)


def test_text_alone_needs_a_text_head(make_kb: MakeKb) -> None:
    """Notes are trained on their categories' centers, never on themselves."""
    kb = _with_splits(make_kb(), lambda row: row["modality"] == "text")
    with pytest.raises(
        TrainingError, match=r"besides those of modality text, which train\.text_head = false"
    ):
        _pairs(kb)
    pairs, _, counts = _pairs(kb, text_head=True)
    assert list(pairs) == ["text"]
    assert not pairs["text"].own.counts_N.any()
    assert (pairs["text"].centers.counts_N == 3).all()
    assert counts["train_without_own_text"] == counts["train_samples"] == 54


def test_texts_are_placed_in_the_shared_space(make_kb: MakeKb) -> None:
    """Centers as they are given, texts about samples without the mean of their modality's; by coordinates."""
    kb = make_kb()
    localize(kb, Localize(k=3, rule="text"))
    base = open_kb(kb)
    sets, texts, centers = load_samples(base, "samples")[0], load_sample_texts(base)[0], load_centers(base)
    space = SharedSpace.of(centers, seen_categories(base), Train(subspace=0.9))
    represented = space.represent(centers)
    pairs, texts_MR, _ = make_pairs(sets, texts, represented, space)
    assert space.basis_RT is not None
    assert texts_MR.shape[1] == len(space.basis_RT) < 24
    found = space.from_coordinates(texts_MR)
    np.testing.assert_allclose(found[: len(centers.row_ids)], represented.vectors_ND, atol=1e-6)
    audio = pairs["audio"].own
    own_ND = texts.vectors_ND[[texts.rows[name][0] for name in pairs["audio"].samples.sample_ids]]
    notes = sets["text"]
    of_object = dict(zip(notes.object_N.tolist(), notes.vectors_ND, strict=True))
    both_N2D = np.stack(
        [own_ND, np.stack([of_object[o] for o in pairs["audio"].samples.object_N.tolist()])], axis=1
    )
    off = (both_N2D - both_N2D.reshape(-1, 24).mean(axis=0)).astype(np.float64).reshape(-1, 24)
    off = off @ space.basis_RT.T @ space.basis_RT
    expected = off / np.linalg.norm(off, axis=1, keepdims=True)
    np.testing.assert_allclose(found[audio.starts_N[0] :][: len(expected)], expected, atol=1e-5)


def test_no_text_for_any_sample_is_refused(make_kb: MakeKb) -> None:
    """Neither descriptions nor labels: nothing to be drawn to."""
    kb = _with_splits(make_kb(labelled=False, sample_texts=False), lambda row: row["modality"] != "text")
    with pytest.raises(TrainingError, match="none of the 162 train samples has a description or a category"):
        _pairs(kb)


def test_a_single_category_is_refused(make_kb: MakeKb) -> None:
    """With one category every other sample is masked: there is nothing to contrast."""
    kb = _with_splits(make_kb(), lambda row: row["category_id"] == "m0-s1")
    with pytest.raises(TrainingError, match="every train sample shows the same category"):
        _pairs(kb)
