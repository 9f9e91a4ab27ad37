"""Which model is used, and what each one reaches on the same samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kb_builder.tables.schemas import SAMPLES, read_rows, write_table
from trainer.align.heads import load_heads
from trainer.align.train import train
from trainer.evaluate.measure import measure
from trainer.evaluate.trust.answers import Placed, answer, centers_by_model, offsets
from trainer.evaluate.trust.options import choose
from trainer.inputs import load_samples, open_kb, seen_categories
from trainer.localize.centers import load_centers
from trainer.localize.choose import localize
from trainer.records import Centers, SampleSet
from trainer.settings import Evaluate, Localize, Train

MakeKb = Callable[..., Path]
SETTINGS = Evaluate(
    bootstrap=200,
    few_shot=(),
    sweeps=False,
    probe=False,
    baselines=False,
    stacking_folds=2,
    repeats=0,
    seed=2,
)


@pytest.mark.parametrize(
    ("zero_shot", "heads", "mean", "expected"),
    [
        (2, 30, 30, ("aligned", False)),  # of equals the one that needs no second encoder
        (2, 30, 31, ("mean", False)),
        (30, 2, 3, ("zero_shot", False)),
        (20, 22, 2, ("mean", True)),  # the difference may be chance
        (0, 0, 0, ("mean", True)),
    ],
)
def test_the_better_is_used_unless_it_is_a_toss_up(
    zero_shot: int, heads: int, mean: int, expected: tuple[str, bool]
) -> None:
    """Of 40 val samples, the first or the last so many are right."""
    place_N = np.arange(40)
    hits = {"zero_shot": place_N >= 40 - zero_shot, "aligned": place_N < heads, "mean": place_N < mean}
    assert choose(hits, np.full(40, -1), resamples=500, seed=0) == expected  # type: ignore[arg-type]


def test_without_val_samples_the_mean_is_used_and_one_model_as_it_is() -> None:
    """Nothing to choose by is a toss-up; nothing to choose from is none."""
    none = np.zeros(0, bool)
    hits = {"zero_shot": none, "aligned": none, "mean": none}
    assert choose(hits, np.zeros(0, int), resamples=9, seed=0) == ("mean", True)  # type: ignore[arg-type]
    assert choose({"aligned": none}, np.zeros(0, int), resamples=9, seed=0) == ("aligned", False)


def test_samples_of_one_object_count_as_one() -> None:
    """Forty pictures of two objects are two facts, not forty."""
    place_N = np.arange(40)
    hits = {"zero_shot": place_N < 20, "aligned": place_N < 40, "mean": place_N < 40}
    alone = choose(hits, np.full(40, -1), resamples=500, seed=0)  # type: ignore[arg-type]
    together = choose(hits, place_N // 20, resamples=500, seed=0)  # type: ignore[arg-type]
    assert (alone, together) == (("aligned", False), ("mean", True))


def test_rows_agree_with_recognition_and_with_the_mean_by_hand(make_kb: MakeKb, tmp_path: Path) -> None:
    """Heads and zero-shot have the accuracies of their tables; those of the mean are counted in loops."""
    kb = make_kb(noise=0.5)
    localize(kb, Localize(k=4))
    train(kb, tmp_path, Train(epochs=6, batch_size=48, learning_rate=0.02))
    base, heads = open_kb(kb), load_heads(tmp_path)
    centers, seen_C = load_centers(base), seen_categories(base)
    metrics = measure(base, centers, heads, SETTINGS).metrics
    rows = {(row["modality"], row["split"], row["model"]): row for row in metrics["trust"]}
    assert len(rows) == len(metrics["trust"])
    told = 0
    for row in metrics["recognition"] + metrics["zero_shot"]:
        found = rows.get((row["modality"], row["split"], row["model"]))
        if row["anchors"] == "llm_centers" and found is not None:
            told += 1
            for key in ("top1", "top1_low", "top1_high", "n"):
                assert found[key] == row[key]
    both = [row for row in metrics["trust"] if row["model"] == "zero_shot" and row["split"] != "val"]
    assert told == 4 * 4 + len(both)  # four modalities by the heads, some without them too; four splits
    assert "image" in {row["modality"] for row in both}

    frozen, untrained = (load_samples(base, role)[0]["image"] for role in ("samples", "zero_shot"))
    texts = centers_by_model(centers, heads)
    vectors = {"zero_shot": untrained.vectors_ND, "aligned": heads.map("image", frozen.vectors_ND)}
    for split, among_C in (("val", seen_C), ("seen", seen_C), ("unseen", ~seen_C)):
        part, shown_C = ("val", seen_C) if split == "val" else ("test", among_C)
        right = []
        for n in np.flatnonzero((frozen.splits_N == part) & shown_C[frozen.category_N]):
            scores = {}
            for c in np.flatnonzero(among_C):
                scores[c] = 0.0
                for model, x_ND in vectors.items():
                    own_KD = texts[model].vectors_ND[centers.category_N == c].astype(np.float64)
                    scores[c] += max(own_KD @ x_ND[n].astype(np.float64)) / 2
            right.append(max(scores, key=lambda c: scores[c]) == frozen.category_N[n])
        assert rows["image", split, "mean"]["top1"] == pytest.approx(np.mean(right))
        assert rows["image", split, "mean"]["n"] == len(right)
    for modality in ("audio", "point"):
        assert "does not place it" in rows[modality, "seen", "aligned"]["reason"]
    assert rows["image", "seen", "mean"]["reason"] is None
    for row in metrics["trust"]:
        chosen = next(
            m
            for m in ("zero_shot", "aligned", "mean")
            if rows.get((row["modality"], row["split"], m), {}).get("chosen")
        )
        assert ("lead" in row) == (row["model"] != chosen)
        if "lead" in row:
            best = rows[row["modality"], row["split"], chosen]
            assert row["lead"] == pytest.approx(best["top1"] - row["top1"])


def test_without_a_zero_shot_encoder_there_are_heads_only(make_kb: MakeKb, tmp_path: Path) -> None:
    """One model for each modality, and the reason."""
    kb = make_kb(zero_shot=False)
    localize(kb, Localize(k=4))
    train(kb, tmp_path, Train(epochs=1, batch_size=48))
    base = open_kb(kb)
    rows = measure(base, load_centers(base), load_heads(tmp_path), SETTINGS).metrics["trust"]
    assert {(row["model"], row["chosen"], row["toss_up"]) for row in rows} == {("aligned", True, False)}
    reasons = {row["modality"]: row["reason"] for row in rows}
    assert reasons["image"] == "there is no zero-shot encoder"
    has_head = "text" in load_heads(tmp_path).weights
    assert reasons["text"] == (
        "there is no zero-shot encoder" if has_head else "it is in the text space from the start"
    )


def test_without_val_samples_rows_are_of_test_samples_only(make_kb: MakeKb, tmp_path: Path) -> None:
    """The mean is used, as a toss-up; nothing is measured on val."""
    kb = make_kb()
    rows = read_rows(kb / "samples.parquet")
    moved = [{**row, "split": "test"} if row["split"] == "val" else row for row in rows]
    write_table(kb / "samples.parquet", moved, SAMPLES)
    localize(kb, Localize(k=4))
    train(kb, tmp_path, Train(epochs=1, batch_size=48))
    base = open_kb(kb)
    found = measure(base, load_centers(base), load_heads(tmp_path), SETTINGS).metrics["trust"]
    assert "val" not in {row["split"] for row in found}
    assert {
        (row["model"], row["toss_up"]) for row in found if row["chosen"] and row["modality"] == "image"
    } == {("mean", True)}


def test_without_heads_nothing_is_chosen(make_kb: MakeKb) -> None:
    """An untrained run has no rows."""
    kb = make_kb()
    localize(kb, Localize(k=4))
    base = open_kb(kb)
    metrics = measure(base, load_centers(base), None, SETTINGS).metrics
    assert (metrics["trust"], metrics["stacking"]) == ([], [])


def test_blocks_do_not_show_and_ties_go_to_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few samples at a time give what all at once give; without a candidate there is no answer."""
    rng = np.random.default_rng(0)
    n, c, d = 23, 4, 6
    x_ND, z_CD = (rng.normal(size=(rows, d)).astype(np.float32) for rows in (n, c))
    z_CD[2] = z_CD[1]
    centers = Centers(tuple("abcd"), tuple("wxyz"), np.arange(c), z_CD)
    samples = SampleSet(
        "image",
        tuple(f"{i:02d}" for i in range(n)),
        np.full(n, "test"),
        rng.integers(0, c, n),
        np.full(n, -1),
        x_ND,
    )
    by_model = {"zero_shot": centers, "aligned": centers}
    placed = Placed(samples, {"zero_shot": x_ND, "aligned": x_ND[:, ::-1].copy()})
    trained_C = np.array([True, True, False, False])
    questions = [offsets(np.ones(c, bool), trained_C, 0.5), offsets(np.zeros(c, bool), trained_C)]
    whole = answer(placed, "mean", by_model, questions, scorer="nearest")
    monkeypatch.setattr("trainer.evaluate.trust.answers._CELLS", 3 * c)
    parts = answer(placed, "mean", by_model, questions, scorer="nearest")
    for one, other in zip(whole, parts, strict=True):
        assert one.category_N.tolist() == other.category_N.tolist()
    assert 1 not in whole[0].category_N.tolist()  # its twin is untrained: half a point ahead
    assert set(whole[1].category_N.tolist()) == {-1}
    assert not whole[1].hits(samples).any()
    (plain,) = answer(placed, "mean", by_model, [offsets(np.ones(c, bool), trained_C)], scorer="nearest")
    assert 2 not in plain.category_N.tolist()
