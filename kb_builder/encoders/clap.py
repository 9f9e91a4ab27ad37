"""CLAP through transformers: texts and sounds in one space, without training (`clap:FOLDER`).

Sounds are prepared as by the model's own feature extractor, with one difference: of a sound longer than the
model's window (10 s), the extractor takes random pieces, and we take evenly spaced ones. Neither torchaudio
nor librosa is needed.

Shape legend: T samples of sound, W frames of a spectrogram, M mel bands.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.modality import Modality
from data.readers import read_audio
from data.readers.axes import File, path_of
from data.readers.payload import Floats
from data.readers.spans import third_starts
from kb_builder.encoders.paired import (
    Inputs,
    PairedEncoder,
    hash_folder,
    load_network,
    load_preparation,
    paired_encoder,
    read_kind,
)
from kb_builder.encoders.text_side import TextSide, load_text_side
from kb_builder.weights.known import find_model

VERSION = 2  # of the preparation of texts and sounds; part of the identity
WINDOWS = 3  # of a sound longer than the model's window: its beginning, middle and end
_KINDS = ("clap",)
_SOUNDS_PER_PASS = 8


def load_clap(name: str, *, device: str = "cpu") -> PairedEncoder:
    """Load the model of a folder, or of that name in the model folder, as an encoder of texts and sounds.

    Raises InputError if the folder has no such model, and MissingDependencyError for a missing package.
    """
    shown, folder = f"clap:{name}", find_model(name, encoder="clap")
    read_kind(shown, folder, _KINDS)
    weights = hash_folder(folder)
    text = clap_text_side(name)
    extractor = _extractor(shown, folder)
    network = load_network(shown, folder, device=device)
    fused = bool(network.config.audio_config.enable_fusion)

    def look(_: Modality, file: File) -> Inputs:
        samples_T = read_audio(path_of(file), rate=extractor.sampling_rate).samples_T
        return fused_mel(samples_T, extractor) if fused else window_mels(samples_T, extractor)

    return paired_encoder(
        shown,
        folder,
        network,
        text,
        look,
        features="get_audio_features",
        views_per_pass=_SOUNDS_PER_PASS,
        weights=weights,
        preprocessing=f"clap-{VERSION}",
        dim=int(network.config.projection_dim),
        modalities=frozenset({"text", "audio"}),
    )


def clap_text_side(name: str) -> TextSide:
    """The text side alone, without weights."""
    folder = find_model(name, encoder="clap")
    shown = f"clap:{name}"
    read_kind(shown, folder, _KINDS)
    return load_text_side(shown, folder, fixed=False)


def _extractor(shown: str, folder: Path) -> Any:
    from transformers import ClapFeatureExtractor

    return load_preparation(
        shown, folder, lambda: ClapFeatureExtractor, of="sounds", what="feature extractor"
    )


def window_mels(samples_T: Floats, extractor: Any) -> Inputs:
    """The inputs of a model without fusion: `input_features` float32[V, 1, W, M], V = 1 or `WINDOWS`."""
    longest = extractor.nb_max_samples
    over = len(samples_T) - longest
    starts = [over * number // (WINDOWS - 1) for number in range(WINDOWS)] if over > 0 else [0]
    windows = [_padded(samples_T[start : start + longest], extractor) for start in starts]
    mels = [_log_mel(window_T, extractor, extractor.mel_filters_slaney) for window_T in windows]
    return {"input_features": np.stack(mels)[:, None], "is_longer": np.zeros((len(mels), 1), np.bool_)}


def fused_mel(samples_T: Floats, extractor: Any) -> Inputs:
    """The inputs of a model with fusion: `input_features` float32[1, 4, W, M].

    The whole spectrogram scaled down, then a piece of its front, middle and back (each from the middle of a
    third of the possible positions). A short sound is repeated four times, and its `is_longer` is always
    false, as in the published model's evaluation; transformers sets one of a batch to true at random.
    """
    mel_WM = _log_mel(_padded(samples_T, extractor), extractor, extractor.mel_filters)
    frames = extractor.nb_max_samples // extractor.hop_length + 1
    longer = len(mel_WM) > frames
    pieces = [mel_WM] * 4
    if longer:
        whole = torch.from_numpy(mel_WM)[None, None]
        size = [frames, mel_WM.shape[1]]
        shrunk = torch.nn.functional.interpolate(whole, size=size, mode="bilinear", align_corners=False)
        starts = third_starts(len(mel_WM), frames)
        pieces = [shrunk[0, 0].numpy(), *(mel_WM[start : start + frames] for start in starts)]
    return {"input_features": np.stack(pieces)[None], "is_longer": np.array([[longer]])}


def _padded(samples_T: Floats, extractor: Any) -> Floats:
    """Extend a short sound to the model's window: repeated as often as it fits, then silence."""
    longest = extractor.nb_max_samples
    if len(samples_T) >= longest:
        return samples_T
    times = longest // len(samples_T)
    if extractor.padding == "repeat":
        return np.tile(samples_T, times + 1)[:longest]
    repeated_T = np.tile(samples_T, times) if extractor.padding == "repeatpad" else samples_T
    return np.pad(repeated_T, (0, longest - len(repeated_T)))


def _log_mel(samples_T: Floats, extractor: Any, filters: Any) -> Floats:
    """Log mel spectrogram in decibels, float32[W, M], by the function of transformers."""
    from transformers.audio_utils import spectrogram, window_function

    mel_MW = spectrogram(
        samples_T.astype(np.float64),
        window_function(extractor.fft_window_size, "hann"),
        frame_length=extractor.fft_window_size,
        hop_length=extractor.hop_length,
        power=2.0,
        mel_filters=filters,
        log_mel="dB",
    )
    return np.ascontiguousarray(mel_MW.T, dtype=np.float32)
