"""LanguageBind from small random folders with the official names, against other implementations.

`GOLDEN` comes from the official code as `languagebind` 0.1.0 packages it, run once under transformers 4.57.6,
peft 0.21.2 and torch 2.13.0 on the folders that `write_tower` writes (LoRA's factors renamed for that peft).
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file
from torch.nn import functional

from data.errors import InputError
from kb_builder.encode.embed import embed_samples
from kb_builder.encoders import load_encoder, release_encoders
from kb_builder.encoders.languagebind.folder import find_towers
from kb_builder.encoders.languagebind.model import LanguageBind
from kb_builder.encoders.tokens import token_counter
from kb_builder.settings import Encode
from pipeline.models import check_model, list_models

Shapes = Iterator[tuple[str, tuple[int, ...]]]
State = dict[str, torch.Tensor]
DIM = 16
TEXT = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "hidden_act": "gelu",
    "max_position_embeddings": 77,
}
MEDIA = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "hidden_act": "gelu",
    "image_size": 224,
    "patch_size": 56,
    "lora_r": 0,
}
OVER_TIME = {"add_time_attn": True, "num_frames": 8}
SOUND = {"num_mel_bins": 112, "target_length": 1036, "audio_mean": -4.2677393, "audio_std": 4.5689974}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "image": ("Image", {}),
    "video": ("Video", OVER_TIME),
    "video-1.5": ("Video", OVER_TIME | {"clip_type": "vl_new", "tube_size": 1}),
    "video-lora": ("Video", OVER_TIME | {"lora_r": 3, "lora_alpha": 12}),
    "audio": ("Audio", SOUND),
    "audio-time": ("Audio", SOUND | {"add_time_attn": True, "num_frames": 1}),
    "thermal-lora": ("Thermal", {"lora_r": 2, "lora_alpha": 16, "hidden_act": "quick_gelu"}),
}
LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]
WORDS = [
    *LETTERS,
    *(f"{letter}</w>" for letter in LETTERS),
    "do",
    "dog</w>",
    "<|startoftext|>",
    "<|endoftext|>",
]
MERGES = (("d", "o"), ("do", "g</w>"))
TEXTS = ["a dog", "b", "", "the quick brown fox jumps over it", "an otter", "zz top"]


def _shapes(case: str) -> Shapes:
    """Names and shapes of the official state dict, as transformers 4.30 and peft 0.5 saved it."""
    kind, extra = CASES[case]
    media = MEDIA | extra
    width, inner, patch = media["hidden_size"], media["intermediate_size"], media["patch_size"]
    frames, timed, rank = extra.get("num_frames", 1), "add_time_attn" in extra, media["lora_r"]
    yield "logit_scale", ()
    yield from _trunk("text_model.encoder.", TEXT["hidden_size"], TEXT["intermediate_size"])
    yield "text_model.embeddings.token_embedding.weight", (len(WORDS), TEXT["hidden_size"])
    yield "text_model.embeddings.position_embedding.weight", (77, TEXT["hidden_size"])
    yield from _layer("text_model.final_layer_norm", TEXT["hidden_size"])
    yield "text_projection.weight", (DIM, TEXT["hidden_size"])
    high, wide = (extra["num_mel_bins"], extra["target_length"]) if kind == "Audio" else (224, 224)
    newer = "clip_type" in extra
    yield "vision_model.embeddings.class_embedding", (frames, width) if newer else (width,)
    kernel = (1, patch, patch) if newer else (patch, patch)
    yield "vision_model.embeddings.patch_embedding.weight", (width, 3, *kernel)
    yield "vision_model.embeddings.position_embedding.weight", (1 + (high // patch) * (wide // patch), width)
    yield from _layer("vision_model.pre_layrnorm", width)
    encoder = "vision_model.encoder." + ("base_model.model." if rank else "")
    yield from _trunk(encoder, width, inner)
    for number in range(2):
        layer = f"{encoder}layers.{number}."
        if timed:
            yield f"{layer}temporal_embedding", (1, frames, width)
            yield from _attention(f"{layer}temporal_attn.", width)
            yield from _layer(f"{layer}temporal_layer_norm1", width)
            if kind != "Video":
                yield from _feed_forward(f"{layer}temporal_mlp.", width, inner)
                yield from _layer(f"{layer}temporal_layer_norm2", width)
        if rank:
            for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
                tuned = f"{layer}{'temporal_attn' if timed else 'self_attn'}.{name}"
                yield f"{tuned}.lora_A.default.weight", (rank, width)
                yield f"{tuned}.lora_B.default.weight", (width, rank)
    yield from _layer("vision_model.post_layernorm", width)
    yield "visual_projection.weight", (DIM, width)


def _trunk(encoder: str, width: int, inner: int) -> Shapes:
    for number in range(2):
        layer = f"{encoder}layers.{number}."
        yield from _attention(f"{layer}self_attn.", width)
        yield from _feed_forward(f"{layer}mlp.", width, inner)
        yield from _layer(f"{layer}layer_norm1", width)
        yield from _layer(f"{layer}layer_norm2", width)


def _attention(name: str, width: int) -> Shapes:
    for each in ("q_proj", "k_proj", "v_proj", "out_proj"):
        yield from _layer(f"{name}{each}", width, width)


def _feed_forward(name: str, width: int, inner: int) -> Shapes:
    yield from _layer(f"{name}fc1", inner, width)
    yield from _layer(f"{name}fc2", width, inner)


def _layer(name: str, *shape: int) -> Shapes:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def _random(case: str) -> State:
    """The text tower is the same in all."""
    found: State = {}
    for part in ("text", "vision"):
        generator = torch.Generator().manual_seed(len(part))
        for name, shape in sorted(_shapes(case)):
            if name.startswith("text") == (part == "text"):
                found[name] = torch.empty(shape).normal_(0, 0.25, generator=generator)
    found["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    return found


def write_tower(folder: Path, case: str) -> Path:
    """A tower as its authors saved it."""
    folder.mkdir(parents=True, exist_ok=True)
    kind, extra = CASES[case]
    config = {
        "model_type": f"LanguageBind{kind}",
        "projection_dim": DIM,
        "text_config": TEXT | {"vocab_size": len(WORDS)},
        "vision_config": MEDIA | extra,
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "vocab.json").write_text(
        json.dumps({word: n for n, word in enumerate(WORDS)}), encoding="utf-8"
    )
    lines = ["#version: 0.2", *(" ".join(pair) for pair in MERGES), ""]
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    torch.save(_random(case), folder / "pytorch_model.bin")
    return folder


@pytest.fixture(scope="session")
def towers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`towers(case)`: the folder of that tower."""
    place = tmp_path_factory.mktemp("languagebind")

    def folder(case: str) -> Path:
        return place / case if (place / case).is_dir() else write_tower(place / case, case)

    return folder


