"""Few-shot knowledge bases, and the probes and heads that are fitted on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trainer.align.heads import load_heads
from trainer.align.train import fit, train
from trainer.evaluate import few_shot
from trainer.evaluate.few_shot import few_shot_rows, with_shots
from trainer.evaluate.probe import Probe, fit_probe, fit_probes
from trainer.inputs import load_samples, open_kb, seen_categories
from trainer.localize.centers import load_centers, read_centers
from trainer.localize.choose import choose_centers, localize
from trainer.records import SampleSet
from trainer.score.scoring import score
from trainer.settings import Evaluate, Localize, Train

SETTINGS = Evaluate(bootstrap=50, few_shot=(1, 3), seed=5)
RECIPE = Train(epochs=3, batch_size=48, learning_rate=0.02)


def test_rows_are_those_of_fitting_by_hand(make_kb: Callable[..., Path], tmp_path: Path) -> None:
    """Probe and heads are fitted on the same samples, the heads by the run's own recipe."""
    kb = make_kb(noise=0.5)
    localize(kb, Localize(k=5))
    train(kb, tmp_path, RECIPE)
    base = open_kb(kb)
    frozen, centers, seen_C = load_samples(base, "samples")[0], load_centers(base), seen_categories(base)
    rows = few_shot_rows(base, frozen, centers, load_heads(tmp_path), SETTINGS)
    found = {(row["shots"], row["method"], row["modality"]): row for row in rows}
    assert len(found) == len(rows) == 2 * (4 + 4)
    for shots in (1, 3):
        few = with_shots(base, shots, seed=5)
        small = load_samples(few, "samples")[0]
        known = read_centers(few, choose_centers(few, Localize(k=5))[0])
        heads = fit(few, known, RECIPE).heads
        among = heads.represent(known).of(seen_C)
        for modality in ("audio", "image", "point", "text"):
            test = frozen[modality].split("test")
            test = test.take(seen_C[test.category_N])
            probe = fit_probe(small[modality].split("train"), frozen[modality].split("val"))
            assert probe is not None
            mapped_ND = heads.map(modality, test.vectors_ND)
            named = {
                "probe": probe.predict(test.vectors_ND, 1)[:, 0],
                "heads": score(mapped_ND, among, top=1).categories_NT[:, 0],
            }
            for method, named_N in named.items():
                row = found[shots, method, modality]
                assert row["top1"] == np.mean(named_N == test.category_N)
                assert (row["split"], row["n"], row["n_train"]) == ("seen", len(test), 9 * shots)
                assert row["top1_low"] <= row["top1"] <= row["top1_high"]


def test_without_heads_there_are_probes_only_and_without_shots_nothing(
    make_kb: Callable[..., Path],
) -> None:
    """An untrained run has no recipe; `few_shot = []` switches all of it off."""
    kb = make_kb()
    localize(kb, Localize(k=5))
    base = open_kb(kb)
    frozen, centers = load_samples(base, "samples")[0], load_centers(base)
    rows = few_shot_rows(base, frozen, centers, None, SETTINGS)
    assert {row["method"] for row in rows} == {"probe"}
    assert few_shot_rows(base, frozen, centers, None, Evaluate(few_shot=())) == []


def test_probes_of_all_train_samples_are_not_fitted_again(
    make_kb: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given those, as many shots as there are samples give the rows that fitting again gives."""
    kb = make_kb(noise=0.5)
    localize(kb, Localize(k=5))
    base = open_kb(kb)
    frozen, centers = load_samples(base, "samples")[0], load_centers(base)
    settings = replace(SETTINGS, few_shot=(1, 100))
    expected = few_shot_rows(base, frozen, centers, None, settings)
    probes = fit_probes(frozen)
    fitted: list[int] = []

    def counted(train: SampleSet, val: SampleSet) -> Probe | None:
        fitted.append(len(train))
        return fit_probe(train, val)

    monkeypatch.setattr(few_shot, "fit_probe", counted)
    assert few_shot_rows(base, frozen, centers, None, settings, probes=probes) == expected
    assert fitted == [9] * len({row["modality"] for row in expected})


def test_a_recipe_that_so_few_cannot_follow_has_no_row(make_kb: Callable[..., Path], tmp_path: Path) -> None:
    """Descriptions alone, which no sample has: heads are absent, probes stay."""
    kb = make_kb(sample_texts=False)
    localize(kb, Localize(k=5))
    train(kb, tmp_path, replace(RECIPE, epochs=1))
    heads = load_heads(tmp_path)
    recipe = {**heads.metadata["settings"], "center_weight": 0.0, "align": "image", "modalities": ["video"]}
    heads = replace(heads, metadata={**heads.metadata, "settings": recipe})
    base = open_kb(kb)
    frozen, centers = load_samples(base, "samples")[0], load_centers(base)
    rows = few_shot_rows(base, frozen, centers, heads, SETTINGS)
    assert {row["method"] for row in rows} == {"probe"}


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
