"""Tables and vectors are joined by id, and what has no counterpart is counted."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.errors import KnowledgeBaseError
from kb_builder.store.table import part_paths, read_vectors, write_vectors
from kb_builder.tables.schemas import DESCRIPTIONS, SAMPLES, read_rows, write_table
from trainer.inputs import (
    count_rejects,
    load_controls,
    load_sample_texts,
    load_samples,
    open_category_texts,
    open_kb,
    seen_categories,
)

MakeKb = Callable[..., Path]


def _drop_vectors(folder: Path, ids: set[str]) -> None:
    """Write a store folder again without some ids."""
    vectors = read_vectors(folder)
    keep = [row for row, name in enumerate(vectors.ids) if name not in ids]
    write_vectors(
        folder,
        ids=[vectors.ids[row] for row in keep],
        groups=[vectors.groups[row] for row in keep],
        vectors_ND=vectors.vectors_ND[keep],
    )


def test_descriptions_meet_their_vectors(planted_kb: Path) -> None:
    """Each category's `ok` rows and no others, ids ascending, each with its own vector."""
    kb = open_kb(planted_kb)
    texts = open_category_texts(kb)
    rows = [row for row in read_rows(planted_kb / "descriptions" / "category") if row["status"] == "ok"]
    stored = read_vectors(planted_kb / "embeddings" / "txt-0" / "category_texts")
    vectors = dict(zip(stored.ids, stored.vectors_ND, strict=True))
    for number, category in enumerate(kb.categories):
        ids, vectors_ND = texts.read(number)
        assert ids == sorted(row["row_id"] for row in rows if row["category_id"] == category)
        assert np.array_equal(vectors_ND, [vectors[name] for name in ids])
    assert len(texts.row_ids) == len(rows) == 96


def test_a_description_without_a_vector_is_left_out(make_kb: MakeKb) -> None:
    """A text that was never encoded is not read, nor is a category of such; their rows are still known."""
    kb = make_kb()
    texts = open_category_texts(open_kb(kb))
    (first, *others), gone = texts.read(0)[0], texts.read(5)[0]
    _drop_vectors(kb / "embeddings" / "txt-0" / "category_texts", {first, *gone})
    texts = open_category_texts(open_kb(kb))
    assert texts.read(0)[0] == others
    assert texts.read(5)[0] == []
    assert texts.read(5)[1].shape == (0, 24)
    assert len(texts.row_ids) == 96


def test_a_vector_whose_text_was_turned_away_is_stale(make_kb: MakeKb) -> None:
    """A row that is no longer `ok`, or whose category is gone, is not used though its vector is stored."""
    kb = make_kb()
    path = kb / "descriptions" / "category" / "part-00000.parquet"
    rows = read_rows(path)
    rows[0]["status"] = "refusal"
    rows[1]["category_id"] = "gone"
    write_table(path, rows, DESCRIPTIONS)
    texts = open_category_texts(open_kb(kb))
    assert set(texts.read(0)[0]) == {row["row_id"] for row in rows[2:8]}
    assert len(texts.row_ids) == 94


def test_without_descriptions_there_is_nothing_to_open(make_kb: MakeKb) -> None:
    """No table of descriptions, and no vectors, each name the command that makes them."""
    kb = make_kb()
    vectors = kb / "embeddings" / "txt-0" / "category_texts"
    vectors.rename(vectors.with_name("elsewhere"))
    with pytest.raises(KnowledgeBaseError, match=r"category_texts: no vectors here.*`unibind encode`"):
        open_category_texts(open_kb(kb))
    (kb / "descriptions" / "category" / "part-00000.parquet").unlink()
    with pytest.raises(KnowledgeBaseError, match=r"category: empty; run `unibind describe`"):
        open_category_texts(open_kb(kb))