def pixels(case: str) -> torch.Tensor:
    """Three inputs of a tower, float32[3, F, 3, height, width]."""
    _, extra = CASES[case]
    size = (extra["num_mel_bins"], extra["target_length"]) if "num_mel_bins" in extra else (224, 224)
    generator = torch.Generator().manual_seed(7)
    return torch.randn(3, extra.get("num_frames", 1), 3, *size, generator=generator)


GOLDEN = {  # the first six numbers of the first input's vector
    "image": [0.043136, -0.011878, -0.112016, -0.03425, -0.226946, -0.145658],
    "video": [-0.430474, -0.013293, 0.174268, -0.405714, 0.084977, 0.145702],
    "video-1.5": [0.350954, 0.090592, -0.17499, -0.130267, -0.169338, -0.303653],
    "video-lora": [-0.081449, -0.426303, 0.439554, 0.084476, -0.185106, 0.233104],
    "audio": [0.006448, 0.159805, 0.294072, -0.086922, 0.626076, -0.064373],
    "audio-time": [0.116952, 0.020618, -0.041485, -0.198859, 0.197151, 0.251067],
    "thermal-lora": [-0.23435, -0.055846, -0.237888, 0.249455, -0.099559, 0.554388],
}
GOLDEN_TEXTS = {
    "a dog": [0.349313, 0.069795, -0.05567, -0.379867, -0.09742, 0.043167],
    "the quick brown fox jumps over it": [0.319382, 0.138283, -0.148771, -0.400653, -0.267537, 0.008538],
}


