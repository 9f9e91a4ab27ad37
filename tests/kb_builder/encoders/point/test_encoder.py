"""OpenShape's PointBERT from random state dicts with the published names, against a second implementation."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from data.errors import InputError
from data.readers.points.geometry import farthest_points
from kb_builder.encode.embed import embed_samples
from kb_builder.encoders import load_encoder
from kb_builder.encoders.point.model import PUBLISHED, Patching, ball, build_point
from kb_builder.encoders.tokens import token_counter
from kb_builder.settings import Encode

SMALL = Patching(12, 0.5, 8, "z")


def _shapes(
    width: int, depth: int, attended: int, inner: int, local: int, dim: int
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the published state dict (OpenShape's ppat.py)."""
    sizes = (9, 64, 64, local)
    for number in range(3):
        yield f"ppat.sa.mlp_convs.{number}.weight", (sizes[number + 1], sizes[number], 1, 1)
        yield f"ppat.sa.mlp_convs.{number}.bias", (sizes[number + 1],)
        for each in ("weight", "bias", "running_mean", "running_var"):
            yield f"ppat.sa.mlp_bns.{number}.{each}", (sizes[number + 1],)
        yield f"ppat.sa.mlp_bns.{number}.num_batches_tracked", ()
    yield "ppat.lift.0.weight", (width, local + 3, 1)
    for name in ("ppat.lift.0.bias", "ppat.lift.2.weight", "ppat.lift.2.bias", "ppat.cls_token"):
        yield name, (width,)
    for number in range(depth):
        for part in (0, 1):
            layer = f"ppat.transformer.layers.{number}.{part}"
            yield f"{layer}.norm.weight", (width,)
            yield f"{layer}.norm.bias", (width,)
        layer = f"ppat.transformer.layers.{number}"
        yield f"{layer}.0.fn.to_qkv.weight", (3 * attended, width)
        yield f"{layer}.0.fn.to_out.0.weight", (width, attended)
        yield f"{layer}.0.fn.to_out.0.bias", (width,)
        yield f"{layer}.1.fn.net.0.weight", (inner, width)
        yield f"{layer}.1.fn.net.0.bias", (inner,)
        yield f"{layer}.1.fn.net.3.weight", (width, inner)
        yield f"{layer}.1.fn.net.3.bias", (width,)
    yield "proj.weight", (dim, width)
    yield "proj.bias", (dim,)


def _random(shapes: Iterator[tuple[str, tuple[int, ...]]]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in shapes:
        if name.endswith("tracked"):
            state[name] = torch.tensor(7)
        elif name.endswith("running_var"):
            state[name] = torch.rand(shape, generator=generator) + 0.5
        else:
            state[name] = torch.empty(shape).normal_(0, 0.2, generator=generator)
    return state


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return _random(_shapes(width=32, depth=2, attended=128, inner=48, local=16, dim=24))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, state: dict[str, torch.Tensor]) -> Path:
    """A small model as its authors save one, and how its clouds are cut."""
    place = tmp_path_factory.mktemp("point")
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, place / "model.pt")
    patching = {"patches": 12, "radius": 0.5, "neighbours": 8, "up": "z"}
    (place / "config.json").write_text(json.dumps(patching), encoding="utf-8")
    return place


