"""CLIP, SigLIP and SigLIP 2 through transformers: texts and pictures in one space, without training.

`clip:FOLDER`, or `clip:NAME` of a folder in the model folder. The model's own processor prepares pictures, in
its Pillow variant: torchvision is not needed, and an installed one changes no bit. Photos and frames of
videos are given to it as they were read, every other modality as its rendering.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data.errors import MissingDependencyError
from data.modality import Modality
from data.readers import read_image, read_prepared
from data.readers.axes import File, path_of
from data.readers.payload import Bytes
from data.readers.pictures.image import SHORT_SIDE
from data.render import RENDER_VERSION, drawn
from data.render.canvas import SIZE
from kb_builder.encoders.paired import (
    Inputs,
    PairedEncoder,
    hash_folder,
    load_network,
    load_preparation,
    paired_encoder,
    read_kind,
)
from kb_builder.encoders.pictures import PICTURED, trim_long_side
from kb_builder.encoders.text_side import TextSide, load_text_side
from kb_builder.weights.known import find_model

VERSION = 1  # of the preparation of texts and pictures; part of the identity
KINDS = {
    "clip": "CLIPImageProcessorPil",
    "siglip": "SiglipImageProcessorPil",
    "siglip2": "Siglip2ImageProcessorPil",
}
# SigLIP was trained without a padding mask, on texts that are all padded to its limit.
_FIXED = {"siglip", "siglip2"}
_VIEWS_PER_PASS = 32
_FRAMES = "data.render.canvas:quarter_frames"  # in the decoder process


def load_clip(name: str, *, device: str = "cpu") -> PairedEncoder:
    """Load the model of a folder, or of that name in the model folder, as an encoder of all modalities.

    Raises InputError if the folder has no such model, and MissingDependencyError for a missing package.
    """
    shown, folder = f"clip:{name}", find_model(name, encoder="clip")
    kind = read_kind(shown, folder, KINDS)
    weights = hash_folder(folder)
    text = _text_side(shown, folder, kind)
    processor = _processor(shown, folder, kind)
    network = load_network(shown, folder, device=device)
    side = _side(network, processor)

    def look(modality: Modality, file: File) -> Inputs:
        views = [trim_long_side(view) if kind == "clip" else view for view in _views(modality, file, side)]
        return dict(processor(images=views, return_tensors="np", input_data_format="channels_last"))

    return paired_encoder(
        shown,
        folder,
        network,
        text,
        look,
        features="get_image_features",
        views_per_pass=_VIEWS_PER_PASS,
        weights=weights,
        preprocessing=f"clip-{VERSION}/{RENDER_VERSION}",
        dim=_dim(network),
        modalities=PICTURED | {"text"},
    )


def clip_text_side(name: str) -> TextSide:
    """The text side alone, without weights."""
    folder = find_model(name, encoder="clip")
    shown = f"clip:{name}"
    return _text_side(shown, folder, read_kind(shown, folder, KINDS))


def _text_side(shown: str, folder: Path, kind: str) -> TextSide:
    return load_text_side(shown, folder, fixed=kind in _FIXED)


def _processor(shown: str, folder: Path, kind: str) -> Any:
    def family() -> Any:
        import transformers

        found = getattr(transformers, KINDS[kind], None)
        if found is None:
            raise MissingDependencyError(
                f"{shown}: needs transformers 5 or newer: .venv/bin/pip install --editable '.[clip]'"
            )
        return found

    return load_preparation(shown, folder, family, of="pictures", what="picture processor")


def _dim(network: Any) -> int:
    """D. CLIP projects both towers; SigLIP projects only its text tower."""
    config = network.config
    return int(getattr(config, "projection_dim", None) or config.text_config.projection_size)


def _side(network: Any, processor: Any) -> int:
    """The side of the network's input in pixels; if it takes any shape, of the square of the same area."""
    vision = network.config.vision_config
    if hasattr(processor, "max_num_patches"):
        return int(processor.patch_size * processor.max_num_patches**0.5)
    return int(vision.image_size)


def _views(modality: Modality, file: File, side: int) -> list[Bytes]:
    """The pictures of a sample, uint8[H, W, 3] each, large enough for an input of `side` pixels."""
    if modality == "image":
        return [read_image(path_of(file), short_side=max(SHORT_SIDE, 2 * side)).rgb_HW3]
    if modality != "video":
        return drawn(modality, file)
    frames: list[Bytes] = read_prepared(modality, file, _FRAMES, size=max(SIZE, 2 * side))
    return frames
