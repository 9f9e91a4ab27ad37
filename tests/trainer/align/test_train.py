"""Training on the planted world: it learns what carries over to unseen categories, and only from train."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.errors import TrainingError
from kb_builder.store.table import read_vectors, write_vectors
from kb_builder.tables.schemas import SAMPLES, read_rows, write_table
from trainer.align.aligner import Aligner
from trainer.align.heads import Heads, load_heads
from trainer.align.maps import Scale
from trainer.align.optimiser import learning_rate
from trainer.align.pairs import Pairs, Span, make_pairs
from trainer.align.train import ValidationSet, fit, train
from trainer.inputs import load_sample_texts, load_samples, open_kb
from trainer.localize.centers import load_centers
from trainer.localize.choose import localize
from trainer.records import SampleSet
from trainer.score.geometry import unit_rows
from trainer.settings import Localize, Train

MakeKb = Callable[..., Path]
QUICK = {"epochs": 3, "batch_size": 48, "learning_rate": 0.02}


def _localized(make_kb: MakeKb, **options: Any) -> Path:
    kb = make_kb(**options)
    localize(kb, Localize(k=5))
    return kb


def _change_splits(kb: Path, change: Callable[[dict[str, Any]], str]) -> None:
    rows = read_rows(kb / "samples.parquet")
    write_table(kb / "samples.parquet", [{**row, "split": change(row)} for row in rows], SAMPLES)


def test_it_fits_what_it_is_shown(make_kb: MakeKb, tmp_path: Path) -> None:
    """The loss falls, the val samples come to be named, and the log has every step."""
    kb = _localized(make_kb)
    settings = Train(epochs=25, batch_size=48, learning_rate=0.02, center_weight=0.25, val_every=4)
    summary = train(kb, tmp_path, settings)
    log = read_rows(tmp_path / "train_log.parquet")
    losses = [row["loss"] for row in log[1:]]
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:10])
    assert summary["val_top1"] > 0.9
    assert [row["step"] for row in log] == list(range(summary["steps"] + 1))
    looked = [row["epoch"] for row in log if row["val_top1"] is not None]
    assert looked == [0, 4, 8, 12, 16, 20, 24, 25]
    assert set(summary["epochs_kept"]) == {"audio", "image", "point", "text"}
    assert set(summary["epochs_kept"].values()) <= set(looked)
    for row in log[1:]:
        expected = 0.75 * row["loss_description"] + 0.25 * row["loss_center"]
        assert row["loss"] == pytest.approx(expected, rel=1e-5)


def test_each_modality_keeps_its_last_good_epoch(
    make_kb: MakeKb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last within one standard error of its own best so far; another modality's accuracy has no say."""
    kb = _localized(make_kb)
    # 18 val samples each: one standard error of 0.9 is 0.07.
    given = {
        "image": [0.1, 0.9, 0.84, 0.5, 0.6, 0.6],
        "audio": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
        "point": [1.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        "text": [0.5, 0.5, 0.5, 0.5, 0.5, 0.0],
    }
    looks = iter(range(6))

    def top1(self: ValidationSet, heads: Heads) -> dict[str, float]:
        now = next(looks)
        return {modality: values[now] for modality, values in given.items()}

    monkeypatch.setattr(ValidationSet, "top1", top1)
    alike = {"epochs": 5, "batch_size": 48, "val_every": 1}
    summary = train(kb, tmp_path, Train(**alike))
    assert summary["epochs_kept"] == {"audio": 5, "image": 2, "point": 0, "text": 4}
    assert summary["val_top1"] == pytest.approx((0.6 + 0.84 + 1.0 + 0.5) / 4)
    monkeypatch.undo()
    heads = load_heads(tmp_path)
    assert heads.metadata["best_top1"] == {"audio": 0.6, "image": 0.9, "point": 1.0, "text": 0.5}
    assert heads.metadata["improved"] == {"audio": 5, "image": 1, "point": 0, "text": 0}
    _change_splits(kb, lambda row: "test" if row["split"] == "val" else row["split"])
    last = fit(open_kb(kb), load_centers(open_kb(kb)), Train(**alike)).heads
    np.testing.assert_array_equal(heads.weights["audio"], last.weights["audio"])
    assert not np.array_equal(heads.weights["image"], last.weights["image"])


def test_two_runs_give_the_same_bytes(make_kb: MakeKb, tmp_path: Path) -> None:
    """Heads and log are those of the seed; another seed gives others."""
    kb = _localized(make_kb)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(kb, tmp_path / name, Train(**QUICK, seed=seed))
    for file in ("heads.safetensors", "train_log.parquet"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    heads = [load_heads(tmp_path / name).weights["image"] for name in ("a", "c")]
    assert not np.array_equal(*heads)


@pytest.mark.parametrize(
    ("loss", "most", "labelled"),
    [("infonce", 3, False), ("official", 3, False), ("sigmoid", 2, False), ("infonce", 3, True)],
)
def test_the_number_of_threads_changes_no_bit(loss: Any, most: int, labelled: bool) -> None:
    """A step large enough for several threads leaves the same heads with one as with more."""
    n, dim = 2_048, 256
    rng = np.random.default_rng(0)
    features_ND, texts_MD = (unit_rows(rng.normal(size=(n, dim)).astype(np.float32)) for _ in range(2))
    none_N, all_N = np.zeros(n, np.int64), np.arange(n)
    category_N = all_N % 64 if labelled else none_N - 1
    samples = SampleSet("image", tuple(map(str, all_N)), np.full(n, "train"), category_N, all_N, features_ND)
    centers = Span(np.where(labelled, category_N, all_N), none_N + labelled)
    pairs = {"image": Pairs(samples, all_N // 2, Span(all_N, none_N + 1), centers)}
    settings = Train(epochs=2, batch_size=1_024, loss=loss)
    found = []
    before = torch.get_num_threads()
    try:
        for threads in range(1, most + 1):
            torch.set_num_threads(threads)
            aligner = Aligner(pairs, texts_MD, all_N[:64] if labelled else none_N[:0], settings)
            log = [*aligner.epoch(), *aligner.epoch()]
            heads = aligner.heads({})
            found.append((log, heads.weights["image"].tobytes(), heads.biases["image"].tobytes()))
    finally:
        torch.set_num_threads(before)
    assert all(each[1:] == found[0][1:] and str(each[0]) == str(found[0][0]) for each in found)


def test_test_samples_and_unseen_categories_have_no_say(make_kb: MakeKb, tmp_path: Path) -> None:
    """Spoiling every test vector and calling unseen samples `val` leaves heads and log as they are."""
    kb = _localized(make_kb)
    train(kb, tmp_path / "before", Train(**QUICK))
    tested = {row["sample_id"] for row in read_rows(kb / "samples.parquet") if row["split"] == "test"}
    folder = kb / "embeddings" / "img-0" / "samples"
    stored = read_vectors(folder)
    vectors_ND = stored.vectors_ND.copy()
    vectors_ND[[row for row, name in enumerate(stored.ids) if name in tested]] *= -1
    write_vectors(folder, ids=stored.ids, groups=stored.groups, vectors_ND=vectors_ND)
    unseen = {"m0-s0", "m1-s1", "m2-s2"}
    _change_splits(kb, lambda row: "val" if row["category_id"] in unseen else row["split"])
    train(kb, tmp_path / "after", Train(**QUICK))
    for file in ("heads.safetensors", "train_log.parquet"):
        assert (tmp_path / "before" / file).read_bytes() == (tmp_path / "after" / file).read_bytes()


def test_without_val_samples_the_last_epoch_is_kept(make_kb: MakeKb, tmp_path: Path) -> None:
    """Nothing to choose by: the schedule is run to its end."""
    kb = _localized(make_kb)
    _change_splits(kb, lambda row: "test" if row["split"] == "val" else row["split"])
    summary = train(kb, tmp_path, Train(**QUICK))
    assert set(summary["epochs_kept"].values()) == {3}
    assert summary["val_top1"] is None
    assert {row["val_top1"] for row in read_rows(tmp_path / "train_log.parquet")} == {None}


def test_descriptions_alone_are_enough(make_kb: MakeKb, tmp_path: Path) -> None:
    """Unlabelled samples with descriptions train; there is no center loss and nothing to validate by."""
    kb = _localized(make_kb, labelled=False)
    summary = train(kb, tmp_path, Train(**QUICK))
    assert summary["train_without_label"] == 216
    assert summary["train_without_own_text"] == 54  # the notes themselves
    last = read_rows(tmp_path / "train_log.parquet")[-1]
    assert last["loss_center"] is None
    assert last["loss"] == pytest.approx(last["loss_description"])


def test_labels_alone_are_enough(make_kb: MakeKb, tmp_path: Path) -> None:
    """Labelled samples without descriptions and notes train on their categories' centers."""
    kb = _localized(make_kb, sample_texts=False)
    _change_splits(kb, lambda row: "test" if row["modality"] == "text" else row["split"])
    summary = train(kb, tmp_path, Train(**QUICK))
    assert summary["train_without_own_text"] == 162
    last = read_rows(tmp_path / "train_log.parquet")[-1]
    assert last["loss_description"] is None
    assert last["loss"] == pytest.approx(last["loss_center"])
    assert summary["val_top1"] > 0.5


def test_a_weight_that_leaves_no_text_is_refused(make_kb: MakeKb, tmp_path: Path) -> None:
    """All weight on texts that no sample has would train nothing, silently."""
    kb = _localized(make_kb, sample_texts=False)
    _change_splits(kb, lambda row: "test" if row["modality"] == "text" else row["split"])
    with pytest.raises(TrainingError, match=r"train\.center_weight = 0 gives the only texts"):
        train(kb, tmp_path, Train(**QUICK, center_weight=0.0))


def test_samples_without_a_label_take_their_share_of_the_loss(make_kb: MakeKb, tmp_path: Path) -> None:
    """A third has no category: their share of the loss is for descriptions, whatever weight centers have.

    Notes have no description; those without a category are not trained.
    """
    kb = _localized(make_kb)
    rows = read_rows(kb / "samples.parquet")
    for number, row in enumerate(row for row in rows if row["split"] == "train"):
        row["category_id"] = None if number % 3 == 0 else row["category_id"]
    write_table(kb / "samples.parquet", rows, SAMPLES)
    train(kb, tmp_path, Train(**QUICK))
    for row in read_rows(tmp_path / "train_log.parquet")[1:]:
        expected = (54 * row["loss_description"] + 144 * row["loss_center"]) / 198
        assert row["loss"] == pytest.approx(expected, rel=1e-4)


def test_the_first_step_has_the_losses_of_the_formulas(make_kb: MakeKb) -> None:
    """Own texts are contrasted within each modality, centers across all of them, the same category left out.

    With one text of either kind per sample and all samples in one batch, nothing is left to chance.
    """
    kb = make_kb()
    localize(kb, Localize(k=1))
    _change_splits(kb, lambda row: "test" if row["modality"] == "text" else row["split"])
    base = open_kb(kb)
    sets, texts, centers = load_samples(base, "samples")[0], load_sample_texts(base)[0], load_centers(base)
    pairs, texts_MT, _ = make_pairs(sets, texts, centers, text_head=False)
    settings = Train(epochs=1, centers="one", center_weight=0.5, start="random")
    aligner = Aligner(pairs, texts_MT, centers.category_N, settings)
    heads = aligner.heads({})
    (row,) = aligner.epoch()

    def loss(x: np.ndarray, t: np.ndarray, groups: np.ndarray) -> float:
        logits = x.astype(np.float64) @ t.T / 0.07
        logits[(groups[:, None] == groups[None, :]) & ~np.eye(len(x), dtype=bool)] = -np.inf
        both = [np.log(np.exp(logits).sum(axis=axis)) - np.diag(logits) for axis in (0, 1)]
        return float(np.mean(both))

    train_sets = {m: s.split("train") for m, s in sets.items() if m != "text"}
    mapped = {m: heads.map(m, s.vectors_ND) for m, s in train_sets.items()}
    own = {
        m: np.stack([texts.vectors_ND[texts.rows[name][0]] for name in s.sample_ids])
        for m, s in train_sets.items()
    }
    within = [loss(mapped[m], own[m], s.category_N) for m, s in train_sets.items()]
    category_N = np.concatenate([s.category_N for s in train_sets.values()])
    across = loss(np.concatenate([*mapped.values()]), centers.vectors_ND[category_N], category_N)
    assert row["loss_description"] == pytest.approx(np.mean(within), rel=1e-5)
    assert row["loss_center"] == pytest.approx(across, rel=1e-5)
    assert row["loss"] == pytest.approx((np.mean(within) + across) / 2, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "trained"),
    [
        ({"head": "residual", "start": "ridge"}, "fewer"),
        ({"head": "low-rank", "start": "procrustes", "rank": 2}, "fewer"),
        ({"head": "mlp", "hidden": 24}, None),
        ({"start": "random", "subspace": 0.0}, None),
        ({"loss": "sigmoid", "centers": "one"}, None),
        ({"centers": "all"}, None),
        ({"centers": "one", "center_weight": 0.5}, None),
        ({"mixing": 1.0, "centred": False}, None),
        ({"mixing": 0.0, "subspace": 0.0, "text_head": False}, None),
        ({"loss": "official", "learning_rate": 0.05}, None),
        ({"ema": 0.9, "schedule": "linear"}, None),
    ],
    ids=str,
)
def test_every_head_start_and_loss_learns(
    make_kb: MakeKb, tmp_path: Path, options: dict[str, Any], trained: str | None
) -> None:
    """Each names the val samples of the planted world far above chance, and comes back from the disk."""
    kb = _localized(make_kb)
    summary = train(kb, tmp_path, Train(**{"epochs": 12, "batch_size": 48, "learning_rate": 0.02} | options))
    assert summary["val_top1"] > 0.5
    heads = load_heads(tmp_path)
    assert heads.parameters("image") == heads.metadata["parameters"]["image"]
    stored = heads.weights["image"].size + heads.biases["image"].size
    if "subspace" in options:
        assert heads.parameters("image") == stored
    if trained == "fewer":
        assert heads.parameters("image") < stored
    assert ("image" in heads.hidden) == (options.get("head") == "mlp")


def test_the_average_of_a_run_is_not_its_last_step(make_kb: MakeKb, tmp_path: Path) -> None:
    """With `ema` other heads are kept; what is trained, and so the log, stays the same."""
    kb = _localized(make_kb)
    _change_splits(kb, lambda row: "test" if row["split"] == "val" else row["split"])
    for name, ema in (("plain", 0.0), ("averaged", 0.9)):
        train(kb, tmp_path / name, Train(**QUICK, ema=ema))
    logs = [(tmp_path / name / "train_log.parquet").read_bytes() for name in ("plain", "averaged")]
    assert logs[0] == logs[1]
    plain, averaged = (load_heads(tmp_path / name).weights["image"] for name in ("plain", "averaged"))
    assert not np.array_equal(plain, averaged)
    assert np.linalg.norm(plain - averaged) < 0.5 * np.linalg.norm(plain)


def test_patience_ends_a_run_that_gets_no_better(make_kb: MakeKb, tmp_path: Path) -> None:
    """So many epochs after the last modality got better, the run ends."""
    kb = _localized(make_kb)
    settings = Train(epochs=60, batch_size=48, learning_rate=0.02, patience=3, val_every=1)
    summary = train(kb, tmp_path, settings)
    log = read_rows(tmp_path / "train_log.parquet")
    assert log[-1]["epoch"] == max(load_heads(tmp_path).metadata["improved"].values()) + 3 < 60
    assert summary["steps"] == log[-1]["step"]


def test_small_modalities_keep_their_share(make_kb: MakeKb, tmp_path: Path) -> None:
    """A modality with few samples is trained in every step, as often as the largest."""
    kb = _localized(make_kb)
    _change_splits(
        kb,
        lambda row: "test" if row["modality"] == "audio" and "-00-" not in row["sample_id"] else row["split"],
    )
    summary = train(kb, tmp_path, Train(epochs=2, batch_size=48, text_head=False))
    assert summary["modalities"] == {"audio": 9, "image": 54, "point": 54}
    assert summary["steps"] == 2 * 4  # 54 samples in batches of 16, whatever audio has


def test_the_scale_folds_into_the_head() -> None:
    """A head on scaled features and its folded form on raw ones give the same rows."""
    rng = np.random.default_rng(0)
    x_ND = (rng.normal(size=(30, 8)) * 4 + 9).astype(np.float32)
    scale = Scale.of(x_ND)
    scaled_ND = scale.apply(x_ND)
    np.testing.assert_allclose(scaled_ND.mean(axis=0), 0, atol=1e-6)
    assert np.mean(np.sum(scaled_ND**2, axis=1)) == pytest.approx(1, rel=1e-5)
    weight, bias = rng.normal(size=(5, 8)).astype(np.float32), rng.normal(size=5).astype(np.float32)
    folded, shifted = scale.fold(weight, bias)
    np.testing.assert_allclose(x_ND @ folded.T + shifted, scaled_ND @ weight.T + bias, atol=1e-5)
    assert np.isfinite(Scale.of(np.ones((4, 8), dtype=np.float32)).apply(x_ND)).all()


def test_the_rate_warms_up_and_decays() -> None:
    """Linear to the peak over the first tenth, half a cosine to zero over the rest."""
    settings = Train(learning_rate=1.0, warmup=0.1)
    rates = [learning_rate(step, 100, settings) for step in range(1, 101)]
    assert rates[:10] == pytest.approx([0.1 * i for i in range(1, 11)])
    assert rates[54] == pytest.approx(0.5)
    assert rates[-1] == pytest.approx(0, abs=1e-12)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert learning_rate(1, 1, settings) == 1.0
    straight = [learning_rate(step, 100, replace(settings, schedule="linear")) for step in range(1, 101)]
    assert straight[:10] == rates[:10]
    assert straight[9:] == pytest.approx([1 - i / 90 for i in range(91)])


def test_nothing_to_train_on_is_refused_and_writes_nothing(make_kb: MakeKb, tmp_path: Path) -> None:
    """One line for the user, and no half-made run."""
    kb = _localized(make_kb)
    _change_splits(kb, lambda row: "test")
    with pytest.raises(TrainingError, match="nothing to train on"):
        train(kb, tmp_path / "run", Train(**QUICK))
    assert not (tmp_path / "run").exists()


def test_heads_say_what_they_were_trained_on(make_kb: MakeKb, tmp_path: Path) -> None:
    """Encoders, settings and epoch travel with the weights, and the map takes raw features."""
    kb = _localized(make_kb)
    train(kb, tmp_path, Train(**QUICK))
    heads = load_heads(tmp_path)
    assert heads.metadata["encoders"] == {"text": "txt-0", "samples": "img-0", "zero_shot": "zs-0"}
    assert heads.metadata["settings"]["batch_size"] == 48
    image = load_samples(open_kb(kb), "samples")[0]["image"]
    lengths = np.linalg.norm(heads.map("image", image.vectors_ND), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-6)


def test_a_device_that_is_not_there_is_refused(make_kb: MakeKb, tmp_path: Path) -> None:
    """One line names the setting, the device and what always works."""
    with pytest.raises(
        TrainingError, match=r'train.device = "cuda:99" is not available .*set "auto" or "cpu"'
    ):
        train(_localized(make_kb), tmp_path, Train(**QUICK, device="cuda:99"))


def test_coarser_products_learn_the_same(make_kb: MakeKb, tmp_path: Path) -> None:
    """With `medium` precision val samples are named as well, and torch's setting is put back."""
    kb = _localized(make_kb)
    settings = Train(epochs=25, batch_size=48, learning_rate=0.02)
    reached = [
        train(kb, tmp_path / p, replace(settings, precision=p))["val_top1"] for p in ("highest", "medium")
    ]
    assert reached[1] == pytest.approx(reached[0], abs=0.1)
    assert torch.get_float32_matmul_precision() == "highest"