def _cloud(points: int, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    xyz = draw.normal(size=(points, 3))
    xyz /= np.linalg.norm(xyz, axis=1, keepdims=True)
    return np.concatenate([xyz, draw.random((points, 3))], axis=1).astype(np.float32)


def _reference(state: dict[str, torch.Tensor], cloud: np.ndarray, patching: Patching) -> np.ndarray:
    """One cloud, patch by patch and head by head, written down from the paper and the published names."""
    xyz = cloud[:, :3].astype(np.float64)
    picks = [0]
    while len(picks) < patching.patches:
        apart = np.min([((xyz - xyz[pick]) ** 2).sum(axis=1) for pick in picks], axis=0)
        picks.append(int(apart.argmax()))
    patches = []
    for pick in picks:
        near = np.flatnonzero(np.linalg.norm(xyz - xyz[pick], axis=1) <= patching.radius)
        near = near[: patching.neighbours]
        near = np.concatenate([near, np.full(patching.neighbours - len(near), near[0])])
        local = torch.from_numpy(np.concatenate([cloud[near, :3] - cloud[pick, :3], cloud[near]], axis=1))
        for number in range(3):
            local = local @ state[f"ppat.sa.mlp_convs.{number}.weight"][:, :, 0, 0].T
            local = local + state[f"ppat.sa.mlp_convs.{number}.bias"]
            mean, var, weight, bias = (
                state[f"ppat.sa.mlp_bns.{number}.{each}"]
                for each in ("running_mean", "running_var", "weight", "bias")
            )
            local = torch.relu((local - mean) / torch.sqrt(var + 1e-5) * weight + bias)
        patches.append(torch.cat([torch.from_numpy(cloud[pick, :3]), local.max(dim=0).values]))
    lifted = torch.stack(patches) @ state["ppat.lift.0.weight"][:, :, 0].T + state["ppat.lift.0.bias"]
    width = lifted.shape[1]
    lifted = functional.layer_norm(lifted, (width,), state["ppat.lift.2.weight"], state["ppat.lift.2.bias"])
    x = torch.cat([state["ppat.cls_token"][None], lifted])
    for number in range(2):
        layer = f"ppat.transformer.layers.{number}"
        seen = functional.layer_norm(
            x, (width,), state[f"{layer}.0.norm.weight"], state[f"{layer}.0.norm.bias"]
        )
        query, key, value = (seen @ state[f"{layer}.0.fn.to_qkv.weight"].T).chunk(3, dim=1)
        heads = []
        for start in range(0, query.shape[1], 64):
            part = slice(start, start + 64)
            share = torch.softmax(query[:, part] @ key[:, part].T / 8, dim=1)
            heads.append(share @ value[:, part])
        x = x + torch.cat(heads, dim=1) @ state[f"{layer}.0.fn.to_out.0.weight"].T
        x = x + state[f"{layer}.0.fn.to_out.0.bias"]
        seen = functional.layer_norm(
            x, (width,), state[f"{layer}.1.norm.weight"], state[f"{layer}.1.norm.bias"]
        )
        inner = functional.gelu(
            seen @ state[f"{layer}.1.fn.net.0.weight"].T + state[f"{layer}.1.fn.net.0.bias"]
        )
        x = x + inner @ state[f"{layer}.1.fn.net.3.weight"].T + state[f"{layer}.1.fn.net.3.bias"]
    found = x[0] @ state["proj.weight"].T + state["proj.bias"]
    return functional.normalize(found, dim=0).numpy()


def test_agrees_with_a_second_implementation(state: dict[str, torch.Tensor]) -> None:
    """Farthest points, balls, PointNet and transformer, to 1e-5."""
    network = build_point(state, where="small", patching=SMALL)
    clouds = np.stack([_cloud(200, seed) for seed in range(3)])
    with torch.inference_mode():
        channels = torch.from_numpy(clouds)
        middles = torch.from_numpy(farthest_points(clouds[:, :, :3], SMALL.patches))
        ours = network(channels[:, :, :3], channels, middles).numpy()
    theirs = np.stack([_reference(state, cloud, SMALL) for cloud in clouds])
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize(
    ("sizes", "published"),
    [
        ({"inner": 1536, "local": 256, "dim": 1280}, (256, 1536)),
        ({"inner": 1024, "local": 128, "dim": 768}, (128, 1024)),
    ],
)
def test_published_sizes_know_how_they_are_patched(sizes: dict[str, int], published: tuple[int, int]) -> None:
    """vitg14 and vitl14 have the names and shapes of their state dicts and need no further file."""
    shapes = dict(_shapes(width=512, depth=12, attended=512, **sizes))
    with torch.device("meta"):
        state = {name: torch.empty(shape) for name, shape in shapes.items()}
    network = build_point(state, where="full")
    assert {name: tuple(value.shape) for name, value in network.state_dict().items()} == shapes
    assert (network.patching, network.dim) == (PUBLISHED[published], sizes["dim"])


def test_the_smallest_published_model_has_no_map(state: dict[str, torch.Tensor]) -> None:
    """vitb32 ends in CLIP's dimensions by itself, and its names have no `ppat.`."""
    bare = {key.removeprefix("ppat."): value for key, value in state.items() if not key.startswith("proj")}
    assert build_point(bare, where="bare", patching=SMALL).dim == 32


def test_balls_are_filled_with_their_first_point() -> None:
    """The first points within the radius in the cloud's order; a center alone fills its ball."""
    line = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0.1, 0, 0], [0.2, 0, 0]]])
    found = ball(line, line[:, [3, 1]], radius=0.25, count=3)
    assert found.tolist() == [[[0, 2, 3], [1, 1, 1]]]
    assert ball(line, line[:, :1], radius=5, count=6).tolist() == [[[0, 1, 2, 3, 0, 0]]]