def _reference(saved: State, case: str, inputs: torch.Tensor) -> torch.Tensor:
    """A media tower, one input and one place of the picture at a time; LoRA as a path beside each layer."""
    state = {name.replace(".base_model.model", ""): value for name, value in saved.items()}
    media = MEDIA | CASES[case][1]
    width, heads = media["hidden_size"], media["num_attention_heads"]

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(x, (width,), state[f"{name}.weight"], state[f"{name}.bias"])

    def linear(name: str, x: torch.Tensor) -> torch.Tensor:
        found = x @ state[f"{name}.weight"].T + state[f"{name}.bias"]
        if f"{name}.lora_A.default.weight" not in state:
            return found
        low = x @ state[f"{name}.lora_A.default.weight"].T
        return found + low @ state[f"{name}.lora_B.default.weight"].T * (
            media["lora_alpha"] / media["lora_r"]
        )

    def attend(name: str, x_LD: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            linear(f"{name}.{each}_proj", x_LD).reshape(len(x_LD), heads, -1) for each in ("q", "k", "v")
        )
        weight_HLK = (torch.einsum("lhd,khd->hlk", query, key) / (width / heads) ** 0.5).softmax(dim=-1)
        return linear(f"{name}.out_proj", torch.einsum("hlk,khd->lhd", weight_HLK, value).flatten(1))

    def feed(name: str, x: torch.Tensor) -> torch.Tensor:
        inner = linear(f"{name}.fc1", x)
        quick = media["hidden_act"] == "quick_gelu"
        return linear(f"{name}.fc2", inner * (1.702 * inner).sigmoid() if quick else functional.gelu(inner))

    stem, found = "vision_model.embeddings", []
    kernel = state[f"{stem}.patch_embedding.weight"].flatten(1).reshape(width, 3, 56, 56)
    for frames in inputs:
        patches_FLD = functional.conv2d(frames, kernel, stride=56).flatten(2).transpose(1, 2)
        class_FD = state[f"{stem}.class_embedding"].expand(len(frames), width)
        tokens = torch.cat([class_FD[:, None], patches_FLD], dim=1)
        tokens = norm("vision_model.pre_layrnorm", tokens + state[f"{stem}.position_embedding.weight"])
        for number in range(2):
            layer = f"vision_model.encoder.layers.{number}"
            for place in range(tokens.shape[1] if "add_time_attn" in media else 0):
                line_FD = tokens[:, place]
                if len(frames) > 1:
                    line_FD = line_FD + state[f"{layer}.temporal_embedding"][0]
                line_FD = line_FD + attend(
                    f"{layer}.temporal_attn", norm(f"{layer}.temporal_layer_norm1", line_FD)
                )
                if f"{layer}.temporal_mlp.fc1.weight" in state:
                    normed = norm(f"{layer}.temporal_layer_norm2", line_FD)
                    line_FD = line_FD + feed(f"{layer}.temporal_mlp", normed)
                tokens = torch.cat([tokens[:, :place], line_FD[:, None], tokens[:, place + 1 :]], dim=1)
            mixed = [attend(f"{layer}.self_attn", each) for each in norm(f"{layer}.layer_norm1", tokens)]
            tokens = tokens + torch.stack(mixed)
            tokens = tokens + feed(f"{layer}.mlp", norm(f"{layer}.layer_norm2", tokens))
        found.append(norm("vision_model.post_layernorm", tokens[:, 0]).mean(dim=0))
    return functional.normalize(torch.stack(found) @ state["visual_projection.weight"].T)


def _encoded(encoder: Any, inputs: torch.Tensor) -> np.ndarray:
    vectors: np.ndarray = encoder.encode([{"pixel_values": each[None].numpy()} for each in inputs])
    return vectors


