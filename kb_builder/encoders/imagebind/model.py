"""Network of ImageBind: its six towers in plain torch, with the names and the sizes of the state dict.

Girdhar et al., "ImageBind: One Embedding Space To Bind Them All" (CVPR 2023), appendix B. Every tower is a
pre-norm transformer: patches (or words) behind a class token, blocks, and a linear map of one token. Towers
of audio, depth, thermal and IMU have an additional learned key and value in each attention.

Shape legend: B inputs, L tokens, D width, E dimensions of the shared space, F frames, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from data.errors import InputError
from kb_builder.weights.checkpoint import State, fill, mismatch_line

TOWERS = ("vision", "text", "audio", "depth", "thermal", "imu")
# The numbers of heads do not follow from the weights; these are those of `imagebind_huge`.
HEADS = {"vision": 16, "text": 16, "audio": 12, "depth": 8, "thermal": 12, "imu": 8}
_STEMS = {"vision": "rgbt_stem", "audio": "rgbt_stem", "depth": "depth_stem", "thermal": "rgbt_stem"}
_AUDIO_STRIDE = 10  # of patches of 16; the other towers' patches do not overlap
_IMU_STEPS = 8  # of a patch
_EPS = 1e-6
_WHAT = "ImageBind"


class ImageBind(nn.Module):
    """All six towers; `forward` runs one of them."""

    def __init__(self, state: State, heads: Mapping[str, int]) -> None:
        super().__init__()
        self.dim = _shape(state, "modality_heads.vision.2.weight")[0]
        stems: dict[str, nn.Module] = {"text": _TokenEmbedding(state), "imu": _Motions(state)}
        stems |= {name: _Patches(state, name) for name in _STEMS}
        self.modality_preprocessors = nn.ModuleDict({name: stems[name] for name in TOWERS})
        self.modality_trunks = nn.ModuleDict({name: _Trunk(state, name, heads[name]) for name in TOWERS})
        self.modality_heads = nn.ModuleDict(
            {name: _head(name, width=_width(state, name), dim=self.dim) for name in TOWERS}
        )
        self.modality_postprocessors = nn.ModuleDict(
            {name: nn.Sequential(nn.Identity(), _Scale()) for name in TOWERS if name != "vision"}
        )

    def forward(self, tower: str, inputs: torch.Tensor) -> torch.Tensor:
        """Unit rows float32[B, E]. Inputs, by tower:

        vision [B, 3, F, S, S] (F = 2, or 1 for a still picture) · text: token ids [B, L] · audio
        [B, 1, 128, 204] · depth, thermal [B, 1, S, S] · imu [B, 6, 2000].

        The learned temperature of a tower is omitted: it scales vectors without changing their direction.
        """
        tokens_BLD = self.modality_trunks[tower](self.modality_preprocessors[tower](inputs))
        if tower == "text":  # the end-of-text token, which has the highest id
            seen_BD = tokens_BLD[torch.arange(len(inputs), device=inputs.device), inputs.argmax(dim=1)]
            head = self.modality_heads[tower].get_submodule("proj")
        else:
            seen_BD, head = tokens_BLD[:, 0], self.modality_heads[tower]
        found: torch.Tensor = nn.functional.normalize(head(seen_BD), dim=-1)
        return found


class _Positions(nn.Module):
    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.empty(shape))


class _Patches(nn.Module):
    """The patches of a picture or spectrogram as tokens [B, L, D], behind a class token."""

    def __init__(self, state: State, name: str) -> None:
        super().__init__()
        prefix, self.stem = f"modality_preprocessors.{name}", _STEMS[name]
        stem, width = nn.Module(), _width(state, name)
        if name == "vision":
            _, channels, *kernel = _shape(state, f"{prefix}.{self.stem}.proj.1.weight")
            conv: nn.Module = nn.Conv3d(channels, width, tuple(kernel), tuple(kernel), bias=False)  # type: ignore[arg-type]
            self.frames = kernel[0]
            stem.proj = nn.Sequential(nn.Identity(), conv)
        else:
            _, channels, *kernel = _shape(state, f"{prefix}.{self.stem}.proj.weight")
            stride = _AUDIO_STRIDE if name == "audio" else kernel[0]
            stem.proj = nn.Conv2d(channels, width, tuple(kernel), stride, bias=False)  # type: ignore[arg-type]
            stem.norm_layer = nn.LayerNorm(width)
            self.frames = 0
        self.add_module(self.stem, stem)
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embedding_helper = _Positions(_shape(state, f"{prefix}.pos_embedding_helper.pos_embed"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        stem: Any = getattr(self, self.stem)
        if self.frames and x.shape[2] == 1:  # a still picture is a film of equal frames
            x = x.expand(-1, -1, self.frames, -1, -1)
        tokens_BLD = stem.proj(x).flatten(2).transpose(1, 2)
        if not self.frames:
            tokens_BLD = stem.norm_layer(tokens_BLD)
        with_class = torch.cat([self.cls_token.expand(len(x), -1, -1), tokens_BLD], dim=1)
        return with_class + self.pos_embedding_helper.pos_embed


class _TokenEmbedding(nn.Module):
    """Token ids [B, L] as tokens [B, L, D]; L may be less than in training."""

    def __init__(self, state: State) -> None:
        super().__init__()
        prefix = "modality_preprocessors.text"
        words = _shape(state, f"{prefix}.token_embedding.weight")[0]
        self.token_embedding = nn.Embedding(words, _width(state, "text"))
        self.pos_embed = nn.Parameter(torch.empty(_shape(state, f"{prefix}.pos_embed")))
        # The state dict has the mask of causal attention; it is not used.
        self.register_buffer("mask", torch.empty(_shape(state, f"{prefix}.mask")))

    def forward(self, ids_BL: torch.Tensor) -> torch.Tensor:
        words: torch.Tensor = self.token_embedding(ids_BL)
        return words + self.pos_embed[:, : ids_BL.shape[1]]


class _Motions(nn.Module):
    """Six channels of a motion sensor, [B, 6, 2000], as tokens of 8 steps each, behind a class token."""

    def __init__(self, state: State) -> None:
        super().__init__()
        prefix = "modality_preprocessors.imu"
        width, inputs = _width(state, "imu"), _shape(state, f"{prefix}.imu_stem.proj.weight")[1]
        self.imu_stem = nn.Module()
        self.imu_stem.proj = nn.Linear(inputs, width, bias=False)
        self.imu_stem.norm_layer = nn.LayerNorm(width)
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(_shape(state, f"{prefix}.pos_embed")))

    def forward(self, x_BCT: torch.Tensor) -> torch.Tensor:
        stem: Any = self.imu_stem
        steps = x_BCT.unfold(2, _IMU_STEPS, _IMU_STEPS).transpose(1, 2).flatten(2)
        tokens_BLD = stem.norm_layer(stem.proj(steps))
        with_class = torch.cat([self.cls_token.expand(len(x_BCT), -1, -1), tokens_BLD], dim=1)
        return with_class + self.pos_embed


class _Trunk(nn.Module):
    """The blocks of a tower."""

    def __init__(self, state: State, name: str, heads: int) -> None:
        super().__init__()
        prefix = f"modality_trunks.{name}"
        width, inner = _width(state, name), _shape(state, f"{prefix}.blocks.0.mlp.fc1.weight")[0]
        if width % heads:
            raise ValueError(f"{heads} heads do not divide the {width} dimensions of its {name} tower")
        depth = 1 + max(int(key.split(".")[3]) for key in state if key.startswith(f"{prefix}.blocks."))
        normed = f"{prefix}.pre_transformer_layer.0.weight" in state
        self.pre_transformer_layer = nn.Sequential(nn.LayerNorm(width, eps=_EPS) if normed else nn.Identity())
        biased = f"{prefix}.blocks.0.attn.bias_k" in state
        causal = name == "text"
        self.blocks = nn.Sequential(
            *(_Block(width, inner, heads, biased=biased, causal=causal) for _ in range(depth))
        )

    def forward(self, tokens_BLD: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.blocks(self.pre_transformer_layer(tokens_BLD))
        return found


class _Block(nn.Module):
    def __init__(self, width: int, inner: int, heads: int, *, biased: bool, causal: bool) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(width, eps=_EPS)
        self.attn = _TrunkAttention(width, heads, biased=biased, causal=causal)
        self.norm_2 = nn.LayerNorm(width, eps=_EPS)
        self.mlp = nn.Module()
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x_BLD: torch.Tensor) -> torch.Tensor:
        mlp: Any = self.mlp
        x_BLD = x_BLD + self.attn(self.norm_1(x_BLD))
        mixed: torch.Tensor = mlp.fc2(nn.functional.gelu(mlp.fc1(self.norm_2(x_BLD))))
        return x_BLD + mixed


class _TrunkAttention(nn.Module):
    """Vaswani et al. 2017, section 3.2; `biased`: with an additional learned key and value."""

    def __init__(self, width: int, heads: int, *, biased: bool, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)
        self.bias_k = nn.Parameter(torch.empty(1, 1, width)) if biased else None
        self.bias_v = nn.Parameter(torch.empty(1, 1, width)) if biased else None

    def forward(self, x_BLD: torch.Tensor) -> torch.Tensor:
        query, key, value = nn.functional.linear(x_BLD, self.in_proj_weight, self.in_proj_bias).chunk(3, -1)
        if self.bias_k is not None and self.bias_v is not None:
            key = torch.cat([key, self.bias_k.expand(len(x_BLD), -1, -1)], dim=1)
            value = torch.cat([value, self.bias_v.expand(len(x_BLD), -1, -1)], dim=1)
        mixed = nn.functional.scaled_dot_product_attention(
            self._split(query), self._split(key), self._split(value), is_causal=self.causal
        )
        found: torch.Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return found

    def _split(self, x_BLD: torch.Tensor) -> torch.Tensor:
        """[B, heads, L, D / heads]."""
        return x_BLD.reshape(*x_BLD.shape[:2], self.heads, -1).transpose(1, 2)


class _Scale(nn.Module):
    """The temperature of a tower."""

    def __init__(self) -> None:
        super().__init__()
        self.log_logit_scale = nn.Parameter(torch.empty(()))


def _head(name: str, *, width: int, dim: int) -> nn.Module:
    """Norm and linear map, with the indices of the official layers; those between them have no weights."""
    idle = (nn.Identity() for _ in range({"text": 0, "imu": 2}.get(name, 1)))
    layers = nn.Sequential(nn.LayerNorm(width, eps=_EPS), *idle, nn.Linear(width, dim, bias=False))
    if name != "text":
        return layers
    head = nn.Module()
    head.proj = layers
    return head


def _width(state: State, name: str) -> int:
    return _shape(state, f"modality_trunks.{name}.blocks.0.mlp.fc1.weight")[1]


def _shape(state: State, key: str) -> tuple[int, ...]:
    return tuple(state[key].shape)


def build_imagebind(state: State, *, where: str, heads: Mapping[str, int] = HEADS) -> ImageBind:
    """The network of a state dict, frozen. Raises InputError, with `where`, for other weights or heads."""
    try:
        with torch.device("meta"):
            network = ImageBind(state, heads)
    except KeyError as error:
        other = [key for key in state if not key.startswith("modality_")]
        raise InputError(mismatch_line(where, _WHAT, [str(error.args[0])], other, [])) from None
    except (ValueError, IndexError) as error:  # shapes of another rank
        raise InputError(f"{where}: not the weights of {_WHAT} ({error}); name the right file") from error
    fill(network, state, where=where, what=_WHAT)
    return network
