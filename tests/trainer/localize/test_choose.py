"""Localization: what guides it, what it refuses, and adversarial inputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError
from tqdm import tqdm

from data.errors import InputError, KnowledgeBaseError
from kb_builder.store.table import read_vectors, write_vectors
from kb_builder.tables.schemas import DESCRIPTIONS, SAMPLES, read_rows, write_table
from trainer.inputs import open_kb
from trainer.localize.centers import load_centers
from trainer.localize.choose import (
    choose_centers,
    group_guides,
    guiding_samples,
    localize,
    without_progress,
)
from trainer.settings import Localize

MakeKb = Callable[..., Path]
TEXTS = Path("embeddings/txt-0/category_texts")
ZERO_SHOT = Path("embeddings/zs-0/samples")


def _chosen(kb: Path) -> dict[str, list[str]]:
    rows = sorted(read_rows(kb / "centers.parquet"), key=lambda row: (row["category_id"], row["rank"]))
    chosen: dict[str, list[str]] = {}
    for row in rows:
        chosen.setdefault(row["category_id"], []).append(row["row_id"])
    return chosen


def _set_vectors(folder: Path, change: Callable[[list[str], np.ndarray], None]) -> None:
    """Change a table's vectors in place: `change(ids, vectors)`."""
    stored = read_vectors(folder)
    vectors_ND = stored.vectors_ND.copy()
    change(stored.ids, vectors_ND)
    write_vectors(folder, ids=stored.ids, groups=stored.groups, vectors_ND=vectors_ND)


def _texts(kb: Path) -> dict[str, list[str]]:
    """Category -> row ids of its valid descriptions, ascending."""
    rows = sorted(read_rows(kb / "descriptions" / "category"), key=lambda row: str(row["row_id"]))
    valid = [row for row in rows if row["status"] == "ok"]
    categories = sorted({row["category_id"] for row in valid})
    return {c: [row["row_id"] for row in valid if row["category_id"] == c] for c in categories}


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
    assert load_centers(open_kb(kb)).labels_guided


@pytest.mark.parametrize(
    ("options", "guided_by"),
    [
        ({"guide": "val"}, "val"),
        ({"guide": "train+val", "nearest_samples": 2}, "train+val"),
        ({"rule": "diverse"}, "train"),
        ({"rule": "distinct", "guide": "val"}, "val"),
        ({"rule": "pseudo", "transductive": True}, "transductive"),
    ],
    ids=str,
)
def test_every_center_says_who_guided_it(make_kb: MakeKb, options: dict[str, Any], guided_by: str) -> None:
    """The splits by name where labels guided; `transductive` where unlabelled samples did, and no labels."""
    kb = make_kb()
    localize(kb, Localize(k=3, **options))
    named = {(row["rule"], row["guided_by"]) for row in read_rows(kb / "centers.parquet")}
    assert (options.get("rule", "visual"), guided_by) in named
    assert {guide for _, guide in named} <= {guided_by, None}
    assert load_centers(open_kb(kb)).transductive == (guided_by == "transductive")
    assert load_centers(open_kb(kb)).labels_guided == (guided_by != "transductive")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"guide": "test"}, "guiding by test samples is leakage"),
        ({"guide": "train+test"}, "guiding by test samples is leakage"),
        ({"rule": "pseudo"}, "set `transductive = true`"),
        ({"rule": "text", "nearest_samples": 3}, "rule `text` does not use it"),
        ({"rule": "distinct", "nearest_samples": 3}, "rule `distinct` does not use it"),
        ({"rule": "diverse", "nearest_samples": 3}, "rule `diverse` does not use it"),
    ],
    ids=str,
)
def test_settings_that_leak_or_do_nothing_are_refused(
    make_kb: MakeKb, options: dict[str, Any], reason: str
) -> None:
    """Test samples as guides, unlabelled ones without saying so, and a setting without effect."""
    kb = make_kb()
    with pytest.raises(InputError, match=reason):
        localize(kb, Localize(**options))
    assert not (kb / "centers.parquet").exists()


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"guide": "test"}, "guiding by test samples is leakage"),
        ({"k": 0}, 'a whole number from 1 on, or "all" \\(given: 0\\)'),
        ({"k": True}, "given: True"),
        ({"k": "most"}, "given: 'most'"),
        ({"nearest_samples": 0}, "greater than or equal to 1"),
        ({"rule": "best"}, "'visual', 'distinct', 'text', 'name', 'neighbours', 'diverse' or 'pseudo'"),
    ],
    ids=str,
)
def test_the_project_file_is_told_what_is_wrong(given: dict[str, Any], reason: str) -> None:
    """What no rule could do is refused when the project file is read."""
    with pytest.raises(ValidationError, match=reason):
        TypeAdapter(Localize).validate_python(given)


def test_pseudo_labels_do_not_look_at_labels(make_kb: MakeKb) -> None:
    """Without any label the file is the same, byte by byte."""
    kb = make_kb()
    settings = Localize(k=5, rule="pseudo", transductive=True)
    localize(kb, settings)
    before = (kb / "centers.parquet").read_bytes()
    samples = [{**row, "category_id": None} for row in read_rows(kb / "samples.parquet")]
    write_table(kb / "samples.parquet", samples, SAMPLES)
    localize(kb, settings)
    assert (kb / "centers.parquet").read_bytes() == before


def test_val_and_test_samples_do_not_guide(make_kb: MakeKb) -> None:
    """Turning every val and test sample round leaves the file as it is, byte by byte."""
    kb = make_kb()
    localize(kb, Localize(k=5))
    before = (kb / "centers.parquet").read_bytes()
    train = {row["sample_id"] for row in read_rows(kb / "samples.parquet") if row["split"] == "train"}

    def turn(ids: list[str], vectors_ND: np.ndarray) -> None:
        vectors_ND[[row for row, name in enumerate(ids) if name not in train]] *= -1

    _set_vectors(kb / ZERO_SHOT, turn)
    localize(kb, Localize(k=5))
    assert (kb / "centers.parquet").read_bytes() == before


