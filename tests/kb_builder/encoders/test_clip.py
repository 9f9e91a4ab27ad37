"""CLIP, SigLIP and SigLIP 2 from small random checkpoints on disk, against transformers' own calls."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from data.errors import InputError, MissingDependencyError
from data.modality import MODALITIES
from kb_builder.encode.embed import embed_samples
from kb_builder.encoders import load_encoder
from kb_builder.encoders.tokens import token_counter
from kb_builder.settings import Encode
from kb_builder.weights import identity as memory

KINDS = ("clip", "siglip", "siglip2")
TEXTS = ["a dog", "b", "", "the quick brown fox jumps over it", "an otter", "zz top"]
Save = Callable[[str], Path]


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Noise in four shapes, one of them larger than what is seen and one very long."""
    draw = np.random.default_rng(0)
    paths = []
    for number, (height, width) in enumerate(((48, 40), (33, 90), (700, 500), (8, 30))):
        pixels = draw.integers(0, 256, (height, width, 3), dtype=np.uint8)
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


def _theirs(folder: Path, kind: str, texts: list[str], pictures: list[Path]) -> np.ndarray:
    """Unit rows of texts, then of pictures, as transformers' documentation calls the model."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    names = {
        "clip": "CLIPImageProcessorPil",
        "siglip": "SiglipImageProcessorPil",
        "siglip2": "Siglip2ImageProcessorPil",
    }
    processor = getattr(transformers, names[kind]).from_pretrained(folder)
    length = {"clip": 40, "siglip": 64, "siglip2": 64}[kind]
    with torch.inference_mode():
        tokens = tokenizer(
            texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        words = model.get_text_features(**tokens).pooler_output
        pixels = processor([Image.open(path) for path in pictures], return_tensors="pt")
        seen = model.get_image_features(**pixels).pooler_output
    return torch.nn.functional.normalize(torch.cat([words, seen])).numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_equals_transformers(save_clip: Save, kind: str, pictures: list[Path]) -> None:
    """Texts and pictures have the vectors of the library's own call, to 1e-5."""
    folder = save_clip(kind)
    encoder = load_encoder(f"clip:{folder}")
    batch = [encoder.prepare("text", text) for text in TEXTS]
    batch += [encoder.prepare("image", path) for path in pictures]
    np.testing.assert_allclose(encoder.encode(batch), _theirs(folder, kind, TEXTS, pictures), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_neither_batch_size_nor_order_matters(save_clip: Save, kind: str, pictures: list[Path]) -> None:
    """One at a time, all at once and backwards give the same vectors to 1e-5; repeated, the same bits."""
    encoder = load_encoder(f"clip:{save_clip(kind)}")
    batch = [encoder.prepare("image", path) for path in pictures]
    batch = [*TEXTS[:3], *batch, *TEXTS[3:]]
    together = encoder.encode(batch)
    alone = np.concatenate([encoder.encode([item]) for item in batch])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(together, encoder.encode(batch[::-1])[::-1], atol=1e-5)
    assert together.tobytes() == encoder.encode(batch).tobytes()
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    assert encoder.encode([]).shape == (0, encoder.dim)


def test_a_clip_text_tower_computes_no_padding(save_clip: Save) -> None:
    """CLIP's causal attention cannot see padding: texts are as long as the longest beside them."""
    encoder: Any = load_encoder(f"clip:{save_clip('clip')}")
    assert encoder.text.tokens(["a dog", "an otter"])["input_ids"].shape == (2, 9)


def test_siglip_texts_are_padded_to_the_length_it_was_trained_with(save_clip: Save) -> None:
    """SigLIP reads its last token behind 64 of them; neither shorter padding nor a mask may come to it."""
    encoder: Any = load_encoder(f"clip:{save_clip('siglip')}")
    encoder.text.tokenizer.model_input_names = ["input_ids", "attention_mask"]
    tokens = encoder.text.tokens(["a dog"])
    assert {name: value.shape for name, value in tokens.items()} == {"input_ids": (1, 64)}


def test_every_modality_has_a_place(save_clip: Save, sensor_files: Path) -> None:
    """Anything but a photo is given as its rendering; several views have their mean direction."""
    encoder = load_encoder(f"clip:{save_clip('clip')}")
    assert encoder.modalities == set(MODALITIES)
    files = {
        "event": "events.npz",
        "point": "ball.npy",
        "audio": "tone.flac",
        "text": "words.txt",
        "thermal": "warm.tif",
        "video": "clip.mp4",
    }
    prepared: dict[str, Any] = {
        name: encoder.prepare(name, sensor_files / file) for name, file in files.items()
    }
    vectors = encoder.encode(list(prepared.values()))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    views = prepared["video"]["pixel_values"]
    assert len(views) == 4
    each = np.concatenate([encoder.encode([{"pixel_values": views[i : i + 1]}]) for i in range(4)])
    mean = each.mean(axis=0) / np.linalg.norm(each.mean(axis=0))
    np.testing.assert_allclose(vectors[list(files).index("video")], mean, atol=1e-5)


def test_a_very_long_picture_costs_no_memory(save_clip: Save, tmp_path: Path) -> None:
    """Enlarged until its short side fits, a picture of one line would have a hundred million pixels."""
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (2, 30_000, 3), dtype=np.uint8)).save(
        tmp_path / "line.png"
    )
    encoder: Any = load_encoder(f"clip:{save_clip('clip')}")
    assert encoder.prepare("image", tmp_path / "line.png")["pixel_values"].shape == (1, 3, 32, 32)


