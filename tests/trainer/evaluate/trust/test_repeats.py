"""Repeated splits: what is drawn, against scikit-learn, loops and formulas by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError
from scipy import stats
from sklearn.neighbors import KNeighborsClassifier

from kb_builder.tables.schemas import SAMPLES, read_rows, write_table
from trainer.align.heads import load_heads
from trainer.align.train import fit, train
from trainer.evaluate.few_shot import with_shots
from trainer.evaluate.gallery import most_frequent
from trainer.evaluate.measure import measure
from trainer.evaluate.probe import fit_probe
from trainer.evaluate.seeds import estimate_of
from trainer.evaluate.trust.answers import centers_by_model
from trainer.evaluate.trust.repeats import neighbours, redraw, split_count
from trainer.inputs import KnowledgeBase, load_samples, open_kb, seen_categories
from trainer.localize.centers import load_centers, read_centers
from trainer.localize.choose import choose_centers, localize
from trainer.records import SampleSet
from trainer.score.scoring import score
from trainer.settings import Evaluate, Localize, Train

MakeKb = Callable[..., Path]
RECIPE = Train(epochs=3, batch_size=48, learning_rate=0.02)
SETTINGS = Evaluate(
    bootstrap=50,
    few_shot=(2, 8),
    sweeps=False,
    probe=False,
    baselines=False,
    stacking_folds=0,
    repeats=2,
    seed=4,
)


def _redrawn(base: KnowledgeBase, seed: int) -> KnowledgeBase:
    drawn = redraw(base, seed=seed)
    rows = ({**row, "split": drawn.get(row["sample_id"], row["split"])} for row in base.samples)
    return replace(base, samples=tuple(rows))


def test_a_draw_moves_objects_and_keeps_every_count(planted_kb: Path) -> None:
    """Each category and modality keeps its counts, an object stays whole, untrained categories stay out."""
    base = open_kb(planted_kb)
    seen_C = seen_categories(base)
    draws = [_redrawn(base, seed) for seed in (1, 1, 2)]
    assert draws[0].samples == draws[1].samples != draws[2].samples

    def counts(kb: KnowledgeBase) -> Counter[tuple[str, ...]]:
        return Counter((row["category_id"], row["modality"], row["split"]) for row in kb.samples)

    for drawn in draws:
        assert counts(drawn) == counts(base)
        splits: dict[str, set[str]] = {}
        for row in drawn.samples:
            splits.setdefault(row["object_id"], set()).add(row["split"])
        assert {len(found) for found in splits.values()} == {1}
        for old, new in zip(base.samples, drawn.samples, strict=True):
            if not seen_C[base.index[old["category_id"]]]:
                assert new["split"] == old["split"] == "test"
    moved = sum(a["split"] != b["split"] for a, b in zip(base.samples, draws[0].samples, strict=True))
    assert moved > 50


def test_small_data_are_split_five_times_and_large_ones_not(planted_kb: Path) -> None:
    """`auto` goes by the test samples of trained categories in the largest modality; a number is a number."""
    base = open_kb(planted_kb)
    assert split_count(base, Evaluate()) == 5
    assert split_count(base, Evaluate(repeats=0)) == 0
    row = next(row for row in base.samples if row["split"] == "test" and row["category_id"] == "m0-s1")
    for more, expected in ((982, 5), (983, 0)):  # there are 18 in each modality
        large = replace(base, samples=base.samples + (row,) * more)
        assert split_count(large, Evaluate()) == expected
        assert split_count(large, Evaluate(repeats=7)) == 7
    unlabelled = replace(base, samples=tuple({**row, "category_id": None} for row in base.samples))
    assert split_count(unlabelled, Evaluate()) == 0


@pytest.mark.parametrize("given", [-1, 101, 2.5, "many", True])
def test_other_numbers_of_splits_are_refused(given: object) -> None:
    """At the project file's edge, with what is allowed."""
    with pytest.raises(ValidationError, match='a whole number from 0 to 100, or "auto"'):
        TypeAdapter(Evaluate).validate_python({"repeats": given})


