"""Localization, against a float64 reference and on inputs that are out to trip it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data.errors import KnowledgeBaseError
from kb_builder.schemas import DESCRIPTIONS, read_rows, write_table
from kb_builder.store import read_vectors, write_vectors
from trainer.centers import labels_guided, load_centers, localize
from trainer.inputs import load_descriptions, load_samples, open_kb
from trainer.settings import Localize

MakeKb = Callable[..., Path]
TEXTS = Path("embeddings/txt-0/category_texts")


def _chosen(kb: Path) -> dict[str, list[str]]:
    rows = sorted(read_rows(kb / "centers.parquet"), key=lambda row: (row["category_id"], row["rank"]))
    chosen: dict[str, list[str]] = {}
    for row in rows:
        chosen.setdefault(row["category_id"], []).append(row["row_id"])
    return chosen


def _set_vectors(folder: Path, change: Callable[[list[str], np.ndarray], None]) -> None:
    """Change a store folder's vectors in place: `change(ids, vectors)`."""
    stored = read_vectors(folder)
    vectors_ND = stored.vectors_ND.copy()
    change(stored.ids, vectors_ND)
    write_vectors(folder / "part-00000.parquet", ids=stored.ids, groups=stored.groups, vectors_ND=vectors_ND)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def _reference(kb: Path, rule: str, k: int) -> dict[str, list[tuple[str, float]]]:
    """Both rules as the docstring states them, one text at a time, in float64."""
    base = open_kb(kb)
    texts, _ = load_descriptions(base)
    image = load_samples(base, "zero_shot")[0]["image"].split("train")
    vectors = _unit(texts.vectors_ND.astype(np.float64))
    centroids = {c: _unit(vectors[texts.category_N == c].sum(axis=0)) for c in range(len(base.categories))}
    expected = {}
    for c, name in enumerate(base.categories):
        guides = image.vectors_ND[image.category_N == c].astype(np.float64)
        scores = {}
        for row in np.flatnonzero(texts.category_N == c):
            if rule == "visual" and len(guides):
                scores[texts.row_ids[row]] = float(vectors[row] @ _unit(guides.mean(axis=0)))
            else:
                rival = max(vectors[row] @ centroids[other] for other in centroids if other != c)
                scores[texts.row_ids[row]] = float(vectors[row] @ centroids[c] - rival)
        best_first = sorted(scores.items(), key=lambda item: (-round(item[1], 9), item[0]))
        expected[name] = best_first[:k]
    return expected


@pytest.mark.parametrize("rule", ["visual", "text"])
@pytest.mark.parametrize("k", [1, 5, 50])
def test_agrees_with_a_float64_reference(make_kb: MakeKb, rule: str, k: int) -> None:
    """The chosen rows, their order and their scores are those of a plain loop."""
    kb = make_kb()
    localize(kb, Localize(k=k, rule=rule))  # type: ignore[arg-type]
    expected = _reference(kb, rule, k)
    assert _chosen(kb) == {c: [row_id for row_id, _ in rows] for c, rows in expected.items()}
    for row in read_rows(kb / "centers.parquet"):
        assert row["score"] == pytest.approx(expected[row["category_id"]][row["rank"]][1], abs=1e-6)


def test_every_center_says_where_it_comes_from(make_kb: MakeKb) -> None:
    """Unseen categories fall back to rule `text`, row by row, and the summary counts both."""
    kb = make_kb()
    summary = localize(kb, Localize(k=3))
    unseen = {"m0-s0", "m1-s1", "m2-s2"}
    for row in read_rows(kb / "centers.parquet"):
        fallback = row["category_id"] in unseen
        assert (row["rule"], row["guided_by"]) == (("text", None) if fallback else ("visual", "train"))
        assert row["encoder"] == "txt-0"
    assert summary["by_rule"] == {"visual": 9, "text": 3}
    assert summary["centers"] == 36
    assert summary["guiding_samples"] == 9 * 6
    assert summary["fewer_than_k"] == {}
    assert labels_guided(open_kb(kb))


def test_val_and_test_samples_do_not_guide(make_kb: MakeKb) -> None:
    """Turning every val and test sample round leaves the file as it is, byte by byte."""
    kb = make_kb()
    localize(kb, Localize(k=5))
    before = (kb / "centers.parquet").read_bytes()
    train = {row["sample_id"] for row in read_rows(kb / "samples.parquet") if row["split"] == "train"}

    def turn(ids: list[str], vectors_ND: np.ndarray) -> None:
        vectors_ND[[row for row, name in enumerate(ids) if name not in train]] *= -1

    _set_vectors(kb / "embeddings" / "zs-0" / "samples", turn)
    localize(kb, Localize(k=5))
    assert (kb / "centers.parquet").read_bytes() == before


@pytest.mark.parametrize("options", [{"zero_shot": False}, {"labelled": False}], ids=str)
def test_without_guides_every_category_goes_by_its_texts(make_kb: MakeKb, options: dict[str, bool]) -> None:
    """No shared-space encoder, or no label: rule `visual` falls back everywhere and no label was used."""
    kb = make_kb(**options)
    summary = localize(kb, Localize(k=5))
    assert summary["by_rule"] == {"visual": 0, "text": 12}
    assert not labels_guided(open_kb(kb))
    visual = _chosen(kb)
    localize(kb, Localize(k=5, rule="text"))
    assert _chosen(kb) == visual