def test_controls_come_by_name_and_rank(planted_kb: Path) -> None:
    """Each control has its texts sorted by category and rank, rank 10 after rank 9 and not after rank 1."""
    controls = load_controls(open_kb(planted_kb))
    assert list(controls) == ["class_name", "name_free", "random_words", "templates"]
    assert controls["class_name"].counts().tolist() == [1] * 12
    assert controls["templates"].row_ids[:10] == tuple(f"templates-m0-s0-{rank}" for rank in range(10))


def test_samples_come_by_modality_with_labels_and_objects(planted_kb: Path) -> None:
    """Every sample is there, text from the text encoder, one object number for all modalities of a thing."""
    kb = open_kb(planted_kb)
    sets, missing = load_samples(kb, "samples")
    assert {modality: s.vectors_ND.shape for modality, s in sets.items()} == {
        "audio": (120, 40),
        "image": (120, 40),
        "point": (120, 40),
        "text": (120, 24),
    }
    assert missing == {}
    image = sets["image"]
    assert [kb.categories[c] for c in image.category_N] == [s.split("-0")[0] for s in image.sample_ids]
    assert np.array_equal(image.object_N, sets["audio"].object_N)
    assert len(set(image.object_N.tolist())) == 120


def test_the_zero_shot_encoder_shows_only_what_it_covers(planted_kb: Path) -> None:
    """The zero-shot space holds its own modality and text; the others are counted as missing."""
    sets, missing = load_samples(open_kb(planted_kb), "zero_shot")
    assert sorted(sets) == ["image", "text"]
    assert missing == {"audio": 120, "point": 120}


def test_a_sample_without_a_vector_is_counted(make_kb: MakeKb) -> None:
    """A sample that was not encoded is counted under its modality."""
    kb = make_kb()
    _drop_vectors(kb / "embeddings" / "img-0" / "samples", {"m0-s0-00-image", "m0-s0-01-image"})
    sets, missing = load_samples(open_kb(kb), "samples")
    assert len(sets["image"]) == 118
    assert missing == {"image": 2}


def test_unlabelled_samples_have_category_minus_one(make_kb: MakeKb) -> None:
    """A sample without a category stays, without a label, and makes no category seen."""
    kb = open_kb(make_kb(labelled=False))
    sets, _ = load_samples(kb, "samples")
    assert (sets["image"].category_N == -1).all()
    assert not seen_categories(kb).any()


def test_seen_are_the_categories_with_train_samples(planted_kb: Path) -> None:
    """The three held-out categories are unseen."""
    kb = open_kb(planted_kb)
    unseen = [c for c, seen in zip(kb.categories, seen_categories(kb), strict=True) if not seen]
    assert unseen == ["m0-s0", "m1-s1", "m2-s2"]


def test_sample_texts_know_their_samples(planted_kb: Path) -> None:
    """A sample's description vectors are found under its id."""
    texts, missing = load_sample_texts(open_kb(planted_kb))
    stored = read_vectors(planted_kb / "embeddings" / "txt-0" / "sample_texts")
    (row,) = texts.rows["m1-s0-03-audio"]
    where = stored.ids.index("own-m1-s0-03-audio")
    assert np.array_equal(texts.vectors_ND[row], stored.vectors_ND[where])
    assert missing == {"sample_texts_without_vector": 0}


def test_no_sample_texts_are_no_error(make_kb: MakeKb) -> None:
    """A knowledge base need not describe its samples."""
    texts, missing = load_sample_texts(open_kb(make_kb(sample_texts=False)))
    assert texts.rows == {}
    assert missing == {"sample_texts_without_vector": 0}


def test_rejects_are_counted_by_stage(planted_kb: Path, tmp_path: Path) -> None:
    """Every file of the rejects folder counts; no folder is no reject."""
    assert count_rejects(planted_kb) == [{"stage": "ingest", "n": 1}]
    assert count_rejects(tmp_path) == []


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("categories.parquet", r"categories\.parquet: missing; run `unibind describe`"),
        ("samples.parquet", r"samples\.parquet: missing; run `unibind describe`"),
        ("embeddings/encoders.json", r"nothing is encoded yet; run `unibind encode`"),
    ],
)
def test_what_is_missing_is_named_with_the_command_that_makes_it(
    make_kb: MakeKb, missing: str, words: str
) -> None:
    """An incomplete knowledge base says what to run."""
    kb = make_kb()
    (kb / missing).unlink()
    with pytest.raises(KnowledgeBaseError, match=words):
        open_kb(kb)


