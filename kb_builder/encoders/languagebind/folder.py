"""LanguageBind's folders as they are published: which tower lies where, how it is built, and its weights.

A tower's folder holds config.json, model.safetensors or pytorch_model.bin, and CLIP's vocabulary. Towers that
were tuned by LoRA (Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022) were saved
with their factors beside the weights, by the names of peft; here the product is added to the weights.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge
from pydantic import TypeAdapter, ValidationError

from data.errors import InputError
from data.reads import reading
from kb_builder.encoders.paired import PICKLED, read_kind
from kb_builder.weights.checkpoint import State, load_state, mismatch_line

# Texts are read by the first tower that is there. Depth has no modality here.
KINDS = {
    "LanguageBindImage": "image",
    "LanguageBindVideo": "video",
    "LanguageBindAudio": "audio",
    "LanguageBindThermal": "thermal",
    "LanguageBindDepth": "depth",
}
WHAT = "LanguageBind"
_TUNED, _PLAIN = "vision_model.encoder.base_model.model.", "vision_model.encoder."
_DOWN, _UP = ".lora_A.default.weight", ".lora_B.default.weight"
_UNUSED = "logit_scale"  # the temperature: it lengthens vectors and turns none

logger = logging.getLogger(__name__)

Count = Annotated[int, Ge(1)]


@dataclass(frozen=True)
class Trunk:
    """What the transformers of texts and media have in common. Defaults are the official configurations'."""

    hidden_size: Count
    intermediate_size: Count
    num_hidden_layers: Count = 12
    num_attention_heads: Count = 12
    hidden_act: Literal["gelu", "quick_gelu"] = "quick_gelu"
    layer_norm_eps: float = 1e-5


@dataclass(frozen=True)
class TextTrunk(Trunk):
    """The text tower."""

    hidden_size: Count = 512
    intermediate_size: Count = 2048
    num_attention_heads: Count = 8
    vocab_size: Count = 49408
    max_position_embeddings: Count = 77


@dataclass(frozen=True)
class MediaTrunk(Trunk):
    """The tower of images, videos, sounds or thermal pictures."""

    hidden_size: Count = 768
    intermediate_size: Count = 3072
    image_size: Count | tuple[Count, Count] = 224
    patch_size: Count = 32
    num_channels: Count = 3
    num_frames: Count = 1
    add_time_attn: bool = False
    lora_alpha: float = 16
    num_mel_bins: int = 0  # of a spectrogram, which is a picture of this height …
    target_length: int = 0  # … and this width
    audio_sample_rate: Count = 16_000
    audio_mean: float = 0.5
    audio_std: float = 0.5

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures that the tower sees."""
        if self.num_mel_bins and self.target_length:
            return self.num_mel_bins, self.target_length
        return self.image_size if isinstance(self.image_size, tuple) else (self.image_size, self.image_size)


@dataclass(frozen=True)
class Tower:
    """One published folder."""

    folder: Path
    kind: str  # a modality, or depth
    text: TextTrunk
    media: MediaTrunk
    dim: int  # of the shared space


def find_towers(shown: str, place: Path) -> list[Tower]:
    """The towers of a folder, or of its sub-folders, in the order of `KINDS`.

    Raises InputError where there is none, where there are two of a kind, and for another model's folder.
    """
    alone = (place / "config.json").is_file()
    folders = [place] if alone else sorted(path.parent for path in place.glob("*/config.json"))
    if not folders:
        raise InputError(
            f"{shown}: {place} holds neither a tower of LanguageBind (config.json, pytorch_model.bin) nor"
            " folders of such towers; fetch them: unibind models get languagebind"
        )
    towers = [_read_tower(shown, folder) for folder in folders]
    for tower in towers:
        if tower.kind == "depth":
            logger.info("%s: %s is passed over: depth is no modality here", shown, tower.folder.name)
    usable = sorted((tower for tower in towers if tower.kind != "depth"), key=_order)
    if not usable:
        raise InputError(f"{shown}: {folders[0]} sees depth alone, which is no modality here; name another")
    for one, other in pairwise(usable):
        if one.kind == other.kind:
            raise InputError(
                f"{shown}: {one.folder.name} and {other.folder.name} are both towers of {one.kind}; leave one"
            )
    return usable


def _order(tower: Tower) -> tuple[int, str]:
    return list(KINDS.values()).index(tower.kind), tower.folder.name


def _read_tower(shown: str, folder: Path) -> Tower:
    kind = KINDS[read_kind(shown, folder, KINDS)]
    path = folder / "config.json"
    told = json.loads(reading(path).read_text(encoding="utf-8"))
    try:
        return Tower(
            folder=folder,
            kind=kind,
            text=TypeAdapter(TextTrunk).validate_python(_part(told, "text_config")),
            media=TypeAdapter(MediaTrunk).validate_python(_part(told, "vision_config")),
            dim=TypeAdapter(Count).validate_python(told.get("projection_dim", 512)),
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{shown}: {path}: {where}: {first['msg']}; fetch it again") from None


def _part(told: dict[str, object], name: str) -> object:
    """Older programs wrote some settings into a second table, which wins."""
    parts = [told.get(name) or {}, told.get(f"{name}_dict") or {}]
    return {key: value for part in parts if isinstance(part, dict) for key, value in part.items()}


def read_state(shown: str, tower: Tower) -> State:
    """The weights of a tower by the names of a tower without LoRA, and its text tower's.

    Raises InputError as `load_state` does, and for LoRA's factors that belong to no weight.
    """
    files = sorted(tower.folder.glob("*.safetensors")) or [tower.folder / PICKLED]
    state: State = {}
    for file in files:
        for key, value in load_state(file).items():
            if key != _UNUSED and not key.endswith(".position_ids"):
                state[key.replace(_TUNED, _PLAIN).replace(".base_layer.", ".")] = value
    for key in [key for key in state if key.endswith(_DOWN)]:
        name = key.removesuffix(_DOWN)
        missing = [each for each in (f"{name}.weight", f"{name}{_UP}") if each not in state]
        if missing:
            raise InputError(mismatch_line(f"{shown}: {tower.folder}", WHAT, missing, [], []))
        down, up = state.pop(key).float(), state.pop(f"{name}{_UP}").float()
        scale = tower.media.lora_alpha / len(down)
        state[f"{name}.weight"] = state[f"{name}.weight"].float() + scale * (up @ down)
    return state
