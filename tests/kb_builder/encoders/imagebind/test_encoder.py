"""ImageBind from random state dicts with the official names: small, and as a slow test at full size."""

from __future__ import annotations

import gzip
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from torch.nn import functional

from data.errors import InputError, SampleError
from data.modality import MODALITIES
from kb_builder.encoders import load_encoder, release_encoders
from kb_builder.encoders.imagebind.inputs import film_squares, prepare_media, square
from kb_builder.encoders.imagebind.model import HEADS, TOWERS, build_imagebind
from kb_builder.encoders.tokens import token_counter

SMALL = {"vision": 64, "text": 32, "audio": 32, "depth": 32, "thermal": 32, "imu": 32}
SMALL_HEADS = {"vision": 4, "text": 2, "audio": 4, "depth": 2, "thermal": 4, "imu": 2}
SMALL_BLOCKS = dict.fromkeys(TOWERS, 2)
HUGE = {"vision": 1280, "text": 1024, "audio": 768, "depth": 384, "thermal": 768, "imu": 512}
HUGE_BLOCKS = {"vision": 32, "text": 24, "audio": 12, "depth": 12, "thermal": 12, "imu": 6}
MERGES = (("d", "o"), ("do", "g</w>"))


def _shapes(
    widths: dict[str, int], blocks: dict[str, int], *, dim: int, words: int
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the official state dict (its code, imagebind_huge), for towers of given widths."""
    for tower, width in widths.items():
        stem = f"modality_preprocessors.{tower}"
        if tower == "text":
            yield f"{stem}.token_embedding.weight", (words, width)
            yield f"{stem}.pos_embed", (1, 77, width)
            yield f"{stem}.mask", (77, 77)
        elif tower == "imu":
            yield f"{stem}.cls_token", (1, 1, width)
            yield f"{stem}.pos_embed", (1, 251, width)
            yield f"{stem}.imu_stem.proj.weight", (width, 48)
            yield from _norm(f"{stem}.imu_stem.norm_layer", width)
        else:
            yield f"{stem}.cls_token", (1, 1, width)
            tokens = {"vision": 257, "audio": 229, "depth": 197, "thermal": 197}[tower]
            yield f"{stem}.pos_embedding_helper.pos_embed", (1, tokens, width)
            part = f"{stem}.depth_stem" if tower == "depth" else f"{stem}.rgbt_stem"
            if tower == "vision":
                yield f"{part}.proj.1.weight", (width, 3, 2, 14, 14)
            else:
                yield f"{part}.proj.weight", (width, 1, 16, 16)
                yield from _norm(f"{part}.norm_layer", width)
        trunk = f"modality_trunks.{tower}"
        if tower == "vision":
            yield from _norm(f"{trunk}.pre_transformer_layer.0", width)
        for number in range(blocks[tower]):
            block = f"{trunk}.blocks.{number}"
            yield f"{block}.attn.in_proj_weight", (3 * width, width)
            yield f"{block}.attn.in_proj_bias", (3 * width,)
            if tower not in {"vision", "text"}:
                yield f"{block}.attn.bias_k", (1, 1, width)
                yield f"{block}.attn.bias_v", (1, 1, width)
            for name, shape in (("attn.out_proj", (width, width)), ("mlp.fc1", (4 * width, width))):
                yield f"{block}.{name}.weight", shape
                yield f"{block}.{name}.bias", shape[:1]
            yield f"{block}.mlp.fc2.weight", (width, 4 * width)
            yield f"{block}.mlp.fc2.bias", (width,)
            yield from _norm(f"{block}.norm_1", width)
            yield from _norm(f"{block}.norm_2", width)
        head = f"modality_heads.{tower}" + (".proj" if tower == "text" else "")
        yield from _norm(f"{head}.0", width)
        yield f"{head}.{ {'text': 1, 'imu': 3}.get(tower, 2) }.weight", (dim, width)
        if tower != "vision":
            yield f"modality_postprocessors.{tower}.1.log_logit_scale", ()


def _norm(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _random(shapes: Iterator[tuple[str, tuple[int, ...]]], std: float) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.empty(shape).normal_(0, std, generator=generator) for name, shape in shapes}


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    words = 512 + len(MERGES) + 2
    return _random(_shapes(SMALL, SMALL_BLOCKS, dim=24, words=words), 0.2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, state: dict[str, torch.Tensor]) -> Path:
    """A small ImageBind as a user would keep it: weights, vocabulary, and the heads of its size."""
    place = tmp_path_factory.mktemp("imagebind")
    torch.save(state, place / "imagebind_small.pth")
    _write_vocabulary(place)
    (place / "config.json").write_text(json.dumps({"heads": SMALL_HEADS}), encoding="utf-8")
    return place


def _write_vocabulary(place: Path) -> None:
    lines = ["#version: 0.2", *(" ".join(pair) for pair in MERGES), ""]
    (place / "bpe_simple_vocab_16e6.txt.gz").write_bytes(gzip.compress("\n".join(lines).encode()))


def _reference(state: dict[str, torch.Tensor], tower: str, x: torch.Tensor, heads: int) -> torch.Tensor:
    """The tower by torch's own multi-head attention, written down from the paper and the official names."""
    stem, trunk = f"modality_preprocessors.{tower}", f"modality_trunks.{tower}"
    width = state[f"modality_heads.{tower}{'.proj' if tower == 'text' else ''}.0.weight"].numel()
    mask = None
    if tower == "text":
        tokens = state[f"{stem}.token_embedding.weight"][x] + state[f"{stem}.pos_embed"][:, : x.shape[1]]
        mask = torch.full((x.shape[1],) * 2, float("-inf")).triu(1)
    else:
        if tower == "vision":
            tokens = functional.conv3d(x, state[f"{stem}.rgbt_stem.proj.1.weight"], stride=(2, 14, 14))
            tokens = tokens.flatten(2).transpose(1, 2)
        elif tower == "imu":
            patches = torch.stack([x[:, :, i : i + 8].flatten(1) for i in range(0, 2000, 8)], dim=1)
            tokens = patches @ state[f"{stem}.imu_stem.proj.weight"].T
        else:
            part = f"{stem}.depth_stem" if tower == "depth" else f"{stem}.rgbt_stem"
            stride = 10 if tower == "audio" else 16
            tokens = functional.conv2d(x, state[f"{part}.proj.weight"], stride=stride)
            tokens = tokens.flatten(2).transpose(1, 2)
        if tower != "vision":
            part = {"imu": "imu_stem", "depth": "depth_stem"}.get(tower, "rgbt_stem")
            weight, bias = (state[f"{stem}.{part}.norm_layer.{each}"] for each in ("weight", "bias"))
            tokens = functional.layer_norm(tokens, (width,), weight, bias)
        tokens = torch.cat([state[f"{stem}.cls_token"].expand(len(x), -1, -1), tokens], dim=1)
        place = f"{stem}.pos_embed" if tower == "imu" else f"{stem}.pos_embedding_helper.pos_embed"
        tokens = tokens + state[place]

    def norm(name: str, y: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(y, (width,), state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    if tower == "vision":
        tokens = norm(f"{trunk}.pre_transformer_layer.0", tokens)
    for number in range(2):
        block = f"{trunk}.blocks.{number}"
        seen = norm(f"{block}.norm_1", tokens).transpose(0, 1)
        mixed, _ = functional.multi_head_attention_forward(
            seen,
            seen,
            seen,
            width,
            heads,
            state[f"{block}.attn.in_proj_weight"],
            state[f"{block}.attn.in_proj_bias"],
            state.get(f"{block}.attn.bias_k"),
            state.get(f"{block}.attn.bias_v"),
            False,
            0.0,
            state[f"{block}.attn.out_proj.weight"],
            state[f"{block}.attn.out_proj.bias"],
            training=False,
            need_weights=False,
            attn_mask=mask,
        )
        tokens = tokens + mixed.transpose(0, 1)
        inner = norm(f"{block}.norm_2", tokens) @ state[f"{block}.mlp.fc1.weight"].T
        inner = functional.gelu(inner + state[f"{block}.mlp.fc1.bias"])
        tokens = tokens + inner @ state[f"{block}.mlp.fc2.weight"].T + state[f"{block}.mlp.fc2.bias"]
    if tower == "text":
        seen = tokens[torch.arange(len(x)), x.argmax(dim=1)]
        found = norm("modality_heads.text.proj.0", seen) @ state["modality_heads.text.proj.1.weight"].T
    else:
        last = state[f"modality_heads.{tower}.{3 if tower == 'imu' else 2}.weight"]
        found = norm(f"modality_heads.{tower}.0", tokens[:, 0]) @ last.T
    return functional.normalize(found, dim=1)


def _inputs(tower: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    if tower == "text":
        ids = torch.randint(0, 500, (3, 20), generator=generator)
        ids[0, 4] = ids[1, 11] = ids[2, 19] = 515
        return ids
    shapes = {"vision": (3, 2, 224, 224), "audio": (1, 128, 204), "imu": (6, 2000)}
    return torch.randn(3, *shapes.get(tower, (1, 224, 224)), generator=generator)


@pytest.mark.parametrize("tower", TOWERS)
def test_every_tower_agrees_with_torchs_own_layers(state: dict[str, torch.Tensor], tower: str) -> None:
    """All six towers against a second implementation; text ends at its highest token."""
    network = build_imagebind(state, where="small", heads=SMALL_HEADS)
    x = _inputs(tower)
    with torch.inference_mode():
        ours, theirs = network(tower, x), _reference(state, tower, x, SMALL_HEADS[tower])
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_a_still_picture_is_a_film_that_stands_still(state: dict[str, torch.Tensor]) -> None:
    """One frame gives what the same frame twice gives."""
    network = build_imagebind(state, where="small", heads=SMALL_HEADS)
    picture = _inputs("vision")[:, :, :1]
    with torch.inference_mode():
        torch.testing.assert_close(
            network("vision", picture), network("vision", picture.expand(-1, -1, 2, -1, -1))
        )


def test_full_size_has_the_names_and_shapes_of_the_published_weights() -> None:
    """Built without memory: 1.2 billion parameters under the official names, and none else."""
    shapes = dict(_shapes(HUGE, HUGE_BLOCKS, dim=1024, words=49408))
    with torch.device("meta"):
        state = {name: torch.empty(shape) for name, shape in shapes.items()}
    network = build_imagebind(state, where="huge", heads=HEADS)
    assert {name: tuple(value.shape) for name, value in network.state_dict().items()} == shapes
    assert 1.19e9 < sum(weight.numel() for weight in network.parameters()) < 1.21e9


def test_files_of_every_modality_have_unit_vectors(folder: Path, sensor_files: Path) -> None:
    """Loaded from the folder as a user would; neither batch size nor order matters, and bits repeat."""
    encoder: Any = load_encoder(f"imagebind:{folder}")
    assert encoder.modalities == set(MODALITIES)
    assert encoder.dim == 24
    files = {
        "image": "photo.png",
        "event": "events.npz",
        "point": "ball.npy",
        "audio": "tone.flac",
        "text": "words.txt",
        "thermal": "warm.tif",
        "video": "clip.mp4",
    }
    batch = [encoder.prepare(modality, sensor_files / file) for modality, file in files.items()]
    batch.append("a dog")
    together = encoder.encode(batch)
    alone = np.concatenate([encoder.encode([item]) for item in batch])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(together, encoder.encode(batch[::-1])[::-1], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    assert together.tobytes() == encoder.encode(batch).tobytes()
    assert encoder.encode([]).shape == (0, 24)


def test_clips_are_averaged_as_directions(folder: Path, sensor_files: Path) -> None:
    """A video is the mean of the unit vectors of its 5 clips × 3 squares."""
    encoder: Any = load_encoder(f"imagebind:{folder}")
    video = encoder.prepare("video", sensor_files / "clip.mp4")
    assert video.inputs.shape == (15, 3, 2, 224, 224)
    with torch.inference_mode():
        mean = encoder.network("vision", torch.from_numpy(video.inputs)).mean(dim=0)
    expected = functional.normalize(mean, dim=0).numpy()
    np.testing.assert_allclose(encoder.encode([video])[0], expected, atol=1e-5)


def test_the_licence_is_logged_at_load(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The weights may not be used commercially."""
    release_encoders()
    with caplog.at_level(logging.WARNING):
        encoder = load_encoder(f"imagebind:{folder}")
    assert "CC-BY-NC-SA-4.0, not for commercial use" in caplog.text
    assert encoder.licence == "CC-BY-NC-SA-4.0"


def test_identity_follows_weights_heads_and_words(folder: Path, tmp_path: Path) -> None:
    """A copy elsewhere is the same encoder; other heads over the same weights are another."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    first = load_encoder(f"imagebind:{folder}").identity
    assert load_encoder(f"imagebind:{copy / 'imagebind_small.pth'}").identity == first
    (copy / "config.json").write_text(json.dumps({"heads": SMALL_HEADS | {"vision": 2}}), encoding="utf-8")
    assert load_encoder(f"imagebind:{copy}").identity != first


def test_texts_are_read_by_clips_byte_pairs(folder: Path) -> None:
    """`dog` is one word by two merges, start and end stand around it, and 77 tokens are the limit."""
    encoder: Any = load_encoder(f"imagebind:{folder}")
    ids = encoder.text.tokens(["Dog", "ox"])["input_ids"].tolist()
    assert ids[0][:3] == [514, 513, 515]
    counter = token_counter(f"imagebind:{folder}")
    assert counter.limit == 77
    assert counter.count(["dog", "x" * 100]) == [3, 102]


def test_pictures_are_cut_as_in_training() -> None:
    """The short side to 224 by Pillow's bicubic filter, then the middle."""
    pixels = np.random.default_rng(0).integers(0, 256, (300, 451, 3), dtype=np.uint8)
    scaled = Image.fromarray(pixels).resize((336, 224), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(square(pixels), np.asarray(scaled)[:, 56:280])
    assert square(pixels[:30, :20]).shape == (224, 224, 3)


@pytest.mark.parametrize(("height", "width"), [(100, 170), (170, 100), (90, 90)])
def test_films_are_cut_into_three_squares(height: int, width: int) -> None:
    """Left, middle and right of a broad film, top to bottom of a high one; all the same of a square one."""
    clip = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    squares = film_squares(clip)
    assert squares.shape == (3, 3, 2, 224, 224)
    grey = torch.from_numpy(clip[0, :, :, 0].astype(np.float32) / 255)[None, None]
    long = int(224 * max(height, width) / min(height, width))
    sides = (224, long) if width >= height else (long, 224)
    scaled = functional.interpolate(grey, size=sides, mode="bilinear", align_corners=False)[0, 0].numpy()
    over = long - 224
    for number, start in enumerate((0, -(-over // 2), over)):
        cut = scaled[:, start : start + 224] if width >= height else scaled[start : start + 224]
        np.testing.assert_allclose(squares[number, 0, 0], (cut - 0.48145466) / 0.26862954, atol=1e-5)


def test_sounds_are_three_clips_of_two_seconds(tmp_path: Path) -> None:
    """[3, 1, 128, 204], filled with zeros behind 198 windows before it is normalised."""
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000 * 5)
    soundfile.write(tmp_path / "noise.wav", noise, 16_000)
    views = prepare_media("audio", tmp_path / "noise.wav")
    assert (views.tower, views.inputs.shape) == ("audio", (3, 1, 128, 204))
    np.testing.assert_allclose(views.inputs[:, :, :, 198:], 4.268 / 9.138, atol=1e-6)
    assert abs(float(views.inputs[..., :198].mean())) < 1
    soundfile.write(tmp_path / "click.wav", noise[:200], 16_000)
    with pytest.raises(SampleError, match="too short"):
        prepare_media("audio", tmp_path / "click.wav")


def test_thermal_bytes_are_taken_as_they_are(tmp_path: Path) -> None:
    """An 8-bit thermal picture keeps its scale; a deeper one is drawn between its own limits."""
    grey = np.random.default_rng(0).integers(100, 120, (224, 224), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "warm.png")
    views = prepare_media("thermal", tmp_path / "warm.png")
    np.testing.assert_allclose(views.inputs[0, 0], grey / 255, atol=1e-6)
    Image.fromarray(grey.astype(np.uint16) * 50).save(tmp_path / "deep.png")
    deep = prepare_media("thermal", tmp_path / "deep.png").inputs
    assert (deep.min(), deep.max()) == (0, 1)


def _break(place: Path, what: str, state: dict[str, torch.Tensor]) -> None:
    weights = place / "imagebind_small.pth"
    if what == "nothing":
        weights.unlink()
    elif what == "two":
        shutil.copy(weights, place / "other.pth")
    elif what == "cut":
        weights.write_bytes(weights.read_bytes()[:5000])
    elif what == "no archive":
        weights.write_text("<html>404</html>", encoding="utf-8")
    elif what == "code":
        torch.save({"state_dict": Path("a")}, weights)
    elif what == "a list":
        torch.save([torch.zeros(3)], weights)
    elif what == "numbers":
        torch.save({"epoch": 3, "weight": torch.zeros(3)}, weights)
    elif what == "other":
        torch.save({"visual.proj": torch.zeros(3)}, weights)
    elif what == "less":
        less = {key: value for key, value in state.items() if not key.endswith("blocks.1.mlp.fc2.bias")}
        torch.save(less, weights)
    elif what == "shape":
        torch.save(state | {"modality_heads.audio.2.weight": torch.zeros(25, 32)}, weights)
    elif what == "no words":
        (place / "bpe_simple_vocab_16e6.txt.gz").unlink()
    elif what == "torn words":
        (place / "bpe_simple_vocab_16e6.txt.gz").write_bytes(b"\x1f\x8b")
    else:
        (place / "config.json").write_text('{"heads": {"vision": 5}}', encoding="utf-8")


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("nothing", r"should hold one file of weights \(none found\)"),
        ("two", "imagebind_small.pth, other.pth found"),
        ("cut", "cannot be read as weights"),
        ("no archive", "not a file of weights alone"),
        ("code", "may run any code"),
        ("a list", "holds a list, not a state dict"),
        ("numbers", "'epoch' is a int, not a tensor"),
        ("other", "not the weights of ImageBind .*missing: modality_heads.* unexpected: visual.proj"),
        ("less", r"6 missing: modality_trunks\.audio\.blocks\.1\.mlp\.fc2\.bias, .* and 3 more"),
        ("shape", r"1 of another shape: modality_heads\.audio\.2\.weight \[25, 32\] instead of \[24, 32\]"),
        ("no words", "CLIP's vocabulary is missing"),
        ("torn words", "is damaged"),
        ("heads", '"heads"'),
    ],
)
def test_a_broken_folder_is_one_clear_line(
    folder: Path, tmp_path: Path, state: dict[str, torch.Tensor], what: str, expected: str
) -> None:
    """Any defect is reported in one line that names the file; no code in a pickle is run."""
    place = shutil.copytree(folder, tmp_path / "model")
    _break(place, what, state)
    with pytest.raises(InputError, match=expected) as caught:
        load_encoder(f"imagebind:{place}")
    assert "\n" not in str(caught.value)
    assert str(place) in str(caught.value)


_RUN = """
import json, resource, sys
import numpy as np
import torch
from kb_builder.encoders import load_encoder

encoder = load_encoder(f"imagebind:{sys.argv[1]}", "cpu")
files = json.loads(sys.argv[2])
batch = [encoder.prepare(modality, path) for modality, path in files.items()] + ["a dog"]
vectors = np.concatenate([encoder.encode([item]) for item in batch])
towers = {"depth": (1, 1, 224, 224), "imu": (1, 6, 2000)}
with torch.inference_mode():
    extra = [encoder.network(tower, torch.zeros(shape)).numpy() for tower, shape in towers.items()]
vectors = np.concatenate([vectors, *extra])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
off = float(abs(np.linalg.norm(vectors, axis=1) - 1).max())
print(json.dumps({"peak": peak, "shape": vectors.shape, "off": off}))
"""


@pytest.mark.slow
def test_full_size_runs_on_a_real_file_of_each_modality(
    run_on_real_files: Callable[[str, Path], dict[str, Any]], tmp_path: Path
) -> None:
    """`imagebind_huge` with random weights, 4.8 GB on disk, mapped: all towers, with peak memory noted."""
    torch.save(
        _random(_shapes(HUGE, HUGE_BLOCKS, dim=1024, words=512 + len(MERGES) + 2), 0.02),
        tmp_path / "imagebind_huge.pth",
    )
    _write_vocabulary(tmp_path)
    report = run_on_real_files(_RUN, tmp_path)
    assert report["shape"] == [9, 1024]
    assert report["off"] < 1e-5
    assert report["peak"] < 9 * 2**30
