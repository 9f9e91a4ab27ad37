"""Network of OpenShape's PointBERT in plain torch, with the names of the state dicts; no compiled operator.

Liu et al., "OpenShape: Scaling Up 3D Shape Representation Towards Open-World Understanding" (NeurIPS 2023),
appendix: a PointNet layer over neighbourhoods of farthest points (Qi et al., PointNet++, 2017), a pre-norm
transformer behind a class token, and a linear map into CLIP's space.

Shape legend: B clouds, N points, P patches, K neighbours, C channels, D width, E dimensions of CLIP's space.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from data.errors import InputError
from kb_builder.weights.checkpoint import State, fill, mismatch_line

_WHAT = "OpenShape's PointBERT"
_HEAD = 64  # dimensions of an attention head


@dataclass(frozen=True)
class Patching:
    """How a cloud is cut into patches; this does not follow from the weights."""

    patches: int  # P
    radius: float  # of a neighbourhood, in the unit sphere
    neighbours: int  # K, at most
    up: str  # the axis that points upwards in the model's clouds: y or z


# By the width of the PointNet layer and that of the transformer's feed-forward layer.
PUBLISHED = {
    (256, 1536): Patching(384, 0.2, 64, "z"),  # pointbert-vitg14-rgb
    (128, 1024): Patching(64, 0.4, 256, "y"),  # pointbert-vitl14-rgb and -vitb32-rgb
}


class PointBert(nn.Module):
    """`forward` gives unit rows [B, E].

    It takes coordinates [B, N, 3] in the unit sphere, channels [B, N, C], and the indices [B, P] of the
    patches' centers, by farthest-point sampling.
    """

    def __init__(self, state: State, patching: Patching) -> None:
        super().__init__()
        self.patching = patching
        self.ppat = nn.Module()
        first = "ppat.sa.mlp_convs"
        layers = sorted(int(key.split(".")[3]) for key in state if key.startswith(first) and "weight" in key)
        shapes = [_shape(state, f"{first}.{number}.weight") for number in layers]
        local = nn.Module()
        local.mlp_convs = nn.ModuleList(nn.Conv2d(shape[1], shape[0], 1) for shape in shapes)
        local.mlp_bns = nn.ModuleList(nn.BatchNorm2d(shape[0]) for shape in shapes)
        width = _shape(state, "ppat.cls_token")[0]
        self.ppat.sa = local
        self.ppat.lift = nn.Sequential(
            nn.Conv1d(shapes[-1][0] + 3, width, 1), nn.Identity(), nn.LayerNorm(width)
        )
        self.ppat.cls_token = nn.Parameter(torch.empty(width))
        inner = _shape(state, "ppat.transformer.layers.0.1.fn.net.0.weight")[0]
        attended = _shape(state, "ppat.transformer.layers.0.0.fn.to_qkv.weight")[0] // 3
        if attended % _HEAD:
            raise ValueError(f"an attention of {attended} dimensions cannot have heads of {_HEAD}")
        depth = 1 + max(int(key.split(".")[3]) for key in state if key.startswith("ppat.transformer.layers."))
        self.ppat.transformer = nn.Module()
        self.ppat.transformer.layers = nn.ModuleList(
            nn.ModuleList(
                [_normed(width, _PointAttention(width, attended)), _normed(width, _mlp(width, inner))]
            )
            for _ in range(depth)
        )
        # The smallest model ends in CLIP's dimensions, without a linear map.
        mapped = "proj.weight" in state
        self.dim = _shape(state, "proj.weight")[0] if mapped else width
        self.proj = nn.Linear(width, self.dim) if mapped else nn.Identity()

    def forward(
        self, xyz_BN3: torch.Tensor, channels_BNC: torch.Tensor, index_BP: torch.Tensor
    ) -> torch.Tensor:
        ppat: Any = self.ppat
        centers_BP3 = _take(xyz_BN3, index_BP)
        near_BPK = ball(xyz_BN3, centers_BP3, radius=self.patching.radius, count=self.patching.neighbours)
        local = torch.cat(
            [_take(xyz_BN3, near_BPK) - centers_BP3[:, :, None], _take(channels_BNC, near_BPK)], -1
        )
        found = local.permute(0, 3, 2, 1)
        for conv, norm in zip(ppat.sa.mlp_convs, ppat.sa.mlp_bns, strict=True):
            found = torch.relu(norm(conv(found)))
        patches_BCP = torch.cat([centers_BP3.transpose(1, 2), found.amax(dim=2)], dim=1)
        lift = ppat.lift
        tokens = lift[2](lift[0](patches_BCP).transpose(1, 2))
        tokens = torch.cat([ppat.cls_token.expand(len(tokens), 1, -1), tokens], dim=1)
        for attention, mlp in ppat.transformer.layers:
            tokens = tokens + attention.fn(attention.norm(tokens))
            tokens = tokens + mlp.fn.net(mlp.norm(tokens))
        unit: torch.Tensor = nn.functional.normalize(self.proj(tokens[:, 0]), dim=-1)
        return unit


class _PointAttention(nn.Module):
    def __init__(self, width: int, attended: int) -> None:
        super().__init__()
        self.to_qkv = nn.Linear(width, 3 * attended, bias=False)
        self.to_out = nn.Sequential(nn.Linear(attended, width))

    def forward(self, x_BLD: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            each.reshape(*x_BLD.shape[:2], -1, _HEAD).transpose(1, 2)
            for each in self.to_qkv(x_BLD).chunk(3, -1)
        )
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        found: torch.Tensor = self.to_out(mixed.transpose(1, 2).flatten(2))
        return found


def _normed(width: int, layer: nn.Module) -> nn.Module:
    both = nn.Module()
    both.norm, both.fn = nn.LayerNorm(width), layer
    return both


def _mlp(width: int, inner: int) -> nn.Module:
    layers = nn.Module()
    layers.net = nn.Sequential(
        nn.Linear(width, inner), nn.GELU(), nn.Identity(), nn.Linear(inner, width), nn.Identity()
    )
    return layers


def ball(xyz_BN3: torch.Tensor, centers_BP3: torch.Tensor, *, radius: float, count: int) -> torch.Tensor:
    """Indices int64[B, P, K] of the first K = `count` points within `radius` of each center, in order.

    If there are fewer, the first one fills the rest (PointNet++, section 3.2); a center is in its own ball.
    """
    outside_BPN = torch.cdist(centers_BP3, xyz_BN3, compute_mode="donot_use_mm_for_euclid_dist") > radius
    numbers_N = torch.arange(xyz_BN3.shape[1], device=xyz_BN3.device)
    order_BPN = torch.where(outside_BPN, len(numbers_N), numbers_N)
    first_BPK = order_BPN.topk(min(count, len(numbers_N)), dim=-1, largest=False, sorted=True).values
    padded = nn.functional.pad(first_BPK, (0, count - first_BPK.shape[-1]), value=len(numbers_N))
    return torch.where(padded == len(numbers_N), padded[..., :1], padded)


def _take(values_BNC: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """The rows of each cloud at indices [B, …]: [B, …, C]."""
    clouds = torch.arange(len(values_BNC), device=values_BNC.device)
    return values_BNC[clouds.reshape(-1, *[1] * (index.ndim - 1)), index]


def _shape(state: State, key: str) -> tuple[int, ...]:
    return tuple(state[key].shape)


def build_point(state: State, *, where: str, patching: Patching | None = None) -> PointBert:
    """The frozen network of a state dict; `patching` is known for the published sizes.

    Raises InputError, with `where`, for other weights, and if `patching` is neither known nor given.
    """
    if "cls_token" in state:
        state = {f"ppat.{key}": value for key, value in state.items()}
    try:
        if patching is None:
            layers = [key for key in state if key.startswith("ppat.sa.mlp_convs") and key.endswith("weight")]
            sizes = (
                _shape(state, max(layers))[0] if layers else 0,
                _shape(state, "ppat.transformer.layers.0.1.fn.net.0.weight")[0],
            )
            patching = PUBLISHED.get(sizes)
        if patching is None:
            raise InputError(
                f"{where}: a PointBERT of an unknown size; put a config.json beside it that states patches,"
                " radius, neighbours and up"
            )
        with torch.device("meta"):
            network = PointBert(state, patching)
    except KeyError as error:
        other = [key for key in state if not key.startswith(("ppat.", "proj."))]
        raise InputError(mismatch_line(where, _WHAT, [str(error.args[0])], other, [])) from None
    except (ValueError, IndexError) as error:  # shapes of another rank
        raise InputError(f"{where}: not the weights of {_WHAT} ({error}); name the right file") from error
    fill(network, state, where=where, what=_WHAT)
    return network
