"""Heads on disk and what they map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from data.errors import TrainingError
from trainer.align.heads import Heads, has_heads, load_heads, save_heads


def _heads() -> Heads:
    rng = np.random.default_rng(0)
    return Heads(
        weights={m: rng.normal(size=(4, 6)).astype(np.float32) for m in ("point", "audio")},
        biases={m: rng.normal(size=4).astype(np.float32) for m in ("point", "audio")},
        metadata={"encoders": {"text": "t"}, "epoch": 3},
    )


def test_heads_come_back_as_they_were_saved(tmp_path: Path) -> None:
    """Weights, biases and where they come from survive; the file is plain safetensors."""
    assert not has_heads(tmp_path)
    path = save_heads(tmp_path, _heads())
    assert has_heads(tmp_path)
    loaded = load_heads(tmp_path)
    for modality in ("audio", "point"):
        assert np.array_equal(loaded.weights[modality], _heads().weights[modality])
        assert np.array_equal(loaded.biases[modality], _heads().biases[modality])
    assert loaded.metadata == {"format": "unibind-heads-1", "encoders": {"text": "t"}, "epoch": 3}
    assert loaded.modalities == ("audio", "point", "text")
    assert sorted(load_file(path)) == ["audio.bias", "audio.weight", "point.bias", "point.weight"]


def test_equal_heads_are_equal_files(tmp_path: Path) -> None:
    """Saving twice gives the same bytes."""
    first = save_heads(tmp_path / "a", _heads()).read_bytes()
    assert save_heads(tmp_path / "b", _heads()).read_bytes() == first


def test_a_head_is_one_affine_map_and_a_division() -> None:
    """Rows are W x + b at unit length, against float64."""
    heads = _heads()
    x_ND = np.random.default_rng(1).normal(size=(9, 6)).astype(np.float32)
    y_NT = x_ND.astype(np.float64) @ heads.weights["audio"].T.astype(np.float64) + heads.biases["audio"]
    expected_NT = y_NT / np.linalg.norm(y_NT, axis=1, keepdims=True)
    np.testing.assert_allclose(heads.map("audio", x_ND), expected_NT, atol=1e-6)
    assert heads.parameters("audio") == 4 * 6 + 4
    assert heads.parameters("text") == 0


def test_text_is_where_the_others_go() -> None:
    """Text is only brought to unit length; zero stays zero."""
    mapped = _heads().map("text", np.array([[3, 4], [0, 0]], dtype=np.float32))
    np.testing.assert_allclose(mapped, [[0.6, 0.8], [0, 0]], atol=1e-7)


def test_a_modality_or_encoder_that_was_not_trained_is_refused() -> None:
    """Neither an unknown modality nor rows of another dimension pass."""
    with pytest.raises(TrainingError, match=r"no head for 'video' \(there are: audio, point\)"):
        _heads().map("video", np.ones((1, 6), dtype=np.float32))
    with pytest.raises(TrainingError, match="takes 6 dimensions, not 5"):
        _heads().map("audio", np.ones((1, 5), dtype=np.float32))


def test_missing_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    """Each gives one line that names the file and the command."""
    with pytest.raises(TrainingError, match="no trained heads; run `unibind train`"):
        load_heads(tmp_path)
    path = tmp_path / "heads.safetensors"
    whole = save_heads(tmp_path, _heads()).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TrainingError, match=r"heads\.safetensors: damaged"):
        load_heads(tmp_path)
    save_file({"audio.weight": np.ones((1, 1), dtype=np.float32)}, path)
    with pytest.raises(TrainingError, match="not a unibind-heads-1 file"):
        load_heads(tmp_path)


def test_heads_whose_tensors_do_not_fit_are_refused(tmp_path: Path) -> None:
    """A tensor that is missing, of another shape or type, or not finite is named, not met later."""
    path = save_heads(tmp_path, _heads())
    whole = load_file(path)
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()

    def refused(changes: dict[str, np.ndarray | None]) -> str:
        tensors = {name: tensor for name, tensor in {**whole, **changes}.items() if tensor is not None}
        save_file(tensors, path, metadata=metadata)
        with pytest.raises(TrainingError, match=r"heads\.safetensors: damaged \(.*; run") as caught:
            load_heads(tmp_path)
        return str(caught.value)

    weight = whole["audio.weight"]
    assert "no bias for audio" in refused({"audio.bias": None})
    assert "no weight for audio" in refused({"audio.weight": None})
    assert "do not fit" in refused({"audio.bias": np.zeros(1, np.float32)})
    assert "do not fit" in refused({"audio.weight": weight[None]})
    assert "not float32" in refused({"audio.weight": weight.astype(np.float64)})
    assert "not finite" in refused({"audio.weight": np.full_like(weight, np.nan)})
    assert "no tensor 'audio.hidden'" in refused({"audio.hidden.weight": weight})
    narrow = {"audio.weight": weight[:1], "audio.bias": whole["audio.bias"][:1]}
    assert "different dimensions" in refused(narrow)
