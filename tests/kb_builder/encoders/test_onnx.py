"""Text encoders by ONNX Runtime: the same vectors, or nearly and said so."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from data.errors import InputError, MissingDependencyError
from kb_builder.encoders import load_encoder, onnx
from kb_builder.encoders.onnx import AGREEMENT, load_onnx_encoder
from kb_builder.encoders.tokens import token_counter

TEXTS = ["a wooden sphere", "A steel torus rings for a long time.", "", "x " * 300, *"abcdef"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Exports of this test alone; without the packages, the test is skipped."""
    for package in onnx._PACKAGES:
        pytest.importorskip(package)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "unibind" / "onnx"


@pytest.mark.filterwarnings("ignore")  # of the exporter
def test_onnx_gives_the_vectors_of_the_model(cache: Path) -> None:
    """Texts of every length agree to 0.9999, in any batch; the encoder is another one, and exported once."""
    plain, encoder = load_encoder("minilm"), load_onnx_encoder("minilm", int8=False)
    assert (encoder.name, encoder.dim, encoder.modalities) == ("onnx:minilm", 384, frozenset({"text"}))
    assert encoder.identity != plain.identity
    assert encoder.agreement is not None
    assert encoder.agreement >= AGREEMENT
    together = encoder.encode(TEXTS)
    assert np.vecdot(together, plain.encode(TEXTS)).min() >= AGREEMENT
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    (file,) = cache.iterdir()
    before = file.stat().st_mtime_ns
    assert load_onnx_encoder("minilm", int8=False).identity == encoder.identity
    assert file.stat().st_mtime_ns == before


@pytest.mark.filterwarnings("ignore")
def test_int8_states_how_far_it_agrees(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    """8-bit weights come near, and the agreement is measured, logged and kept."""
    with caplog.at_level(logging.INFO):
        encoder = load_onnx_encoder("minilm", int8=True)
    assert encoder.agreement is not None
    assert 0.998 < encoder.agreement < AGREEMENT
    assert f"{encoder.agreement:.6f}" in caplog.text
    assert np.vecdot(encoder.encode(TEXTS), load_encoder("minilm").encode(TEXTS)).min() > 0.9
    assert encoder.identity != load_onnx_encoder("minilm", int8=False).identity


@pytest.mark.filterwarnings("ignore")
def test_int8_gives_a_text_one_vector_whatever_stands_beside_it(cache: Path) -> None:
    """No scale is shared between texts, so one alone equals one in a batch, as with float32."""
    encoder = load_onnx_encoder("minilm", int8=True)
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(encoder.encode(TEXTS), alone, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_int8_has_the_same_bits_with_signed_weights(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signed weights are a faster way to the same sums, so they are no other encoder."""
    if not onnx.has_vnni():
        pytest.skip("signed products are exact on processors with VNNI only")
    signed = load_onnx_encoder("minilm", int8=True)
    monkeypatch.setattr(onnx, "has_vnni", lambda: False)
    unsigned = load_onnx_encoder("minilm", int8=True)
    assert signed.identity == unsigned.identity
    np.testing.assert_array_equal(signed.encode(TEXTS), unsigned.encode(TEXTS))


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_export_is_refused_by_name(cache: Path) -> None:
    """A file that was cut off says which it is and what to do, in one line; made again, it serves."""
    load_onnx_encoder("minilm", int8=False)
    (file,) = cache.iterdir()
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(
        InputError, match=r"\.onnx: cannot be loaded .*; delete it, and the next run"
    ) as caught:
        load_onnx_encoder("minilm", int8=False)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)
    file.unlink()
    assert load_onnx_encoder("minilm", int8=False).agreement is not None


def test_rows_are_scaled_without_changing_the_layer() -> None:
    """What a product sees lies within [-1, 1]; the layer's results are those of nn.Linear, of zeros too."""
    torch.manual_seed(0)
    for bias in (True, False):
        layer = nn.Linear(6, 4, bias=bias).requires_grad_(False)
        x = torch.randn(3, 5, 6) * torch.tensor([1e-20, 1.0, 1e10])[:, None, None]
        x[1, 0] = 0
        wanted = layer(x)
        most = x.abs().amax(dim=(0, 1))
        onnx._scale_rows_of(layer, least=float(x.min()), most_K=most)
        torch.testing.assert_close(layer(x), wanted, rtol=1e-5, atol=1e-6)


def test_rows_of_a_gelu_are_lifted_without_changing_the_layer() -> None:
    """What a product sees lies within [0, 1], also where every value is as low as GELU goes."""
    torch.manual_seed(0)
    for bias in (True, False):
        layer: Any = nn.Linear(6, 4, bias=bias).requires_grad_(False)
        x = nn.functional.gelu(3 * torch.randn(3, 5, 6))
        x[1, 0] = -0.16997
        wanted = layer(x)
        onnx._scale_rows_of(layer, least=float(x.min()), most_K=x.abs().amax(dim=(0, 1)))
        assert layer.lifted
        torch.testing.assert_close(layer(x), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_an_export_that_is_off_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where float32 does not agree, it is not used under float32's name."""
    monkeypatch.setattr(onnx, "least_cosine", lambda *_: 0.9998)
    with pytest.raises(InputError, match=r"least cosine to minilm is 0\.999800, below 0\.9999"):
        load_onnx_encoder("minilm", int8=False)


def test_what_is_not_installed_is_said_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, the message is how to get it."""
    monkeypatch.setattr(onnx, "_PACKAGES", ("onnx_that_is_not_there",))
    with pytest.raises(MissingDependencyError, match=r"onnx_that_is_not_there: pip install .*\[onnx\]"):
        load_onnx_encoder("minilm", int8=False)


def test_tokens_are_counted_as_by_the_model_itself(cache: Path) -> None:
    """The gate for too long texts needs no export."""
    texts: list[Any] = ["a wooden sphere", "x " * 300]
    assert token_counter("onnx-int8:minilm").count(texts) == token_counter("minilm").count(texts)
    assert not cache.exists()