def test_samples_without_an_object_or_a_category(make_kb: MakeKb) -> None:
    """The former are drawn one by one, the latter never."""
    kb = make_kb(objects=5)
    rows = [
        {**row, "object_id": None, "category_id": row["category_id"] if index % 7 else None}
        for index, row in enumerate(read_rows(kb / "samples.parquet"))
    ]
    write_table(kb / "samples.parquet", rows, SAMPLES)
    base = open_kb(kb)
    drawn = _redrawn(base, 0)
    for old, new in zip(base.samples, drawn.samples, strict=True):
        if old["category_id"] is None:
            assert new["split"] == old["split"]
    apart = {"image": set(), "audio": set()}  # type: ignore[var-annotated]
    for row in drawn.samples:
        if row["modality"] in apart and row["split"] == "train":
            apart[row["modality"]].add(row["sample_id"].rsplit("-", 1)[0])
    assert apart["image"] != apart["audio"]


def _set(x_ND: np.ndarray, category_N: np.ndarray) -> SampleSet:
    n = len(x_ND)
    ids = tuple(f"s{i:03d}" for i in range(n))
    return SampleSet("image", ids, np.full(n, "train"), category_N, np.full(n, -1), x_ND.astype(np.float32))


@pytest.mark.parametrize("seed", range(3))
def test_neighbours_are_those_of_scikit_learn(seed: int) -> None:
    """By cosine, of features less the train mean; K by val."""
    rng = np.random.default_rng(seed)
    meaning = 2 * rng.normal(size=(4, 6)) + 5
    label_N = rng.integers(0, 4, 120)
    x_ND = meaning[label_N] + 1.5 * rng.normal(size=(120, 6))
    train_set, val, test = (
        _set(x_ND[part], label_N[part]) for part in (slice(60), slice(60, 90), slice(90, 120))
    )
    found = neighbours(train_set, val, test)
    mean_D = x_ND[:60].mean(axis=0)
    scores = {}
    for k in (1, 3, 5):
        known = KNeighborsClassifier(k, metric="cosine").fit(x_ND[:60] - mean_D, label_N[:60])
        scores[k] = known.score(x_ND[60:90] - mean_D, label_N[60:90])
    if scores[1] >= max(scores.values()):
        expected = KNeighborsClassifier(1, metric="cosine").fit(x_ND[:60] - mean_D, label_N[:60])
        assert found is not None
        assert (found == expected.predict(x_ND[90:] - mean_D)).mean() == 1
    alone = neighbours(train_set, val.take(np.zeros(30, bool)), test)
    first = KNeighborsClassifier(1, metric="cosine").fit(x_ND[:60] - mean_D, label_N[:60])
    assert alone is not None
    assert (alone == first.predict(x_ND[90:] - mean_D)).all()
    assert neighbours(train_set.take(np.zeros(60, bool)), val, test) is None


def test_of_equally_many_neighbours_the_nearest_decides() -> None:
    """Three neighbours of three categories are no majority; two of one are."""
    assert most_frequent(np.array([[2, 0, 1], [2, 0, 0], [1, 1, 0], [3, 3, 3]])).tolist() == [2, 0, 1, 3]


@pytest.mark.parametrize("n", [2, 5, 10, 25, 31])
def test_the_interval_is_students_with_the_correction_for_shared_samples(n: int) -> None:
    """By SciPy's quantile; without overlap it is the ordinary one."""
    values = np.random.default_rng(n).normal(0.7, 0.05, n)
    for overlap in (0.0, 0.25):
        found = estimate_of(values.tolist(), overlap=overlap)
        half = stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) * np.sqrt(1 / n + overlap)
        assert found.value == pytest.approx(values.mean())
        assert (found.low, found.high) == pytest.approx(
            (values.mean() - half, values.mean() + half), rel=1e-3
        )