@pytest.mark.parametrize(("kind", "limit"), [("clip", 40), ("siglip", 64)])
def test_the_token_limit_is_the_models_own(save_clip: Save, kind: str, limit: int) -> None:
    """The gate for overlong texts counts with the model's tokenizer, special tokens included."""
    counter = token_counter(f"clip:{save_clip(kind)}")
    assert counter.limit == limit
    assert counter.count(["ab", "a" * 100]) == ([4, 102] if kind == "clip" else [3, 101])
    assert counter.count([]) == []


def test_an_overlong_text_is_reported(save_clip: Save, caplog: pytest.LogCaptureFixture) -> None:
    """A text beyond the limit is not cut in silence."""
    encoder = load_encoder(f"clip:{save_clip('clip')}")
    with caplog.at_level(logging.WARNING):
        encoder.encode(["a" * 100, "short"])
    assert "reads at most 40 tokens: 1 longer texts are truncated" in caplog.text


def test_one_folder_serves_as_text_samples_and_zero_shot_encoder(save_clip: Save, sensor_kb: Path) -> None:
    """A project may name one CLIP in all three places; its vectors then lie in one folder of the store."""
    name = f"clip:{save_clip('clip')}"
    settings = Encode(text=name, samples=name, zero_shot=name)
    assert embed_samples(sensor_kb, sensor_kb.parent / "data", settings)["encoded"] == 8
    roles = json.loads((sensor_kb / "embeddings" / "encoders.json").read_text(encoding="utf-8"))
    assert len(set(roles.values())) == 1
    assert set(roles) == {"text", "samples", "zero_shot"}