def test_files_of_any_size_have_unit_vectors(folder: Path, tmp_path: Path) -> None:
    """Loaded from the folder as a user would; neither batch size nor order matters, and bits repeat."""
    encoder: Any = load_encoder(f"point:{folder}")
    assert (encoder.modalities, encoder.dim) == ({"point"}, 24)
    batch = []
    for number, points in enumerate((300, 50, 300, 16)):
        np.save(tmp_path / f"{number}.npy", _cloud(points, number)[:, :3])
        batch.append(encoder.prepare("point", tmp_path / f"{number}.npy"))
    together = encoder.encode(batch)
    alone = np.concatenate([encoder.encode([item]) for item in batch])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(together, encoder.encode(batch[::-1])[::-1], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    assert together.tobytes() == encoder.encode(batch).tobytes()


def test_joined_with_a_clip_each_sees_its_own(
    folder: Path, save_clip: Any, tmp_path: Path, state: dict[str, torch.Tensor], sensor_kb: Path
) -> None:
    """`clip:A + point:B`: clouds by B, all else by A, in one space; other dimensions cannot be joined."""
    clip = f"clip:{save_clip('clip')}"
    with pytest.raises(InputError, match=r"dimensions differ \(clip:.* has 16, point:.* has 24\)"):
        load_encoder(f"{clip} + point:{folder}")
    place = shutil.copytree(folder, tmp_path / "fitting")
    fitting = state | {"proj.weight": state["proj.weight"][:16], "proj.bias": state["proj.bias"][:16]}
    torch.save(fitting, place / "model.pt")
    joined: Any = load_encoder(f"{clip} + point:{place}")
    np.save(tmp_path / "cloud.npy", _cloud(100)[:, :3])
    batch = [joined.prepare("text", "a dog"), joined.prepare("point", tmp_path / "cloud.npy")]
    vectors = joined.encode(batch)
    text, point = load_encoder(clip), load_encoder(f"point:{place}")
    np.testing.assert_allclose(vectors[0], text.encode(["a dog"])[0], atol=1e-6)
    alone = point.encode([point.prepare("point", tmp_path / "cloud.npy")])[0]
    np.testing.assert_allclose(vectors[1], alone, atol=1e-6)
    assert joined.parameters == text.parameters + point.parameters
    assert joined.modalities == text.modalities
    settings = Encode(text=clip, samples=clip, zero_shot=joined.name)
    assert embed_samples(sensor_kb, sensor_kb.parent / "data", settings)["encoded"] == 8 + 7
    assert token_counter(joined.name).limit == 40


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("other", r"not the weights of OpenShape's PointBERT \(1 missing: .* unexpected: visual.proj"),
        ("unknown size", "of an unknown size; put a config.json"),
        ("config", 'expected e.g. {"patches"'),
        ("less", "1 missing: ppat.lift.2.bias"),
    ],
)
def test_a_broken_folder_is_one_clear_line(
    folder: Path, tmp_path: Path, state: dict[str, torch.Tensor], what: str, expected: str
) -> None:
    """Any defect is reported in one line that names the file."""
    place = shutil.copytree(folder, tmp_path / "model")
    if what == "other":
        torch.save({"visual.proj": torch.zeros(3)}, place / "model.pt")
    elif what == "unknown size":
        (place / "config.json").unlink()
    elif what == "config":
        (place / "config.json").write_text('{"patches": 0}', encoding="utf-8")
    else:
        torch.save({key: state[key] for key in state if key != "ppat.lift.2.bias"}, place / "model.pt")
    with pytest.raises(InputError, match=expected) as caught:
        load_encoder(f"point:{place}")
    assert "\n" not in str(caught.value)
    assert str(place) in str(caught.value)
