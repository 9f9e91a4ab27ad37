"""The default samples encoder: EfficientNet-Lite0 features of any modality's renderings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data.files import hash_file, hash_json
from data.modality import Modality
from data.reads import reading
from kb_builder.encoders import lite0
from kb_builder.encoders.base import Floats, Source, as_file, unit_rows
from kb_builder.encoders.pictures import PICTURE_VERSION, PICTURED, Bytes, read_views

NAME = "efficientnet-lite0"
# Of 128, 160 and 224 pixels: 73, 75 and 75 % of tabletop samples told apart into 24 categories (leave-one-out
# ridge, mean of six modalities); 224 costs twice as much as 160.
SIZE = 160


@dataclass(frozen=True)
class EfficientNetEncoder:
    """Pooled features of each view, averaged over the views. Heads map them into the text space."""

    network: lite0.Network
    identity: str
    parameters: int
    name: str = NAME
    dim: int = lite0.FEATURES
    modalities: frozenset[str] = PICTURED
    licence: str = lite0.LICENCE

    def prepare(self, modality: Modality, source: Source) -> Bytes:
        """uint8[V, S, S, 3]."""
        return read_views(modality, as_file(source), size=SIZE)

    def encode(self, batch: Sequence[Bytes]) -> Floats:
        """float32[N, 1280], unit rows. The views of all samples go through the network together."""
        return unit_rows(mean_features(self.network, batch))


def mean_features(network: lite0.Network, batch: Sequence[Bytes]) -> Floats:
    """float32[N, 1280]: the pooled features of N samples, each averaged over its views."""
    if not batch:
        return np.zeros((0, lite0.FEATURES), np.float32)
    features_V1280 = lite0.pooled_features(network, np.concatenate(batch))
    counts_N = np.array([len(views) for views in batch])
    sums_N1280 = np.add.reduceat(features_V1280, np.cumsum(counts_N) - counts_N, axis=0)
    means: Floats = np.divide(sums_N1280, counts_N[:, None], dtype=np.float32)
    return means


def load_efficientnet(*, device: str = "cpu") -> EfficientNetEncoder:
    """Raises MissingDependencyError where the packages of network or weights are not installed."""
    identity = hash_json(
        {
            "name": NAME,
            "weights": hash_file(reading(lite0.weights_path())),
            "preprocessing": f"{SIZE}/{PICTURE_VERSION}",
            "dim": lite0.FEATURES,
        }
    )
    network = lite0.load_network(SIZE, device=device)
    return EfficientNetEncoder(network, identity, sum(weight.numel() for weight in network.parameters()))