def test_damage_is_named(make_kb: MakeKb) -> None:
    """A torn table, a table of another kind and a torn JSON file are refused by name."""
    kb = make_kb()
    path = kb / "samples.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    with pytest.raises(KnowledgeBaseError, match=r"samples\.parquet: damaged"):
        open_kb(kb)
    pq.write_table(pq.read_table(kb / "categories.parquet"), path)
    with pytest.raises(KnowledgeBaseError, match="no column 'sample_id'"):
        open_kb(kb)
    path.write_bytes(whole)
    for text in ("{", "[]", '{"text": 7}', '{"text": "../elsewhere"}'):
        (kb / "embeddings" / "encoders.json").write_text(text)
        with pytest.raises(KnowledgeBaseError, match=r"encoders\.json: missing or damaged"):
            open_kb(kb)


def test_a_label_without_a_category_is_refused(make_kb: MakeKb) -> None:
    """Samples and categories that do not fit each other would be scored wrongly."""
    kb = make_kb()
    rows = read_rows(kb / "samples.parquet")
    rows[5]["category_id"] = "stranger"
    write_table(kb / "samples.parquet", rows, SAMPLES)
    with pytest.raises(KnowledgeBaseError, match="'stranger' is not in categories"):
        open_kb(kb)


def test_nan_vectors_are_refused(make_kb: MakeKb) -> None:
    """A store that was filled with NaN by other hands is refused by the file's name."""
    kb = make_kb()
    (path,) = part_paths(kb / "embeddings" / "img-0" / "samples")
    table = pq.read_table(path)
    rows = table.column("vector").to_pylist()
    rows[3][0] = float("nan")
    place = table.schema.get_field_index("vector")
    field = table.schema.field(place)
    pq.write_table(table.set_column(place, field, [pa.array(rows, field.type)]), path)
    with pytest.raises(KnowledgeBaseError, match=re.escape(path.name)):
        load_samples(open_kb(kb), "samples")


def test_an_encoder_that_is_not_there_is_named(make_kb: MakeKb) -> None:
    """Asking for a role without an encoder says which setting names one."""
    kb = open_kb(make_kb(zero_shot=False))
    with pytest.raises(KnowledgeBaseError, match=r"no zero_shot encoder; name one under \[encode\]"):
        load_samples(kb, "zero_shot")


def test_more_categories_come_along_and_old_tables_have_none(make_kb: MakeKb) -> None:
    """A table without the column is read as one whose samples have one category each."""
    kb = make_kb()
    rows = read_rows(kb / "samples.parquet")
    old = pa.Table.from_pylist([{k: v for k, v in row.items() if k != "more_category_ids"} for row in rows])
    pq.write_table(old, kb / "samples.parquet")
    assert load_samples(open_kb(kb), "samples")[0]["image"].more_NL is None
    rows[0] = {**rows[0], "more_category_ids": ["m1-s1", "m2-s2"]}
    write_table(kb / "samples.parquet", rows, SAMPLES)
    base = open_kb(kb)
    samples = load_samples(base, "samples")[0][rows[0]["modality"]]
    place = samples.sample_ids.index(rows[0]["sample_id"])
    assert [base.categories[c] for c in samples.labels()[place].tolist()] == ["m0-s0", "m1-s1", "m2-s2"]
    assert (samples.take(np.arange(len(samples)) != place).labels()[:, 1:] == -1).all()
    write_table(kb / "samples.parquet", [{**rows[0], "more_category_ids": ["no"]}, *rows[1:]], SAMPLES)
    with pytest.raises(KnowledgeBaseError, match="the category 'no' is not in"):
        open_kb(kb)
