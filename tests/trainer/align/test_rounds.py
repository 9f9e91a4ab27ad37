"""Text-centred and image-centred training, and the choice of modalities."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data.errors import TrainingError
from trainer.align.heads import Heads
from trainer.align.rounds import Round, rounds
from trainer.align.train import fit, train
from trainer.inputs import load_sample_texts, load_samples, open_kb
from trainer.localize.centers import load_centers
from trainer.localize.choose import localize
from trainer.settings import Localize, Train

MakeKb = Callable[..., Path]
QUICK = {"epochs": 3, "batch_size": 48, "learning_rate": 0.02}


def _second_round(kb: Path, heads: Heads) -> Round:
    base = open_kb(kb)
    sets, texts = load_samples(base, "samples")[0], load_sample_texts(base)[0]
    _, make = rounds(sets, texts, load_centers(base), Train(**QUICK, align="image"))
    return make(heads)


def test_image_centred_training_meets_images_of_the_same_object_and_category(planted_kb: Path) -> None:
    """Own texts are the aligned images of the sample's object, centers those of its category, train only."""
    localize(planted_kb, Localize(k=5))
    base = open_kb(planted_kb)
    fitted = fit(base, load_centers(base), Train(**QUICK, align="image"))
    this = _second_round(planted_kb, fitted.heads)
    assert set(this.pairs) == {"audio", "point"}
    images = load_samples(base, "samples")[0]["image"].split("train")
    mapped_ND = fitted.heads.map("image", images.vectors_ND)
    texts_MT = this.space.from_coordinates(this.texts_MR)
    for p in this.pairs.values():
        for row in range(len(p.samples)):
            own = texts_MT[p.own.starts_N[row] :][: p.own.counts_N[row]]
            same = images.object_N == p.samples.object_N[row]
            np.testing.assert_allclose(own, mapped_ND[same], atol=1e-6)
            centers = texts_MT[p.centers.starts_N[row] :][: p.centers.counts_N[row]]
            alike = images.category_N == p.samples.category_N[row]
            assert len(centers) == alike.sum() > 1
            np.testing.assert_allclose(np.sort(centers, axis=0), np.sort(mapped_ND[alike], axis=0), atol=1e-6)


def test_image_centred_training_has_the_heads_and_steps_of_the_other(make_kb: MakeKb, tmp_path: Path) -> None:
    """One head per modality, of equal size; its log counts on through the second round."""
    kb = make_kb()
    localize(kb, Localize(k=5))
    by_text = train(kb, tmp_path / "text", Train(**QUICK))
    by_image = train(kb, tmp_path / "image", Train(**QUICK, align="image"))
    assert by_image["modalities"] == by_text["modalities"]
    base = open_kb(kb)
    one, other = (fit(base, load_centers(base), Train(**QUICK, align=a)) for a in ("text", "image"))
    assert one.heads.metadata["parameters"] == other.heads.metadata["parameters"]
    steps = [row["step"] for row in other.log]
    assert steps == sorted(steps)
    assert other.log[-1]["epoch"] == 2 * QUICK["epochs"] + 1


def test_one_modality_alone(make_kb: MakeKb) -> None:
    """Only the modalities that are named get a head; one that is not there is refused by name."""
    kb = make_kb()
    localize(kb, Localize(k=5))
    base = open_kb(kb)
    fitted = fit(base, load_centers(base), Train(**QUICK, modalities=("audio",)))
    assert list(fitted.heads.weights) == ["audio"]
    with pytest.raises(TrainingError, match="names thermal, but no such sample is encoded"):
        fit(base, load_centers(base), Train(**QUICK, modalities=("audio", "thermal")))


def test_image_centred_training_needs_images(make_kb: MakeKb) -> None:
    """Without the modality image it says so."""
    kb = make_kb()
    localize(kb, Localize(k=5))
    base = open_kb(kb)
    with pytest.raises(TrainingError, match="needs train samples of the modality image"):
        fit(base, load_centers(base), Train(**QUICK, modalities=("audio", "point"), align="image"))
