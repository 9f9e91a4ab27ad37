"""Published folders of LanguageBind: the towers in them, their configurations and their weights.

A tower's folder has config.json, model.safetensors or pytorch_model.bin, and CLIP's vocabulary. Towers that
were fine-tuned with LoRA (Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022) were
saved with the factors beside the weights, under peft's names; here their product is added to the weights.
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

# In the order of preference for the tower that encodes texts. Depth is not a modality here.
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
_UNUSED = "logit_scale"  # the temperature: it scales vectors without changing their direction

logger = logging.getLogger(__name__)

Count = Annotated[int, Ge(1)]


@dataclass(frozen=True)
class Trunk:
    """The settings that text and media towers share. Defaults are those of the official configurations."""

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
    num_mel_bins: int = 0  # the height of a spectrogram; 0 for other media
    target_length: int = 0  # the width of a spectrogram
    audio_sample_rate: Count = 16_000
    audio_mean: float = 0.5
    audio_std: float = 0.5

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the tower's input."""
        if self.num_mel_bins and self.target_length:
            return self.num_mel_bins, self.target_length
        return self.image_size if isinstance(self.image_size, tuple) else (self.image_size, self.image_size)


@dataclass(frozen=True)
class Tower:
    """One published folder, with its configuration."""

    folder: Path
    kind: str  # a modality, or depth
    text: TextTrunk
    media: MediaTrunk
    dim: int  # of the shared space


def find_towers(shown: str, place: Path) -> list[Tower]:
    """The towers of a folder, or of its sub-folders, in the order of `KINDS`.

    Raises InputError if there is none, if there are two of a kind, and for the folder of another model.
    """
    alone = (place / "config.json").is_file()
    folders = [place] if alone else sorted(path.parent for path in place.glob("*/config.json"))
    if not folders:
        raise InputError(
            f"{shown}: {place} is neither a tower of LanguageBind (config.json, pytorch_model.bin) nor a"
            " folder of towers; fetch them: unibind models get languagebind"
        )
    towers = [_read_tower(shown, folder) for folder in folders]
    for tower in towers:
        if tower.kind == "depth":
            logger.info("%s: %s is skipped: depth is not a modality here", shown, tower.folder.name)
    usable = sorted((tower for tower in towers if tower.kind != "depth"), key=_order)
    if not usable:
        raise InputError(
            f"{shown}: {folders[0]} encodes depth, which is not a modality here; name another tower"
        )
    for one, other in pairwise(usable):
        if one.kind == other.kind:
            raise InputError(
                f"{shown}: {one.folder.name} and {other.folder.name} are both towers of {one.kind}; keep one"
            )
    return usable


def _order(tower: Tower) -> tuple[int, str]:
    return list(KINDS.values()).index(tower.kind), tower.folder.name


def _read_tower(shown: str, folder: Path) -> Tower:
    kind = KINDS[read_kind(shown, folder, KINDS)]
    path = folder / "config.json"
    config = json.loads(reading(path).read_text(encoding="utf-8"))
    try:
        return Tower(
            folder=folder,
            kind=kind,
            text=TypeAdapter(TextTrunk).validate_python(_part(config, "text_config")),
            media=TypeAdapter(MediaTrunk).validate_python(_part(config, "vision_config")),
            dim=TypeAdapter(Count).validate_python(config.get("projection_dim", 512)),
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{shown}: {path}: {where}: {first['msg']}; fetch it again") from None


def _part(config: dict[str, object], name: str) -> object:
    """One table of a config.json. Older versions wrote some settings into a second table, which wins."""
    parts = [config.get(name) or {}, config.get(f"{name}_dict") or {}]
    return {key: value for part in parts if isinstance(part, dict) for key, value in part.items()}


def read_state(shown: str, tower: Tower) -> State:
    """The weights of a tower and its text tower, with LoRA's factors merged, under the names without LoRA.

    Raises InputError as `load_state` does, and for factors without their weight.
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
