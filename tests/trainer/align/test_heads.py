"""Heads on disk and what they map."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from data.errors import TrainingError
from trainer.align.heads import Heads, has_heads, load_heads, merge_heads, save_heads
from trainer.align.shared import SharedSpace

FACTS = ("parameters", "epochs", "val_top1", "best_top1", "improved")


def _heads() -> Heads:
    rng = np.random.default_rng(0)
    return Heads(
        weights={m: rng.normal(size=(4, 6)).astype(np.float32) for m in ("point", "audio")},
        biases={m: rng.normal(size=4).astype(np.float32) for m in ("point", "audio")},
        metadata={"encoders": {"text": "t"}, "epochs": {"audio": 3, "point": 4}},
    )


def _shared() -> Heads:
    """Heads into a plane of the text space, with means."""
    rng = np.random.default_rng(5)
    basis_RT = np.linalg.qr(rng.normal(size=(4, 2)))[0].T.astype(np.float32)
    vectors = rng.normal(size=(4, 4)).astype(np.float32)
    means = {"audio": vectors[0], "text": vectors[1]}
    return replace(_heads(), means=means, space=SharedSpace(vectors[2], basis_RT))


def test_heads_come_back_as_they_were_saved(tmp_path: Path) -> None:
    """Weights, biases and where they come from survive; the file is plain safetensors."""
    assert not has_heads(tmp_path)
    path = save_heads(tmp_path, _heads())
    assert has_heads(tmp_path)
    loaded = load_heads(tmp_path)
    for modality in ("audio", "point"):
        assert np.array_equal(loaded.weights[modality], _heads().weights[modality])
        assert np.array_equal(loaded.biases[modality], _heads().biases[modality])
    assert loaded.metadata == {"format": "unibind-heads-2", **_heads().metadata}
    assert loaded.modalities == ("audio", "point", "text")
    assert sorted(load_file(path)) == ["audio.bias", "audio.weight", "point.bias", "point.weight"]


def test_means_and_the_shared_space_come_back(tmp_path: Path) -> None:
    """They have tensors of their own, beside the heads."""
    path = save_heads(tmp_path, _shared())
    loaded = load_heads(tmp_path)
    assert sorted(loaded.means) == ["audio", "text"]
    for modality, mean_T in loaded.means.items():
        np.testing.assert_array_equal(mean_T, _shared().means[modality])
    for ours, theirs in zip(vars(loaded.space).values(), vars(_shared().space).values(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    new = {"audio.mean", "text.mean", "categories.mean", "categories.basis"}
    assert set(load_file(path)) == {"audio.bias", "audio.weight", "point.bias", "point.weight", *new}
    assert loaded.modalities == ("audio", "point", "text")


def test_means_are_taken_off_and_texts_are_projected() -> None:
    """Against float64: samples without their modality's mean, texts without the categories', in the plane."""
    heads = _shared()
    rng = np.random.default_rng(6)
    x_ND = rng.normal(size=(9, 6)).astype(np.float32)

    def unit(x: np.ndarray) -> np.ndarray:
        return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))

    y_NT = unit(x_ND @ heads.weights["audio"].T.astype(np.float64) + heads.biases["audio"])
    np.testing.assert_allclose(heads.map("audio", x_ND), unit(y_NT - heads.means["audio"]), atol=1e-5)
    np.testing.assert_allclose(
        heads.map("point", x_ND), unit(x_ND @ heads.weights["point"].T + heads.biases["point"]), atol=1e-5
    )
    basis_RT, mean_T = heads.space.basis_RT, heads.space.mean_T
    assert basis_RT is not None
    words_ND = unit(rng.normal(size=(5, 4))).astype(np.float32)
    plane = basis_RT.T.astype(np.float64) @ basis_RT
    np.testing.assert_allclose(heads.place_text(words_ND), unit((words_ND - mean_T) @ plane), atol=1e-5)
    expected = unit(unit(words_ND @ plane) - heads.means["text"])
    np.testing.assert_allclose(heads.map("text", words_ND), expected, atol=1e-5)
    without = replace(heads, means={})
    np.testing.assert_array_equal(without.map("text", words_ND), heads.place_text(words_ND))


def test_heads_are_taken_and_merged_by_modality() -> None:
    """Of a modality that both have, the second's; facts about others stay."""
    rng = np.random.default_rng(7)
    first = replace(_shared(), metadata={n: {"audio": 1, "point": 1} for n in FACTS} | {"settings": "old"})
    other = replace(
        first,
        weights={"audio": rng.normal(size=(4, 6)).astype(np.float32)},
        biases={"audio": np.zeros(4, np.float32)},
        means={"audio": np.ones(4, np.float32)},
        metadata={n: {"audio": 2} for n in FACTS} | {"settings": "new"},
    )
    merged = merge_heads(first, other)
    assert merged.metadata == {n: {"audio": 2, "point": 1} for n in FACTS} | {"settings": "new"}
    np.testing.assert_array_equal(merged.weights["audio"], other.weights["audio"])
    np.testing.assert_array_equal(merged.weights["point"], first.weights["point"])
    np.testing.assert_array_equal(merged.means["audio"], np.ones(4))
    part = merged.of(["point"])
    assert list(part.weights) == list(part.biases) == ["point"]
    assert part.means == {}
    assert part.metadata is not merged.metadata


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
    with pytest.raises(TrainingError, match="not a unibind-heads-2 file; run `unibind train` again"):
        load_heads(tmp_path)
    earlier = {"unibind": '{"format": "unibind-heads-1"}'}
    save_file({"audio.weight": np.ones((1, 1), dtype=np.float32)}, path, metadata=earlier)
    with pytest.raises(TrainingError, match="not a unibind-heads-2 file but unibind-heads-1; run"):
        load_heads(tmp_path)


def test_heads_whose_tensors_do_not_fit_are_refused(tmp_path: Path) -> None:
    """A tensor that is missing, of another shape or type, or not finite is named, not met later."""
    path = save_heads(tmp_path, _shared())
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
    assert "mean or basis of audio that does not fit" in refused({"audio.mean": np.zeros(3, np.float32)})
    assert "mean or basis of categories that does" in refused({"categories.mean": np.zeros(4, np.float64)})
    basis = whole["categories.basis"]
    assert "mean or basis of categories.basis" in refused({"categories.basis": basis[:, :3]})
    assert "basis of the shape [4]" in refused({"categories.basis": basis[0]})
    assert "means or a basis that are not finite" in refused(
        {"categories.basis": np.full_like(basis, np.inf)}
    )
