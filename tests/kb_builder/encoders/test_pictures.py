"""The EfficientNet-Lite0 encoder, against a direct forward pass of the unchanged network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from data.errors import SampleError
from data.readers import read
from data.render import render
from data.threads import one_thread_each
from kb_builder.encoders import lite0, load_encoder
from kb_builder.encoders.lite0 import SIZE, weights_path
from kb_builder.encoders.pictures import pad_to_square


@pytest.fixture(scope="module")
def encoder() -> Any:
    return load_encoder("efficientnet-lite0")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, Path]]:
    """A picture, a sound and a cloud: one, one and four views."""
    folder = tmp_path_factory.mktemp("media")
    rng = np.random.default_rng(3)
    Image.fromarray(rng.integers(0, 256, (90, 200, 3), dtype=np.uint8)).save(folder / "wide.png")
    soundfile.write(folder / "tone.wav", 0.5 * np.sin(np.arange(16000) * 0.3), 16000)
    np.save(folder / "cloud.npy", rng.normal(size=(500, 3)).astype(np.float32))
    return [("image", folder / "wide.png"), ("audio", folder / "tone.wav"), ("point", folder / "cloud.npy")]


def direct_features(modality: Any, path: Path) -> np.ndarray:
    """Pooled features by the package's own network, batch norms and all, one view at a time."""
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0", image_size=SIZE)
    network.load_state_dict(torch.load(weights_path(), weights_only=True))
    network.eval()
    views = []
    for view in render(read(modality, path)):
        pixels = torch.tensor(pad_to_square(view, SIZE), dtype=torch.float32).permute(2, 0, 1)[None]
        with torch.no_grad():
            views.append(network.extract_features((pixels - 127) / 128).mean((2, 3)).numpy()[0])
    mean = np.mean(views, axis=0)
    return np.asarray(mean / np.linalg.norm(mean))


@pytest.mark.parametrize("count", [1, 14])
def test_padding_and_clipping_convolutions_change_no_bit(
    monkeypatch: pytest.MonkeyPatch, encoder: Any, count: int
) -> None:
    """Stored vectors stay valid: the network gives the bits that it gave with padded copies of its inputs, a
    ReLU6 of its own behind each convolution, and all blocks for all pictures at once."""
    pictures = np.random.default_rng(5).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)
    with one_thread_each():
        ours = lite0.pooled_features(encoder.network, pictures)
        assert lite0._clips_at_once()
        monkeypatch.setattr(lite0, "_pad_by_itself", lambda module: None)
        monkeypatch.setattr(lite0, "_clips_at_once", lambda: False)
        monkeypatch.setattr(lite0, "_FIRST_PIXELS", count * SIZE**2)
        plain = lite0.load_network(SIZE)
        np.testing.assert_array_equal(ours, lite0.pooled_features(plain, pictures))
    weights = [sum(each.numel() for each in network.parameters()) for network in (encoder.network, plain)]
    assert weights[0] == weights[1], "the card names the published number of parameters"


def test_equals_a_direct_forward_pass(encoder: Any, files: list[tuple[Any, Path]]) -> None:
    """A batch of mixed modalities gives the features of the plain network, averaged over each one's views."""
    vectors = encoder.encode([encoder.prepare(modality, path) for modality, path in files])
    expected = [direct_features(modality, path) for modality, path in files]
    np.testing.assert_allclose(vectors, np.stack(expected), atol=1e-5)


def test_batch_size_does_not_matter_and_bits_repeat(encoder: Any, files: list[tuple[Any, Path]]) -> None:
    """Alone or together agree to 1e-5, and the same batch gives the same bits."""
    batch = [encoder.prepare(modality, path) for modality, path in files]
    together = encoder.encode(batch)
    alone = np.concatenate([encoder.encode([each]) for each in batch])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert together.tobytes() == encoder.encode(batch).tobytes()
    assert encoder.encode([]).shape == (0, 1280)


def test_views_are_small_squares(encoder: Any, files: list[tuple[Any, Path]]) -> None:
    """Every view is uint8[S, S, 3]; a cloud has several."""
    shapes = [encoder.prepare(modality, path).shape for modality, path in files]
    assert [shape[1:] for shape in shapes] == [(SIZE, SIZE, 3)] * 3
    assert shapes[2][0] > 1


def test_padding_keeps_the_whole_picture() -> None:
    """A wide picture keeps its shape and gets white bars above and below."""
    square = pad_to_square(np.zeros((50, 100, 3), np.uint8), 64)
    assert square.shape == (64, 64, 3)
    assert (square[:16] == 255).all() and (square[48:] == 255).all() and (square[16:48] == 0).all()


def test_an_unreadable_file_is_a_sample_error(encoder: Any, tmp_path: Path) -> None:
    """A broken picture is refused by name when it is prepared."""
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(SampleError, match=r"broken.png"):
        encoder.prepare("image", tmp_path / "broken.png")
