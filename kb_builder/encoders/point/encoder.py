"""Point clouds in the space of a CLIP, without training: OpenShape's PointBERT (`point:FILE`).

FILE is `model.pt` of openshape-pointbert-vitg14-rgb (partner: OpenCLIP ViT-bigG-14), -vitl14-rgb (CLIP
ViT-L/14) or -vitb32-rgb (CLIP ViT-B/32), loaded with weights_only. Joined with its partner, it encodes the
clouds and the partner all else: `clip:clip-vit-large-patch14 + point:openshape-vitl14`.

Shape legend: N points, B clouds.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError

from data.errors import InputError
from data.files import hash_json
from data.modality import Modality
from data.readers import read_prepared
from data.readers.payload import Floats, Integers
from data.reads import reading
from kb_builder.encoders.base import Floats as Vectors
from kb_builder.encoders.base import Source, as_file, unit_rows
from kb_builder.encoders.devices import use_onednn
from kb_builder.encoders.point.model import Patching, PointBert, build_point
from kb_builder.weights.checkpoint import load_state, weights_file, without_prefix
from kb_builder.weights.identity import hash_files
from kb_builder.weights.known import find_model, licence_of, log_licence

VERSION = 2  # of the preparation of clouds; part of the identity
POINTS = 10_000  # per cloud in the training of the published models
_PREFIXES = ("module.", "pc_encoder.")
_CLOUDS_PER_PASS = 2
_STEP = "data.signal.clouds:cloud_patches"  # in the decoder process


@dataclass(frozen=True)
class PointEncoder:
    """PointBERT over at most `POINTS` points of a cloud."""

    network: PointBert
    device: str
    name: str
    identity: str
    dim: int
    licence: str
    parameters: int
    modalities: frozenset[str] = frozenset({"point"})

    def prepare(self, modality: Modality, source: Source) -> tuple[Floats, Integers]:
        """float32[N, 6]: coordinates in the unit sphere, turned for the model, and colours from 0 to 1; and
        int64[P], the points that are the middles of patches."""
        patching = self.network.patching
        channels_N6, middles_P = read_prepared(
            modality, as_file(source), _STEP, most=POINTS, up=patching.up, patches=patching.patches
        )
        return channels_N6, middles_P

    def encode(self, batch: Sequence[tuple[Floats, Integers]]) -> Vectors:
        """float32[B, D], unit rows. Clouds of equal size share forward passes."""
        vectors_BD = np.zeros((len(batch), self.dim), np.float32)
        sizes: dict[int, list[int]] = {}
        for row, (channels_N6, _) in enumerate(batch):
            sizes.setdefault(len(channels_N6), []).append(row)
        for rows in sizes.values():
            clouds_BN6 = np.stack([batch[row][0] for row in rows])
            vectors_BD[rows] = self._run(clouds_BN6, np.stack([batch[row][1] for row in rows]))
        return unit_rows(vectors_BD)

    @torch.inference_mode()
    def _run(self, clouds_BN6: Floats, middles_BP: Integers) -> Vectors:
        passes = []
        for start in range(0, len(clouds_BN6), _CLOUDS_PER_PASS):
            some = slice(start, start + _CLOUDS_PER_PASS)
            channels = torch.from_numpy(clouds_BN6[some]).to(self.device)
            middles = torch.from_numpy(middles_BP[some]).to(self.device)
            passes.append(self.network(channels[:, :, :3].contiguous(), channels, middles).cpu().numpy())
        return np.concatenate(passes)


def load_point(name: str, *, device: str = "cpu") -> PointEncoder:
    """Load a file of weights, or the only one in a folder, or in a folder of that name in the model folder.

    Raises InputError for other weights and for too little memory.
    """
    shown = f"point:{name}"
    path = weights_file(find_model(name, encoder="point"), shown)
    patching = _patching(path.with_name("config.json"))
    state = without_prefix(load_state(path), _PREFIXES)
    network = build_point(state, where=str(path), patching=patching)
    licence = licence_of(path.parent)
    log_licence(shown, licence)
    network.to(device)
    if device == "cpu":
        use_onednn(network)
    facts = {
        "name": "point",
        "weights": hash_files({"weights": path})["weights"],
        "patching": asdict(network.patching),
        "preprocessing": VERSION,
        "dim": network.dim,
    }
    parameters = sum(weight.numel() for weight in network.parameters())
    return PointEncoder(network, device, shown, hash_json(facts), network.dim, licence, parameters)


def _patching(path: Path) -> Patching | None:
    """The patching in a config.json beside the weights; None without one of ours."""
    if not reading(path).is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(value, dict) and "patches" not in value:
            return None
        patching = TypeAdapter(Patching).validate_python(value)
    except (OSError, ValueError, ValidationError):
        patching = None
    if patching is None or patching.up not in {"y", "z"} or min(patching.patches, patching.neighbours) < 1:
        raise InputError(
            f'{path}: expected e.g. {{"patches": 384, "radius": 0.2, "neighbours": 64, "up": "z"}}'
        )
    return patching