def test_identity_follows_the_content_not_the_place(save_clip: Save, tmp_path: Path) -> None:
    """A copied folder has one identity wherever it lies; another configuration gives another."""
    here, there = (shutil.copytree(save_clip("clip"), tmp_path / place / "model") for place in ("a", "b"))
    (there / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n", encoding="utf-8")
    first, second = load_encoder(f"clip:{here}"), load_encoder(f"clip:{there}")
    assert first.identity == second.identity
    processor = json.loads((there / "preprocessor_config.json").read_text(encoding="utf-8"))
    (there / "preprocessor_config.json").write_text(json.dumps(processor | {"image_mean": [0.4, 0.4, 0.4]}))
    changed = shutil.copytree(there, tmp_path / "c" / "model")
    assert load_encoder(f"clip:{changed}").identity != first.identity


def test_a_licence_that_forbids_commerce_is_logged_at_load(
    save_clip: Save, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The model card's licence is in the card of the vectors, and a warning where it is non-commercial."""
    folder = shutil.copytree(save_clip("clip"), tmp_path / "model")
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n", encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        assert load_encoder(f"clip:{folder}").licence == "cc-by-nc-4.0"
    assert "not for commercial use" in caplog.text


def test_a_name_is_looked_up_in_the_model_folder(
    save_clip: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`clip:NAME` is models/NAME, or NAME in the folder that UNIBIND_MODELS names."""
    shutil.copytree(save_clip("clip"), tmp_path / "store" / "mine")
    monkeypatch.setenv("UNIBIND_MODELS", str(tmp_path / "store"))
    assert load_encoder("clip:mine").identity
    monkeypatch.delenv("UNIBIND_MODELS")
    shutil.copytree(save_clip("clip"), tmp_path / "models" / "mine")
    monkeypatch.chdir(tmp_path)
    assert load_encoder("clip:mine").name == "clip:mine"


def test_older_folders_keep_their_weights_in_a_pickle(save_clip: Save, tmp_path: Path) -> None:
    """pytorch_model.bin, read weights-only, gives the same vectors; another file is another encoder."""
    from safetensors.torch import load_file

    folder = shutil.copytree(save_clip("clip"), tmp_path / "model")
    state = load_file(folder / "model.safetensors")
    torch.save(
        state | {"text_model.embeddings.position_ids": torch.arange(40)[None]}, folder / "pytorch_model.bin"
    )
    (folder / "model.safetensors").unlink()
    old, new = load_encoder(f"clip:{folder}"), load_encoder(f"clip:{save_clip('clip')}")
    np.testing.assert_allclose(old.encode(TEXTS), new.encode(TEXTS), atol=1e-6)
    assert old.identity != new.identity


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4665\nsize 605157884\n"


def _broken(folder: Path, what: str) -> None:
    weights = folder / "model.safetensors"
    if what == "no checkpoint":
        shutil.rmtree(folder)
        folder.mkdir()
    elif what == "another type":
        (folder / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    elif what == "damaged config":
        (folder / "config.json").write_text("{", encoding="utf-8")
    elif what == "other weights":
        from safetensors.torch import load_file, save_file

        state = load_file(weights)
        save_file({f"blip.{key}": value for key, value in state.items()}, weights, metadata={"format": "pt"})
    elif what == "other shape":
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config["vision_config"]["patch_size"] = 16
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    elif what == "cut weights":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif what == "weights as a pointer":
        weights.write_text(POINTER, encoding="utf-8")
    elif what == "old weights as a pointer":
        weights.unlink()
        (folder / "pytorch_model.bin").write_text(POINTER, encoding="utf-8")
    elif what == "tokenizer as a pointer":
        (folder / "tokenizer.json").write_text(POINTER, encoding="utf-8")
    elif what == "no weights":
        weights.unlink()
    elif what == "a pickle with code":
        weights.unlink()
        torch.save({"weights": Path("a")}, folder / "pytorch_model.bin")
    elif what == "no tokenizer":
        (folder / "tokenizer.json").unlink()
    elif what == "damaged tokenizer":
        (folder / "tokenizer.json").write_text("{", encoding="utf-8")
    elif what == "a limit below nothing":
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        (folder / "tokenizer_config.json").write_text(json.dumps(config | {"model_max_length": -3}))
    else:
        (folder / "preprocessor_config.json").unlink()


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("no checkpoint", "no config.json"),
        ("another type", "type 'bert'; this adapter takes clip, siglip, siglip2"),
        ("damaged config", "config.json is damaged"),
        ("other weights", r"not the weights of CLIPModel \(\d+ missing: .* unexpected: blip"),
        ("other shape", r"not the weights of CLIPModel \(.*of another shape: vision_model"),
        ("cut weights", "damaged|cannot be loaded"),
        ("weights as a pointer", r"model\.safetensors: a Git LFS pointer, not the file itself"),
        ("old weights as a pointer", r"pytorch_model\.bin: a Git LFS pointer"),
        ("tokenizer as a pointer", r"tokenizer\.json: a Git LFS pointer"),
        ("no weights", r"no \*.safetensors"),
        ("a pickle with code", r"pytorch_model\.bin: not a file of weights alone .* may run any code"),
        ("no tokenizer", "has no tokenizer"),
        ("damaged tokenizer", "tokenizer of .* cannot be loaded"),
        ("a limit below nothing", "model_max_length of -3"),
        ("no processor", "preprocessor_config.json"),
    ],
)
def test_a_broken_folder_is_one_clear_line(save_clip: Save, tmp_path: Path, what: str, expected: str) -> None:
    """Any defect of a folder is reported in one line that names it."""
    folder = shutil.copytree(save_clip("clip"), tmp_path / "model")
    _broken(folder, what)
    with pytest.raises(InputError, match=expected) as caught:
        load_encoder(f"clip:{folder}")
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_weights_that_are_no_numbers_are_one_clear_line(save_clip: Save, tmp_path: Path) -> None:
    """NaN in the weights gives vectors without a direction."""
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(save_clip("clip"), tmp_path / "model")
    state = load_file(folder / "model.safetensors")
    state["text_projection.weight"] *= float("nan")
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="NaN, infinite or zero: its weights are damaged"):
        load_encoder(f"clip:{folder}").encode(["a dog"])


def test_a_name_that_is_nowhere_says_where_was_looked() -> None:
    """A known name adds the command that fetches it."""
    with pytest.raises(InputError, match=r"neither nowhere nor models/nowhere.*UNIBIND_MODELS"):
        load_encoder("clip:nowhere")
    with pytest.raises(InputError, match="names no model"):
        load_encoder("clip:")


def test_too_little_memory_is_reported_before_loading(
    save_clip: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel would kill the process without a word."""
    monkeypatch.setattr(memory, "free_bytes", lambda: 1000)
    monkeypatch.setenv("UNIBIND_MODELS", str(save_clip("clip").parent))  # another name, hence not loaded yet
    with pytest.raises(InputError, match=r"GiB of memory, and 0\.0 GiB are free"):
        load_encoder(f"clip:{save_clip('clip').name}")


def test_a_missing_package_names_the_command(save_clip: Save, tmp_path: Path) -> None:
    """SigLIP's own tokenizer needs sentencepiece, which only the extra brings."""
    import importlib.util

    if importlib.util.find_spec("sentencepiece"):
        pytest.skip("sentencepiece is installed")
    folder = shutil.copytree(save_clip("siglip"), tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    (folder / "spiece.model").write_bytes(b"")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "SiglipTokenizer"}', encoding="utf-8")
    with pytest.raises(MissingDependencyError, match=r"\.venv/bin/pip install --editable '\.\[clip\]'"):
        load_encoder(f"clip:{folder}")
