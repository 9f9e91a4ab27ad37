"""CLAP from small random checkpoints on disk, against transformers' own calls."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import transformers

from data.errors import InputError, SampleError
from kb_builder.encoders import load_encoder
from kb_builder.encoders.tokens import token_counter

RATE = 48_000
TEXTS = ["a dog barks", "b", "", "rain on a roof in the night", "siren"]
Save = Callable[[bool], Path]


@pytest.fixture(scope="module")
def save_clap(tmp_path_factory: pytest.TempPathFactory) -> Save:
    """`save_clap(fused)`: a random CLAP that hears one second at once, as transformers saves it."""
    folders: dict[bool, Path] = {}

    def save(fused: bool) -> Path:
        if fused not in folders:
            folders[fused] = tmp_path_factory.mktemp("fused" if fused else "unfused")
            _save(fused, folders[fused])
        return folders[fused]

    return save


def _save(fused: bool, folder: Path) -> None:
    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "Ġ", *map(chr, range(ord("a"), ord("z") + 1))]
    tower = {"num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 32}
    config = transformers.ClapConfig(
        text_config=tower
        | {"vocab_size": len(words), "hidden_size": 16, "max_position_embeddings": 34, "projection_dim": 16},
        audio_config={
            "spec_size": 128,
            "num_mel_bins": 64,
            "window_size": 4,
            "patch_embeds_hidden_size": 8,
            "hidden_size": 16,
            "depths": [2, 2],
            "num_hidden_layers": 2,
            "num_attention_heads": [2, 2],
            "projection_dim": 16,
            "enable_fusion": fused,
        },
        projection_dim=16,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.ClapModel(config).eval()
        for weight in model.parameters():
            torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(folder)
    tokenizer = transformers.RobertaTokenizerFast(
        vocab={word: n for n, word in enumerate(words)}, merges=[], model_max_length=32
    )
    tokenizer.save_pretrained(folder)
    extractor = transformers.ClapFeatureExtractor(
        max_length_s=1, truncation="fusion" if fused else "rand_trunc", padding="repeatpad"
    )
    extractor.save_pretrained(folder)


@pytest.fixture
def sounds(tmp_path: Path) -> list[Path]:
    """Three noises of at most a second, one of them in two channels."""
    draw = np.random.default_rng(0)
    shapes: list[tuple[int, ...]] = [(48_000,), (13_000,), (30_000, 2)]
    paths = []
    for number, shape in enumerate(shapes):
        paths.append(tmp_path / f"{number}.wav")
        soundfile.write(paths[-1], draw.normal(0, 0.1, shape), RATE, subtype="FLOAT")
    return paths


@pytest.mark.parametrize("fused", [False, True])
def test_equals_transformers(save_clap: Save, fused: bool, sounds: list[Path]) -> None:
    """Texts and sounds have the vectors of the library's own call, to 1e-5."""
    folder = save_clap(fused)
    encoder = load_encoder(f"clap:{folder}")
    assert encoder.modalities == {"text", "audio"}
    batch = [encoder.prepare("text", text) for text in TEXTS]
    batch += [encoder.prepare("audio", path) for path in sounds]
    model = transformers.ClapModel.from_pretrained(folder).eval()
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    extractor = transformers.ClapFeatureExtractor.from_pretrained(folder)
    mono = [soundfile.read(path, always_2d=True)[0].mean(axis=1) for path in sounds]
    heard = extractor(mono, sampling_rate=RATE, return_tensors="pt")
    # transformers marks one short sound as long at random; the published model does not.
    heard["is_longer"] = torch.zeros(len(mono), 1, dtype=torch.bool)
    with torch.inference_mode():
        words = model.get_text_features(**tokens).pooler_output
        sound = model.get_audio_features(**heard).pooler_output
    theirs = torch.nn.functional.normalize(torch.cat([words, sound])).numpy()
    np.testing.assert_allclose(encoder.encode(batch), theirs, atol=1e-5)


@pytest.mark.parametrize("fused", [False, True])
def test_neither_batch_size_nor_order_matters(
    save_clap: Save, fused: bool, sounds: list[Path], tmp_path: Path
) -> None:
    """One at a time, all at once and backwards give the same vectors, short sounds beside long ones."""
    soundfile.write(tmp_path / "long.wav", np.random.default_rng(1).normal(0, 0.1, 150_000), RATE)
    encoder = load_encoder(f"clap:{save_clap(fused)}")
    batch: list[Any] = [encoder.prepare("audio", path) for path in [*sounds, tmp_path / "long.wav"]]
    batch = [TEXTS[0], *batch, *TEXTS[1:]]
    together = encoder.encode(batch)
    alone = np.concatenate([encoder.encode([item]) for item in batch])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(together, encoder.encode(batch[::-1])[::-1], atol=1e-5)
    assert together.tobytes() == encoder.encode(batch).tobytes()


