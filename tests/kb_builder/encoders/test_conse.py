"""ConSE, against an independent computation in NumPy, and on a real photo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from data.errors import InputError
from data.wordnet import class_names, read_classes
from kb_builder.encoders import load_encoder
from kb_builder.encoders.conse import combine
from kb_builder.encoders.lite0 import weights_path
from kb_builder.encoders.pictures import pad_to_square


@pytest.fixture(scope="module")
def minilm() -> Any:
    return load_encoder("minilm")


@pytest.fixture(scope="module")
def conse() -> Any:
    return load_encoder("conse")


def test_classes_are_the_thousand_of_imagenet() -> None:
    """The files give a thousand classes in the classifier's order."""
    classes = read_classes()
    assert len(classes) == 1000
    assert (classes[0].name, classes[0].synset) == ("tench", "n01440764")
    assert classes[230].name == "Shetland sheepdog"
    assert all(each.gloss for each in classes)


def test_combination_equals_equation_four() -> None:
    """combine is the probability-weighted mean of the top ten class vectors, written out in loops."""
    rng = np.random.default_rng(5)
    posteriors = rng.dirichlet(np.full(40, 0.2), size=6).astype(np.float32)
    classes = rng.normal(size=(40, 12)).astype(np.float32)
    for row, vector in zip(posteriors, combine(posteriors, classes), strict=True):
        strongest = sorted(range(40), key=lambda k: -row[k])[:10]
        z = sum(float(row[k]) for k in strongest)
        expected = sum(float(row[k]) / z * classes[k].astype(np.float64) for k in strongest)
        np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-6)


def test_equals_the_plain_classifier_and_texts(conse: Any, minilm: Any, tmp_path: Path) -> None:
    """The whole encoder equals: plain network, softmax, ten strongest, mean of name and gloss vectors."""
    from efficientnet_lite_pytorch import EfficientNet

    pixels = np.random.default_rng(2).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((360, 280), Image.Resampling.BICUBIC).save(tmp_path / "blobs.png")
    vector = conse.encode([conse.prepare("image", tmp_path / "blobs.png")])[0]

    network = EfficientNet.from_name("efficientnet-lite0", image_size=224)
    network.load_state_dict(torch.load(weights_path(), weights_only=True))
    picture = conse.prepare("image", tmp_path / "blobs.png")[0]
    pixels_1CHW = torch.tensor(picture, dtype=torch.float32).permute(2, 0, 1)[None]
    with torch.no_grad():
        logits = network.eval()((pixels_1CHW - 127) / 128).numpy()[0].astype(np.float64)
    posteriors = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    strongest = np.argsort(-posteriors)[:10]
    classes = [read_classes()[k] for k in strongest]
    texts = minilm.encode([each.lemmas for each in classes]) + minilm.encode([each.gloss for each in classes])
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    expected = posteriors[strongest] @ texts
    np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-4)


def test_a_batch_mixes_samples_of_several_views(conse: Any) -> None:
    """Three views of one sample count as one: the mean of their posteriors."""
    rng = np.random.default_rng(8)
    views = np.stack([pad_to_square(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8), 224) for _ in range(4)])
    mixed = conse.encode([views[:3], views[3:]])
    alone = np.concatenate([conse.encode([views[:3]]), conse.encode([views[3:]])])
    np.testing.assert_allclose(mixed, alone, atol=1e-5)
    assert not np.allclose(mixed[0], conse.encode([views[:1]])[0], atol=1e-3)


def test_a_photo_of_a_sheltie_is_recognised_among_a_thousand_names(
    conse: Any, minilm: Any, real_files: Path
) -> None:
    """Against the thousand bare class names, a Shetland sheepdog is among the first three."""
    names = class_names()
    photo = conse.encode([conse.prepare("image", real_files / "image_dog.jpg")])
    texts = minilm.encode(names)
    ranked = np.argsort(-(texts @ photo[0]))
    assert "Shetland sheepdog" in [names[k] for k in ranked[:3]]


def test_a_space_of_pictures_cannot_carry_conse() -> None:
    """ConSE needs a text encoder beneath."""
    with pytest.raises(InputError, match="takes no texts"):
        load_encoder("conse:efficientnet-lite0")