@pytest.mark.parametrize("case", CASES)
def test_every_tower_agrees_with_a_second_implementation(towers: Callable[[str], Path], case: str) -> None:
    """Attention over time, a class token per frame, spectrograms and LoRA, to 1e-5."""
    encoder = load_encoder(f"languagebind:{towers(case)}")
    theirs = _reference(_random(case), case, pixels(case)).numpy()
    np.testing.assert_allclose(_encoded(encoder, pixels(case)), theirs, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_every_tower_agrees_with_the_official_code(towers: Callable[[str], Path], case: str) -> None:
    """The vectors of pictures and texts are those that the official package gave, to 1e-5."""
    encoder = load_encoder(f"languagebind:{towers(case)}")
    np.testing.assert_allclose(_encoded(encoder, pixels(case))[0, :6], GOLDEN[case], atol=1e-5)
    texts = encoder.encode(list(GOLDEN_TEXTS))[:, :6]
    np.testing.assert_allclose(texts, list(GOLDEN_TEXTS.values()), atol=1e-5)


def test_without_time_it_is_a_clip(towers: Callable[[str], Path]) -> None:
    """Texts, padded to their limit, and pictures have the vectors of transformers' own CLIP, to 1e-5."""
    folder = towers("image")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    end = {"bos_token_id": len(WORDS) - 2, "eos_token_id": len(WORDS) - 1, "pad_token_id": len(WORDS) - 1}
    clip = transformers.CLIPModel(
        transformers.CLIPConfig(
            text_config=config["text_config"] | end, vision_config=config["vision_config"], projection_dim=DIM
        )
    ).eval()
    loaded = clip.load_state_dict(_random("image"), strict=False)
    assert set(loaded.missing_keys) <= {"vision_model.embeddings.position_ids"}
    encoder: Any = load_encoder(f"languagebind:{folder}")
    tokens = encoder.text.tokenizer(TEXTS, padding="max_length", max_length=77, return_tensors="pt")
    with torch.inference_mode():
        words = clip.get_text_features(tokens["input_ids"], tokens["attention_mask"]).pooler_output
        seen = clip.get_image_features(pixels("image")[:, 0]).pooler_output
    np.testing.assert_allclose(encoder.encode(TEXTS), functional.normalize(words).numpy(), atol=1e-5)
    theirs = functional.normalize(seen).numpy()
    np.testing.assert_allclose(_encoded(encoder, pixels("image")), theirs, atol=1e-5)


@pytest.mark.parametrize("case", ["video-lora", "thermal-lora"])
def test_lora_is_read_by_the_names_of_any_peft(
    towers: Callable[[str], Path], tmp_path: Path, case: str
) -> None:
    """Later versions call the frozen weight `base_layer`; as two safetensors it is the same tower as well."""
    folder = shutil.copytree(towers(case), tmp_path / "later")
    (folder / "pytorch_model.bin").unlink()
    tuned = {name.split(".lora_A.")[0] for name in _random(case) if ".lora_A." in name}
    later = {}
    for name, value in _random(case).items():
        layer, _, leaf = name.rpartition(".")
        later[f"{layer}.base_layer.{leaf}" if layer in tuned else name] = value
    half = len(later) // 2
    save_file(dict(list(later.items())[:half]), folder / "model-00001-of-00002.safetensors")
    save_file(dict(list(later.items())[half:]), folder / "model-00002-of-00002.safetensors")
    first, second = (load_encoder(f"languagebind:{each}") for each in (towers(case), folder))
    np.testing.assert_array_equal(_encoded(first, pixels(case)), _encoded(second, pixels(case)))
    assert first.identity != second.identity


def _write_large(folder: Path, case: str) -> LanguageBind:
    """The folder of a tower of the published size, without its weights; the network, without memory."""
    large = {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
    }
    write_tower(folder, case)
    (folder / "pytorch_model.bin").unlink()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["projection_dim"] = 768
    config["text_config"] = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
    config["vision_config"] |= large | {"patch_size": 14}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with torch.device("meta"):
        return LanguageBind(find_towers("large", folder)[0], reads_texts=True, per_frame=case == "video-1.5")


@pytest.mark.parametrize(
    ("case", "more"),
    [
        ("image", 0),
        ("video-1.5", 24 * (8 * 1024 + 4 * (1024**2 + 1024) + 2 * 1024) + 7 * 1024),
        ("audio", (8 * 74 - 16 * 16) * 1024),
    ],
)
def test_full_size_has_as_many_parameters_as_the_published_towers(
    tmp_path: Path, case: str, more: int
) -> None:
    """Of the image tower the hub counts 427,616,513, one of them the temperature; the others by hand."""
    count = sum(weight.numel() for weight in _write_large(tmp_path, case).parameters())
    assert count == 427_616_513 - 1 + more


@pytest.fixture(scope="session")
def several(towers: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four towers in one folder, by the hub's names, and one of depth."""
    place = tmp_path_factory.mktemp("several")
    names = {
        "LanguageBind_Audio_FT": "audio",
        "LanguageBind_Image": "image",
        "LanguageBind_Thermal": "thermal-lora",
        "LanguageBind_Video_V1.5_FT": "video-1.5",
    }
    for name, case in names.items():
        shutil.copytree(towers(case), place / name)
    (place / "LanguageBind_Depth").mkdir()
    (place / "LanguageBind_Depth" / "config.json").write_text('{"model_type": "LanguageBindDepth"}')
    return place


FILES = {
    "image": "photo.png",
    "event": "events.npz",
    "point": "ball.npy",
    "audio": "tone.flac",
    "text": "words.txt",
    "thermal": "warm.tif",
    "video": "clip.mp4",
}


def test_files_of_every_modality_have_unit_vectors(several: Path, sensor_files: Path) -> None:
    """All towers as one encoder; neither batch size nor order matters, and bits repeat."""
    encoder: Any = load_encoder(f"languagebind:{several}")
    assert (encoder.modalities, encoder.dim, encoder.licence) == (set(FILES), DIM, "mit")
    batch = [encoder.prepare(modality, sensor_files / file) for modality, file in FILES.items()]
    batch += [encoder.prepare("text", text) for text in TEXTS]
    together = encoder.encode(batch)
    alone = np.concatenate([encoder.encode([item]) for item in batch])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(together, encoder.encode(batch[::-1])[::-1], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    assert together.tobytes() == encoder.encode(batch).tobytes()
    assert encoder.encode([]).shape == (0, DIM)


def test_each_modality_goes_to_its_own_tower(several: Path, sensor_files: Path) -> None:
    """The vectors are those of each tower alone; the text tower, the same in all, is loaded once."""
    release_encoders()
    together: Any = load_encoder(f"languagebind:{several}")
    alone = {"audio": "LanguageBind_Audio_FT", "video": "LanguageBind_Video_V1.5_FT"}
    parts = [together.parameters]
    for modality, name in alone.items():
        tower: Any = load_encoder(f"languagebind:{several / name}")
        assert tower.modalities == {"text", modality}
        file = sensor_files / FILES[modality]
        ours, theirs = (each.encode([each.prepare(modality, file)]) for each in (together, tower))
        np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(together.encode([(0, "a dog")]), tower.encode(["a dog"]))
        parts.append(tower.parameters)
    assert parts[0] < 2 * sum(parts[1:])
    joined = load_encoder(" + ".join(f"languagebind:{several / name}" for name in alone.values()))
    assert joined.modalities == {"text", "audio", "video"}


def test_a_modality_without_a_tower_is_refused(towers: Callable[[str], Path], sensor_kb: Path) -> None:
    """Before anything is encoded, in one line that names it."""
    name = f"languagebind:{towers('image')}"
    with pytest.raises(InputError, match=r"does not take audio, thermal, video;"):
        embed_samples(sensor_kb, sensor_kb.parent / "data", Encode(text=name, samples=name, zero_shot=name))


def test_towers_of_different_texts_are_reported(
    several: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A tower whose text tower is not the one that reads the texts would be compared with a strange space."""
    place = shutil.copytree(several, tmp_path / "mixed")
    weights = place / "LanguageBind_Audio_FT" / "pytorch_model.bin"
    state = torch.load(weights, weights_only=True)
    torch.save(state | {"text_projection.weight": state["text_projection.weight"] + 1e-3}, weights)
    with caplog.at_level(logging.INFO):
        load_encoder(f"languagebind:{place}")
    messages = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(messages) == 1
    assert (
        "LanguageBind_Audio_FT was trained towards another text tower than that of LanguageBind_Image"
        in messages[0]
    )
    assert "LanguageBind_Depth is skipped" in caplog.text
    assert "licence of the weights: mit" in caplog.text


def test_a_licence_that_forbids_commerce_is_a_warning(
    towers: Callable[[str], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The model card's licence is logged at load and kept."""
    folder = shutil.copytree(towers("image"), tmp_path / "model")
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n", encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        assert load_encoder(f"languagebind:{folder}").licence == "cc-by-nc-4.0"
    assert "not for commercial use" in caplog.text


def test_identity_follows_content_and_the_set_of_towers(several: Path, tmp_path: Path) -> None:
    """A copy elsewhere is the same encoder; without one of its towers it is another."""
    copy = shutil.copytree(several, tmp_path / "copy")
    first = load_encoder(f"languagebind:{several}").identity
    assert load_encoder(f"languagebind:{copy}").identity == first
    less = shutil.copytree(several, tmp_path / "less")
    shutil.rmtree(less / "LanguageBind_Thermal")
    assert load_encoder(f"languagebind:{less}").identity != first


def test_texts_are_read_by_clips_byte_pairs(towers: Callable[[str], Path], several: Path) -> None:
    """`dog` is one word by two merges, start and end stand around it, and 77 tokens are the limit."""
    encoder: Any = load_encoder(f"languagebind:{towers('image')}")
    ids = encoder.text.tokens(["Dog", "ox"])["input_ids"].tolist()
    assert ids[0][:3] == [
        WORDS.index("<|startoftext|>"),
        WORDS.index("dog</w>"),
        WORDS.index("<|endoftext|>"),
    ]
    counter = token_counter(f"languagebind:{several}")
    assert counter.limit == 77
    assert counter.count(["dog", "x" * 100]) == [3, 102]


def test_a_saved_tokenizer_is_read_as_well(towers: Callable[[str], Path], tmp_path: Path) -> None:
    """tokenizer.json instead of vocab.json and merges.txt gives the same vectors."""
    first: Any = load_encoder(f"languagebind:{towers('image')}")
    folder = shutil.copytree(towers("image"), tmp_path / "model")
    for name in ("vocab.json", "merges.txt"):
        (folder / name).unlink()
    first.text.tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    second: Any = load_encoder(f"languagebind:{folder}")
    np.testing.assert_array_equal(first.encode(TEXTS), second.encode(TEXTS))


def test_folders_of_the_users_own_are_known_by_their_files(
    several: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`unibind models --check` loads a tower, and a folder of towers."""
    monkeypatch.setenv("UNIBIND_MODELS", str(several))
    own = {listed.name: listed for listed in list_models()}
    assert "languagebind:LanguageBind_Image loads" in check_model(own["LanguageBind_Image"])
    monkeypatch.setenv("UNIBIND_MODELS", str(several.parent))
    own = {listed.name: listed for listed in list_models()}
    assert f"languagebind:{several.name} loads" in check_model(own[several.name])


def _config(place: Path, **changed: Any) -> None:
    path = place / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changed), encoding="utf-8")


def _break(place: Path, what: str) -> None:
    weights, state = place / "pytorch_model.bin", _random("thermal-lora")
    layer = "vision_model.encoder.base_model.model.layers.1."
    if what == "no weights":
        weights.unlink()
    elif what == "cut":
        weights.write_bytes(weights.read_bytes()[:5000])
    elif what == "code":
        torch.save(state | {"path": Path("a")}, weights)
    elif what == "less":
        del state[f"{layer}mlp.fc2.bias"]
        torch.save(state, weights)
    elif what == "half of LoRA":
        del state[f"{layer}self_attn.q_proj.lora_B.default.weight"]
        torch.save(state, weights)
    elif what == "other":
        torch.save(_random("video"), weights)
    elif what == "no config":
        (place / "config.json").unlink()
    elif what == "no words":
        (place / "vocab.json").unlink()
    elif what == "torn words":
        (place / "vocab.json").write_text("{", encoding="utf-8")
    elif what == "more words":
        _config(place, text_config=TEXT | {"vocab_size": 50})
    else:
        changes = {
            "clip": {"model_type": "clip"},
            "depth": {"model_type": "LanguageBindDepth"},
            "heads": {"vision_config": MEDIA | {"num_attention_heads": 5}},
            "activation": {"vision_config": MEDIA | {"hidden_act": "relu"}},
            "shape": {"projection_dim": 17},
        }
        _config(place, **changes[what])


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("no weights", "no .safetensors|no such file of weights"),
        ("cut", "cannot be read as weights"),
        ("code", "may run any code"),
        ("less", r"1 missing: vision_model\.encoder\.layers\.1\.mlp\.fc2\.bias"),
        ("half of LoRA", r"1 missing: .*layers\.1\.self_attn\.q_proj\.lora_B\.default\.weight"),
        ("other", "not the weights of LanguageBind .*unexpected: vision_model"),
        ("no config", "is neither a tower of LanguageBind"),
        ("no words", "has no tokenizer"),
        ("torn words", "vocabulary in .* is damaged"),
        ("more words", "has 56 words, but its text tower has 50; it belongs to another model"),
        ("clip", "holds a model of type 'clip'; this adapter takes LanguageBindAudio"),
        ("depth", "encodes depth, which is not"),
        ("heads", "5 heads do not divide 32 dimensions"),
        ("activation", "hidden_act: Input should be 'gelu' or 'quick_gelu'"),
        ("shape", r"2 of another shape: text_projection.weight \[16, 24\] instead of \[17, 24\]"),
    ],
)
def test_a_broken_folder_is_one_clear_line(
    towers: Callable[[str], Path], tmp_path: Path, what: str, expected: str
) -> None:
    """Any defect is reported in one line that names the folder; no code in a pickle is run."""
    place = shutil.copytree(towers("thermal-lora"), tmp_path / "model")
    _break(place, what)
    with pytest.raises(InputError, match=expected) as caught:
        load_encoder(f"languagebind:{place}")
    assert "\n" not in str(caught.value)
    assert str(place) in str(caught.value)


def test_two_towers_of_a_kind_are_refused(towers: Callable[[str], Path], tmp_path: Path) -> None:
    """Which of them should see the videos is not guessed."""
    for case in ("video", "video-1.5"):
        shutil.copytree(towers(case), tmp_path / case)
    with pytest.raises(InputError, match=r"video and video-1\.5 are both towers of video; keep one"):
        load_encoder(f"languagebind:{tmp_path}")


_RUN = """
import json, resource, sys
import numpy as np
from kb_builder.encoders import load_encoder

encoder = load_encoder(f"languagebind:{sys.argv[1]}", "cpu")
files = json.loads(sys.argv[2])
batch = [encoder.prepare(modality, path) for modality, path in files.items()]
vectors = np.concatenate([encoder.encode([item]) for item in [*batch, encoder.prepare("text", "a dog")]])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
off = float(abs(np.linalg.norm(vectors, axis=1) - 1).max())
print(json.dumps({"peak": peak, "shape": vectors.shape, "off": off}))
"""


@pytest.mark.slow
def test_full_size_runs_on_a_real_file_of_each_modality(
    run_on_real_files: Callable[[str, Path], dict[str, Any]], tmp_path: Path
) -> None:
    """Four towers with random weights, 7.2 GB on disk, mapped: each in its turn, with peak memory noted."""
    for case in ("image", "video-1.5", "audio", "thermal-lora"):
        shapes = _write_large(tmp_path / case, case).state_dict()
        state = {name: torch.empty(value.shape).normal_(0, 0.02) for name, value in shapes.items()}
        torch.save(state, tmp_path / case / "pytorch_model.bin")
    del state
    report = run_on_real_files(_RUN, tmp_path)
    assert report["shape"] == [7, 768]
    assert report["off"] < 1e-5
    assert report["peak"] < 9 * 2**30
