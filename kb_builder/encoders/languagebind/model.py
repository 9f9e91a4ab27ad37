"""Network of LanguageBind in plain torch, with the names of the state dicts: one class for all its towers.

Zhu et al., "LanguageBind: Extending Video-Language Pretraining to N-modality by Language-based Semantic
Alignment" (ICLR 2024). Each tower is a CLIP (Radford et al. 2021) whose picture tower takes frames, a
spectrogram or a thermal picture. The blocks of a video tower first attend over time, at each position of the
picture separately; a video's vector is the mean over its frames.

Shape legend: B inputs, F frames, L tokens of a frame or text, D width, E dimensions of the shared space.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from data.errors import InputError
from kb_builder.encoders.languagebind.folder import WHAT, MediaTrunk, TextTrunk, Tower, Trunk
from kb_builder.weights.checkpoint import State, fill

Activation = Callable[[torch.Tensor], torch.Tensor]
_MEDIA, _TEXT = ("vision_model.", "visual_projection."), ("text_model.", "text_projection.")
_PATCHES = "vision_model.embeddings.patch_embedding.weight"


def _quick_gelu(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(1.702 * x)


_ACTIVATIONS: dict[str, Activation] = {"gelu": nn.functional.gelu, "quick_gelu": _quick_gelu}


class TowerOutput(NamedTuple):
    """The output that `PairedEncoder` reads: float32[B, E]."""

    pooler_output: torch.Tensor


class LanguageBind(nn.Module):
    """A media tower, and with `reads_texts` its text tower."""

    def __init__(self, tower: Tower, *, reads_texts: bool, per_frame: bool) -> None:
        super().__init__()
        media, text = tower.media, tower.text
        # Of blocks that attend over time, those of videos have no feed-forward layer after it; others do.
        self.vision_model = _Media(media, per_frame=per_frame, temporal_mlp=tower.kind != "video")
        self.visual_projection = nn.Linear(media.hidden_size, tower.dim, bias=False)
        if reads_texts:
            self.text_model = _Text(text)
            self.text_projection = nn.Linear(text.hidden_size, tower.dim, bias=False)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.visual_projection.weight.device

    def get_image_features(self, pixel_values: torch.Tensor) -> TowerOutput:
        """Vectors of media, float32[B, F, 3, height, width]."""
        return TowerOutput(self.visual_projection(self.vision_model(pixel_values)))

    def get_text_features(self, input_ids: torch.Tensor, **_: torch.Tensor) -> TowerOutput:
        """Vectors of token ids [B, L]. No padding mask is needed: attention is causal, padding is last."""
        return TowerOutput(self.text_projection(self.text_model(input_ids)))


class _Media(nn.Module):
    def __init__(self, trunk: MediaTrunk, *, per_frame: bool, temporal_mlp: bool) -> None:
        super().__init__()
        width, patch = trunk.hidden_size, trunk.patch_size
        height, breadth = (side // patch for side in trunk.size)
        self.per_frame = per_frame
        self.embeddings = nn.Module()
        # Version 1.5 of the video tower has a class token for each frame, and patches of one frame.
        shape = (trunk.num_frames, width) if per_frame else (width,)
        self.embeddings.class_embedding = nn.Parameter(torch.empty(shape))
        kernel, channels = (patch, patch), trunk.num_channels
        self.embeddings.patch_embedding = (
            nn.Conv3d(channels, width, (1, *kernel), (1, *kernel), bias=False)
            if per_frame
            else nn.Conv2d(channels, width, kernel, kernel, bias=False)
        )
        self.embeddings.position_embedding = nn.Embedding(1 + height * breadth, width)
        self.pre_layrnorm = nn.LayerNorm(width, eps=trunk.layer_norm_eps)
        frames = trunk.num_frames if trunk.add_time_attn else 0
        self.encoder = _layers(trunk, frames=frames, temporal_mlp=temporal_mlp)
        self.post_layernorm = nn.LayerNorm(width, eps=trunk.layer_norm_eps)

    def forward(self, pixels_BF3HW: torch.Tensor) -> torch.Tensor:
        embeddings: Any = self.embeddings
        batch, frames = pixels_BF3HW.shape[:2]
        pictures = pixels_BF3HW.flatten(0, 1)
        if self.per_frame:
            pictures = pictures.unsqueeze(2)
        patches_NLD = embeddings.patch_embedding(pictures).flatten(2).transpose(1, 2)
        class_N1D = embeddings.class_embedding.expand(batch, frames, -1).reshape(batch * frames, 1, -1)
        tokens = torch.cat([class_N1D, patches_NLD], dim=1) + embeddings.position_embedding.weight
        tokens_BFLD = self.pre_layrnorm(tokens).unflatten(0, (batch, frames))
        for layer in self.encoder.layers:  # type: ignore[union-attr]
            tokens_BFLD = layer(tokens_BFLD)
        found: torch.Tensor = self.post_layernorm(tokens_BFLD[:, :, 0]).mean(dim=1)
        return found


class _Text(nn.Module):
    def __init__(self, trunk: TextTrunk) -> None:
        super().__init__()
        self.embeddings = nn.Module()
        self.embeddings.token_embedding = nn.Embedding(trunk.vocab_size, trunk.hidden_size)
        self.embeddings.position_embedding = nn.Embedding(trunk.max_position_embeddings, trunk.hidden_size)
        self.encoder = _layers(trunk, causal=True)
        self.final_layer_norm = nn.LayerNorm(trunk.hidden_size, eps=trunk.layer_norm_eps)

    def forward(self, ids_BL: torch.Tensor) -> torch.Tensor:
        embeddings: Any = self.embeddings
        words_BLD = embeddings.token_embedding(ids_BL)
        tokens_B1LD = (words_BLD + embeddings.position_embedding.weight[: ids_BL.shape[1]])[:, None]
        for layer in self.encoder.layers:  # type: ignore[union-attr]
            tokens_B1LD = layer(tokens_B1LD)
        # The end-of-text token has the highest id; padding repeats it, and argmax takes the first.
        end_BD = tokens_B1LD[torch.arange(len(ids_BL), device=ids_BL.device), 0, ids_BL.argmax(dim=1)]
        found: torch.Tensor = self.final_layer_norm(end_BD)
        return found


def _layers(trunk: Trunk, *, causal: bool = False, frames: int = 0, temporal_mlp: bool = False) -> nn.Module:
    if trunk.hidden_size % trunk.num_attention_heads:
        raise ValueError(f"{trunk.num_attention_heads} heads do not divide {trunk.hidden_size} dimensions")
    encoder = nn.Module()
    encoder.layers = nn.ModuleList(
        _Layer(trunk, causal=causal, frames=frames, temporal_mlp=temporal_mlp)
        for _ in range(trunk.num_hidden_layers)
    )
    return encoder


class _Layer(nn.Module):
    """A block over tokens [B, F, L, D]; with `frames`, it attends over time first, then within each frame."""

    def __init__(self, trunk: Trunk, *, causal: bool, frames: int, temporal_mlp: bool) -> None:
        super().__init__()
        width, eps = trunk.hidden_size, trunk.layer_norm_eps
        self.frames = frames
        if frames:
            self.temporal_embedding = nn.Parameter(torch.empty(1, frames, width))
            self.temporal_attn = _TowerAttention(trunk, causal=False)
            self.temporal_layer_norm1 = nn.LayerNorm(width, eps=eps)
        self.temporal_mlp = _FeedForward(trunk) if frames and temporal_mlp else None
        self.temporal_layer_norm2 = nn.LayerNorm(width, eps=eps) if frames and temporal_mlp else None
        self.self_attn = _TowerAttention(trunk, causal=causal)
        self.layer_norm1 = nn.LayerNorm(width, eps=eps)
        self.mlp = _FeedForward(trunk)
        self.layer_norm2 = nn.LayerNorm(width, eps=eps)

    def forward(self, x_BFLD: torch.Tensor) -> torch.Tensor:
        if self.frames:
            x_BLFD = x_BFLD.transpose(1, 2)
            if self.frames > 1:
                x_BLFD = x_BLFD + self.temporal_embedding
            x_BLFD = x_BLFD + self.temporal_attn(self.temporal_layer_norm1(x_BLFD))
            if self.temporal_mlp is not None and self.temporal_layer_norm2 is not None:
                x_BLFD = x_BLFD + self.temporal_mlp(self.temporal_layer_norm2(x_BLFD))
            x_BFLD = x_BLFD.transpose(1, 2)
        x_BFLD = x_BFLD + self.self_attn(self.layer_norm1(x_BFLD))
        mixed: torch.Tensor = self.mlp(self.layer_norm2(x_BFLD))
        return x_BFLD + mixed


class _TowerAttention(nn.Module):
    """Vaswani et al. 2017, section 3.2, over the last axis but one."""

    def __init__(self, trunk: Trunk, *, causal: bool) -> None:
        super().__init__()
        width = trunk.hidden_size
        self.heads, self.causal = trunk.num_attention_heads, causal
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.flatten(0, 1)
        query, key, value = (
            each(flat).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for each in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        found: torch.Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return found.view(x.shape)


class _FeedForward(nn.Module):
    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.act = _ACTIVATIONS[trunk.hidden_act]
        self.fc1 = nn.Linear(trunk.hidden_size, trunk.intermediate_size)
        self.fc2 = nn.Linear(trunk.intermediate_size, trunk.hidden_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.fc2(self.act(self.fc1(x)))
        return found


def build_tower(tower: Tower, state: State, *, where: str, reads_texts: bool) -> LanguageBind:
    """The frozen network of a state by `read_state`. Raises InputError, with `where`, for other weights."""
    try:
        with torch.device("meta"):
            per_frame = _PATCHES in state and state[_PATCHES].dim() == 5
            network = LanguageBind(tower, reads_texts=reads_texts, per_frame=per_frame)
    except ValueError as error:
        raise InputError(f"{where}: its config.json is not that of {WHAT} ({error})") from error
    unwanted = () if reads_texts else _TEXT
    wanted = {key: value for key, value in state.items() if not key.startswith(unwanted)}
    fill(network, wanted, where=where, what=WHAT)
    return network