def test_categories_with_fewer_than_k_say_so(make_kb: MakeKb) -> None:
    """A category with one text and one with none are named, and neither stops the others."""
    kb = make_kb(texts=6)
    path = kb / "descriptions" / "category" / "part-00000.parquet"
    rows = read_rows(path)
    of_first = [row for row in rows if row["category_id"] == "m0-s0" and row["status"] == "ok"]
    for row in [*of_first[1:], *(row for row in rows if row["category_id"] == "m0-s1")]:
        row["status"] = "dup_exact"
    write_table(path, rows, DESCRIPTIONS)
    summary = localize(kb, Localize(k=6))
    assert summary["fewer_than_k"] == {"m0-s0": 1}
    assert summary["without_centers"] == ["m0-s1"]
    assert _chosen(kb)["m0-s0"] == [of_first[0]["row_id"]]
    assert load_centers(open_kb(kb)).counts().tolist() == [1, 0] + [6] * 10


@pytest.mark.parametrize("rule", ["visual", "text"])
def test_equal_texts_come_in_the_order_of_their_ids(make_kb: MakeKb, rule: str) -> None:
    """Ties go by row id, whatever the BLAS makes of the last bit."""
    kb = make_kb(texts=40)
    descriptions = open_kb(kb)
    texts, _ = load_descriptions(descriptions)

    def copy(ids: list[str], vectors_ND: np.ndarray) -> None:
        owner = {row_id: int(c) for row_id, c in zip(texts.row_ids, texts.category_N, strict=True)}
        for category in range(12):
            rows = [row for row, name in enumerate(ids) if owner[name] == category]
            vectors_ND[rows] = vectors_ND[rows[0]]

    _set_vectors(kb / TEXTS, copy)
    localize(kb, Localize(k=40, rule=rule))  # type: ignore[arg-type]
    for chosen in _chosen(kb).values():
        assert chosen == sorted(chosen)


def test_zero_vectors_rank_by_their_score_of_zero(make_kb: MakeKb) -> None:
    """A text and a sample without direction say nothing: score 0, and no NaN anywhere."""
    kb = make_kb()
    zeroed = load_descriptions(open_kb(kb))[0].row_ids[0]

    def zero(ids: list[str], vectors_ND: np.ndarray) -> None:
        vectors_ND[ids.index(zeroed)] = 0

    def zero_category(ids: list[str], vectors_ND: np.ndarray) -> None:
        vectors_ND[[row for row, name in enumerate(ids) if name.startswith("m0-s1")]] = 0

    _set_vectors(kb / TEXTS, zero)
    _set_vectors(kb / "embeddings" / "zs-0" / "samples", zero_category)
    summary = localize(kb, Localize(k=8))
    assert summary["by_rule"] == {"visual": 8, "text": 4}  # samples that point nowhere do not guide
    row = next(row for row in read_rows(kb / "centers.parquet") if row["row_id"] == zeroed)
    assert row["score"] == 0


def test_two_runs_give_the_same_bytes(make_kb: MakeKb) -> None:
    """Same inputs, same file."""
    kb = make_kb()
    localize(kb, Localize())
    first = (kb / "centers.parquet").read_bytes()
    localize(kb, Localize())
    assert (kb / "centers.parquet").read_bytes() == first


def test_centers_load_with_their_vectors(make_kb: MakeKb) -> None:
    """Loaded centers are sorted by category and rank, each row with its own unit vector."""
    kb = make_kb()
    localize(kb, Localize(k=4))
    centers = load_centers(open_kb(kb))
    assert centers.counts().tolist() == [4] * 12
    assert list(centers.row_ids) == [row for rows in _chosen(kb).values() for row in rows]
    stored = read_vectors(kb / TEXTS)
    for row in (0, 20, 47):
        expected = stored.vectors_ND[stored.ids.index(centers.row_ids[row])]
        np.testing.assert_allclose(centers.vectors_ND[row], expected, atol=1e-7)


def test_stale_centers_are_refused(make_kb: MakeKb) -> None:
    """Centers of another encoder, of texts that are gone, and missing ones name the command to run."""
    kb = make_kb()
    with pytest.raises(KnowledgeBaseError, match="run `unibind localize`"):
        load_centers(open_kb(kb))
    localize(kb, Localize(k=2))
    (kb / "embeddings" / "txt-0").rename(kb / "embeddings" / "txt-1")
    named = (kb / "embeddings" / "encoders.json").read_text()
    (kb / "embeddings" / "encoders.json").write_text(named.replace("txt-0", "txt-1"))
    with pytest.raises(KnowledgeBaseError, match="by another encoder; run `unibind localize` again"):
        load_centers(open_kb(kb))


def test_a_zero_shot_encoder_of_another_space_is_refused(make_kb: MakeKb) -> None:
    """Texts and guiding samples must share one space."""
    kb = make_kb()
    folder = kb / "embeddings" / "zs-0" / "samples"
    stored = read_vectors(folder)
    write_vectors(
        folder / "part-00000.parquet",
        ids=stored.ids,
        groups=stored.groups,
        vectors_ND=np.ones((len(stored.ids), 5), dtype=np.float32),
    )
    with pytest.raises(KnowledgeBaseError, match="gives 5 dimensions and the texts have 24"):
        localize(kb, Localize())


def test_no_valid_description_is_refused(make_kb: MakeKb) -> None:
    """With every text turned away there is nothing to choose from."""
    kb = make_kb()
    path = kb / "descriptions" / "category" / "part-00000.parquet"
    write_table(path, [{**row, "status": "refusal"} for row in read_rows(path)], DESCRIPTIONS)
    with pytest.raises(KnowledgeBaseError, match="no valid description"):
        localize(kb, Localize())