def test_rows_are_those_of_doing_it_by_hand(make_kb: MakeKb, tmp_path: Path) -> None:
    """Splits drawn, heads and probes trained on them one by one, and averaged."""
    kb = make_kb(noise=0.5)
    localize(kb, Localize(k=4))
    train(kb, tmp_path, RECIPE)
    base, heads = open_kb(kb), load_heads(tmp_path)
    seen_C = seen_categories(base)
    rows = measure(base, load_centers(base), heads, SETTINGS).metrics["repeats"]
    found = {(row["modality"], row["shots"], row["method"]): row for row in rows}
    assert len(found) == len(rows)
    assert {row["shots"] for row in rows} == {None, 2}  # eight shots are not repeated
    assert {row["n_splits"] for row in rows} == {2}
    methods = ("heads", "linear_probe", "neighbours")
    for few in (None, 2):
        values: dict[tuple[str, str], list[float]] = {}
        for number in range(2):
            split = _redrawn(base, 4 + number)
            split = split if few is None else with_shots(split, few, seed=4 + number)
            known = read_centers(split, choose_centers(split, Localize(k=4))[0])
            fitted = fit(split, known, RECIPE).heads
            among = centers_by_model(known, fitted)["aligned"].of(seen_C)
            for modality in ("audio", "image", "point"):
                own = load_samples(split, "samples")[0][modality]
                parts = {name: own.split(name) for name in ("train", "val", "test")}
                test = parts["test"].take(seen_C[parts["test"].category_N])
                probe = fit_probe(parts["train"], parts["val"])
                assert probe is not None
                mapped_ND = fitted.map(modality, test.vectors_ND)
                named = {
                    "heads": score(mapped_ND, among, top=1).categories_NT[:, 0],
                    "linear_probe": probe.predict(test.vectors_ND, 1)[:, 0],
                    "neighbours": neighbours(parts["train"], parts["val"], test),
                }
                for method, named_N in named.items():
                    share = float(np.mean(named_N == test.category_N))
                    values.setdefault((modality, method), []).append(share)
                row = found[modality, few, "heads"]
                assert (row["n"], row["n_train"]) == (len(test), len(parts["train"]))
        for (modality, method), shares in values.items():
            row = found[modality, few, method]
            assert row["top1"] == pytest.approx(np.mean(shares))
            ahead = np.subtract(values[modality, "heads"], shares)
            assert row.get("lead", 0.0) == pytest.approx(ahead.mean())
            whole = found[modality, None, method]
            half = 12.706 * np.std(shares, ddof=1) * np.sqrt(1 / 2 + whole["n"] / whole["n_train"])
            assert row["top1_low"] == pytest.approx(max(0.0, np.mean(shares) - half))
            assert row["top1_high"] == pytest.approx(min(1.0, np.mean(shares) + half))
        for method in methods:
            of_means = np.mean([values[m, method] for m in ("audio", "image", "point")])
            assert found[None, few, method]["top1"] == pytest.approx(of_means)
    assert {method for modality, _, method in found if modality == "image"} == {
        *methods,
        "zero_shot",
        "mean",
        "chosen",
    }


def test_one_split_has_no_interval_and_none_no_row(make_kb: MakeKb, tmp_path: Path) -> None:
    """Bounds are null; `repeats = 0` trains nothing; a run without heads has none."""
    kb = make_kb()
    localize(kb, Localize(k=4))
    train(kb, tmp_path, replace(RECIPE, epochs=1))
    base, heads = open_kb(kb), load_heads(tmp_path)
    one = replace(SETTINGS, few_shot=(), repeats=1)
    rows = measure(base, load_centers(base), heads, one).metrics["repeats"]
    assert rows
    assert {(row["top1_low"], row["top1_high"], row.get("lead_low")) for row in rows} == {(None, None, None)}
    of_image = {row["method"]: row["top1"] for row in rows if row["modality"] == "image"}
    assert of_image["chosen"] in {of_image[name] for name in ("heads", "zero_shot", "mean")}
    for settings, trained in ((replace(one, repeats=0), heads), (one, None)):
        assert measure(base, load_centers(base), trained, settings).metrics["repeats"] == []
