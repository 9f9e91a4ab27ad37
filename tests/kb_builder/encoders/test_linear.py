"""Linear layers by oneDNN: the published model's vectors, in less time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from kb_builder.encoders import devices as linear
from kb_builder.encoders.sentence import load_sentence_encoder


def test_a_linear_layer_is_that_of_torch_up_to_rounding() -> None:
    """Rows, sequences and layers without a bias give what `nn.Linear` gives."""
    torch.manual_seed(0)
    for bias in (True, False):
        layer = nn.Linear(48, 32, bias=bias).requires_grad_(False)
        inputs = [torch.randn(5, 48), torch.randn(2, 7, 48), torch.randn(1, 48)]
        wanted = [layer(x) for x in inputs]
        model = nn.Sequential(layer)
        linear.use_onednn(model)
        assert type(model[0]) is (linear.OneDnnLinear if linear._available() else nn.Linear)
        for x, y in zip(inputs, wanted, strict=True):
            torch.testing.assert_close(model(x), y, atol=1e-5, rtol=1e-5)
        linear.as_published(model)
        assert type(model[0]) is nn.Linear


def test_only_float32_layers_are_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half precision, subclasses, and builds of torch without oneDNN stay as they are."""

    class Own(nn.Linear):
        pass

    model = nn.Sequential(nn.Linear(4, 4).to(torch.bfloat16), Own(4, 4))
    linear.use_onednn(model)
    assert [type(module) for module in model] == [nn.Linear, Own]
    monkeypatch.setattr(linear, "_available", lambda: False)
    plain = nn.Sequential(nn.Linear(4, 4))
    linear.use_onednn(plain)
    assert type(plain[0]) is nn.Linear


def test_minilm_is_the_published_model() -> None:
    """With torch's own layers, the same texts have a cosine of 0.999999 with ours at least."""
    encoder: Any = load_sentence_encoder("minilm")
    texts = ["a wooden sphere", "An otter holds its neighbour's paw.", "", "x " * 300]
    ours = encoder.encode(texts)
    linear.as_published(encoder.model)
    try:
        theirs = encoder.model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
    finally:
        linear.use_onednn(encoder.model)
    assert np.vecdot(ours, theirs).min() > 0.999999