def test_a_long_sound_is_heard_at_its_beginning_middle_and_end(save_clap: Save, tmp_path: Path) -> None:
    """Without fusion: the mean direction of three pieces, evenly spaced, none at random."""
    noise = np.random.default_rng(1).normal(0, 0.1, 5 * RATE).astype(np.float32)
    soundfile.write(tmp_path / "long.wav", noise, RATE, subtype="FLOAT")
    encoder = load_encoder(f"clap:{save_clap(False)}")
    whole = encoder.encode([encoder.prepare("audio", tmp_path / "long.wav")])[0]
    pieces = []
    for start in (0, 2 * RATE, 4 * RATE):
        soundfile.write(tmp_path / "piece.wav", noise[start : start + RATE], RATE, subtype="FLOAT")
        pieces.append(encoder.encode([encoder.prepare("audio", tmp_path / "piece.wav")])[0])
    mean = np.mean(pieces, axis=0)
    np.testing.assert_allclose(whole, mean / np.linalg.norm(mean), atol=1e-5)


def test_a_long_sound_is_fused_as_transformers_does(
    save_clap: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With fusion: the spectrogram scaled down, and pieces from the middles of the extractor's ranges."""
    noise = np.random.default_rng(1).normal(0, 0.1, 3 * RATE).astype(np.float32)
    soundfile.write(tmp_path / "long.wav", noise, RATE, subtype="FLOAT")
    encoder: Any = load_encoder(f"clap:{save_clap(True)}")
    extractor = transformers.ClapFeatureExtractor.from_pretrained(save_clap(True))
    monkeypatch.setattr(np.random, "choice", lambda starts: starts[len(starts) // 2])
    theirs = extractor(noise, sampling_rate=RATE, return_tensors="np")
    ours = encoder.prepare("audio", tmp_path / "long.wav")
    np.testing.assert_allclose(ours["input_features"], theirs["input_features"], atol=1e-3)
    assert ours["is_longer"].tolist() == theirs["is_longer"].tolist() == [[True]]


def test_sounds_of_another_rate_are_resampled(save_clap: Save, tmp_path: Path) -> None:
    """A tone of 44.1 kHz has nearly the vector of the same tone at 48 kHz, above 8 kHz as well."""
    encoder = load_encoder(f"clap:{save_clap(False)}")
    vectors = []
    for rate in (RATE, 44_100):
        time_s = np.arange(rate) / rate
        tone = 0.3 * np.sin(2 * np.pi * 11_000 * time_s) + 0.1 * np.sin(2 * np.pi * 700 * time_s)
        soundfile.write(tmp_path / f"{rate}.wav", tone, rate, subtype="FLOAT")
        vectors.append(encoder.encode([encoder.prepare("audio", tmp_path / f"{rate}.wav")])[0])
    assert vectors[0] @ vectors[1] > 0.99


def test_a_broken_sound_is_a_sample_error(save_clap: Save, tmp_path: Path) -> None:
    """What the reader refuses, the encoder refuses."""
    (tmp_path / "torn.wav").write_bytes(b"RIFF1234WAVEfmt ")
    encoder = load_encoder(f"clap:{save_clap(False)}")
    with pytest.raises(SampleError, match=r"torn\.wav"):
        encoder.prepare("audio", tmp_path / "torn.wav")


def test_the_token_limit_is_the_models_own(save_clap: Save) -> None:
    """Of 34 positions RoBERTa leaves the first two to its padding."""
    counter = token_counter(f"clap:{save_clap(False)}")
    assert counter.limit == 32
    assert counter.count(["ab", "a" * 100]) == [4, 102]


@pytest.mark.parametrize(
    ("gone", "expected"),
    [("config.json", "no config.json"), ("preprocessor_config.json", "no settings to prepare sounds")],
)
def test_a_broken_folder_is_one_clear_line(save_clap: Save, tmp_path: Path, gone: str, expected: str) -> None:
    """What is missing is named."""
    folder = shutil.copytree(save_clap(False), tmp_path / "model")
    (folder / gone).unlink()
    with pytest.raises(InputError, match=expected):
        load_encoder(f"clap:{folder}")
    (folder / "config.json").write_text(json.dumps({"model_type": "clip"}), encoding="utf-8")
    with pytest.raises(InputError, match="type 'clip'; this adapter takes clap"):
        load_encoder(f"clap:{folder}")


def test_sentence_transformers_leads_to_the_adapter(save_clap: Save) -> None:
    """It could load a CLAP too, but would crop long sounds at random."""
    with pytest.raises(InputError, match=r"is a CLAP; name it clap:"):
        load_encoder(str(save_clap(False)))