@pytest.mark.parametrize("options", [{"zero_shot": False}, {"labelled": False}], ids=str)
def test_without_guides_every_category_goes_by_its_texts(make_kb: MakeKb, options: dict[str, bool]) -> None:
    """No shared-space encoder, or no label: rule `visual` falls back everywhere and no label was used."""
    kb = make_kb(**options)
    summary = localize(kb, Localize(k=5))
    assert summary["by_rule"] == {"visual": 0, "text": 12}
    assert not load_centers(open_kb(kb)).labels_guided
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


@pytest.mark.parametrize("rule", ["visual", "distinct", "text", "name", "neighbours", "diverse"])
def test_equal_texts_come_in_the_order_of_their_ids(make_kb: MakeKb, rule: str) -> None:
    """Ties go by row id, whatever the BLAS makes of the last bit."""
    kb = make_kb(texts=40)
    owned = [set(rows) for rows in _texts(kb).values()]

    def copy(ids: list[str], vectors_ND: np.ndarray) -> None:
        for own in owned:
            rows = [row for row, name in enumerate(ids) if name in own]
            vectors_ND[rows] = vectors_ND[rows[0]]

    _set_vectors(kb / TEXTS, copy)
    localize(kb, Localize(k=40, rule=rule))  # type: ignore[arg-type]
    for chosen in _chosen(kb).values():
        assert chosen == sorted(chosen)


def test_zero_vectors_rank_by_their_score_of_zero(make_kb: MakeKb) -> None:
    """A text and a sample without direction say nothing: score 0, and no NaN anywhere."""
    kb = make_kb()
    zeroed = _texts(kb)["m0-s1"][0]

    def zero(ids: list[str], vectors_ND: np.ndarray) -> None:
        vectors_ND[ids.index(zeroed)] = 0

    def zero_category(ids: list[str], vectors_ND: np.ndarray) -> None:
        vectors_ND[[row for row, name in enumerate(ids) if name.startswith("m0-s1")]] = 0

    _set_vectors(kb / TEXTS, zero)
    _set_vectors(kb / ZERO_SHOT, zero_category)
    summary = localize(kb, Localize(k=8))
    assert summary["by_rule"] == {"visual": 8, "text": 4}  # samples that point nowhere do not guide
    row = next(row for row in read_rows(kb / "centers.parquet") if row["row_id"] == zeroed)
    assert row["score"] == 0


def test_texts_without_vector_are_counted(make_kb: MakeKb) -> None:
    """A text that was never encoded is no center and is in the summary; a category of such has no vectors."""
    kb = make_kb()
    gone = {_texts(kb)["m0-s0"][0], *_texts(kb)["m0-s1"]}
    stored = read_vectors(kb / TEXTS)
    keep = [row for row, name in enumerate(stored.ids) if name not in gone]
    write_vectors(
        kb / TEXTS,
        ids=[stored.ids[row] for row in keep],
        groups=[stored.groups[row] for row in keep],
        vectors_ND=stored.vectors_ND[keep],
    )
    summary = localize(kb, Localize(k="all"))
    assert summary["texts_without_vector"] == len(gone) == 9
    assert summary["without_centers"] == ["m0-s1"]
    assert not gone & {row["row_id"] for row in read_rows(kb / "centers.parquet")}


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
        expected = stored.vectors_ND[stored.ids.index(centers.row_ids[row])].astype(np.float64)
        expected /= np.linalg.norm(expected)  # the store rounds to float16
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
    with pytest.raises(KnowledgeBaseError, match="with another encoder; run `unibind localize` again"):
        load_centers(open_kb(kb))


def test_a_zero_shot_encoder_of_another_space_is_refused(make_kb: MakeKb) -> None:
    """Texts and guiding samples must share one space."""
    kb = make_kb()
    stored = read_vectors(kb / ZERO_SHOT)
    others_ND = np.eye(5, dtype=np.float32)[np.zeros(len(stored.ids), np.int64)]
    write_vectors(kb / ZERO_SHOT, ids=stored.ids, groups=stored.groups, vectors_ND=others_ND)
    with pytest.raises(KnowledgeBaseError, match="gives 5 dimensions and the texts have 24"):
        localize(kb, Localize())


def test_no_valid_description_is_refused(make_kb: MakeKb) -> None:
    """With every text turned away there is nothing to choose from."""
    kb = make_kb()
    path = kb / "descriptions" / "category" / "part-00000.parquet"
    write_table(path, [{**row, "status": "refusal"} for row in read_rows(path)], DESCRIPTIONS)
    with pytest.raises(
        KnowledgeBaseError, match=r"no valid description of any category (\(.*refusal\)); see"
    ):
        localize(kb, Localize())


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


def test_progress_is_shown_unless_another_bar_has_it(
    make_kb: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within `without_progress` every bar is off; after it they are on again where there is a terminal."""
    asked: list[bool | None] = []

    def bar(*arguments: Any, disable: bool | None, **named: Any) -> Any:
        asked.append(disable)
        return tqdm(*arguments, disable=True, **named)

    monkeypatch.setattr("trainer.localize.choose.tqdm", bar)
    base = open_kb(make_kb())
    with without_progress():
        choose_centers(base, Localize(k=3))
    silent = len(asked)
    choose_centers(base, Localize(k=3))
    assert asked[:silent] == [True] * silent
    assert asked[silent:] == [None] * silent
    assert silent > 0
