"""LanguageBind from its published folders: texts, images, videos, sounds and thermal pictures in one space,
without training (`languagebind:FOLDER`).

FOLDER is the folder of one tower as the hub has it (LanguageBind_Video_FT, …), or a folder of several.
The network (model.py), the weights (folder.py) and the preprocessing (inputs.py) are our own code in plain
torch: the official package, which needs transformers below 5, torchvision, torchaudio, pytorchvideo, decord
and peft are not needed.

Every tower is published with the text tower that it was trained towards. The first tower's encodes the texts
for all, as in the official code; a tower trained towards another one is logged as a warning. Weights are
memory-mapped: a tower that encodes nothing takes almost no memory.
"""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import torch

from data.errors import InputError
from kb_builder.encoders.base import Encoder
from kb_builder.encoders.devices import use_onednn
from kb_builder.encoders.joined import join
from kb_builder.encoders.languagebind.folder import Tower, find_towers, read_state
from kb_builder.encoders.languagebind.inputs import VERSION, prepare_media
from kb_builder.encoders.languagebind.model import build_tower
from kb_builder.encoders.paired import PairedEncoder, hash_folder, paired_encoder
from kb_builder.encoders.text_side import TextSide, clip_words_side, read_saved
from kb_builder.weights.known import find_model

_PICTURES_PER_PASS = 16  # each frame of a video counts
# Kind of a tower -> its modalities. The image tower takes those without a tower too, as their renderings.
_TAKES = {
    "image": frozenset({"image", "event", "point"}),
    "video": frozenset({"video"}),
    "audio": frozenset({"audio"}),
    "thermal": frozenset({"thermal"}),
}
_END_OF_TEXTS = "text_projection.weight"

logger = logging.getLogger(__name__)


def load_languagebind(name: str, *, device: str = "cpu") -> Encoder:
    """Load the tower of a folder, or all towers in its sub-folders, as an encoder of their media and texts.

    Raises InputError for a folder without such towers, for other weights and for too little memory.
    """
    shown, place = f"languagebind:{name}", find_model(name, encoder="languagebind")
    towers = find_towers(shown, place)
    text = _text_side(shown, towers[0])
    each: list[PairedEncoder] = []
    words: torch.Tensor | None = None
    for tower in towers:
        own = shown if len(towers) == 1 else f"{shown}/{tower.folder.name}"
        state = read_state(own, tower)
        found = state.get(_END_OF_TEXTS)
        if words is None:
            words = found
        elif found is None or not torch.equal(words, found):
            logger.warning(
                "%s was trained towards another text tower than that of %s, which encodes the texts",
                own,
                towers[0].folder.name,
            )
        network = build_tower(tower, state, where=f"{own}: {tower.folder}", reads_texts=not each).to(device)
        if device == "cpu":
            use_onednn(network)
        each.append(
            paired_encoder(
                own,
                tower.folder,
                network,
                text,
                partial(prepare_media, trunk=tower.media),
                features="get_image_features",
                views_per_pass=max(1, _PICTURES_PER_PASS // tower.media.num_frames),
                weights=hash_folder(tower.folder),
                preprocessing=VERSION,
                dim=tower.dim,
                modalities=_TAKES[tower.kind] | ({"text"} if not each else set()),
            )
        )
    return each[0] if len(each) == 1 else join(shown, each)


def languagebind_text_side(name: str) -> TextSide:
    """The text side alone, without weights."""
    shown = f"languagebind:{name}"
    return _text_side(shown, find_towers(shown, find_model(name, encoder="languagebind"))[0])


def _text_side(shown: str, tower: Tower) -> TextSide:
    folder, limit = tower.folder, tower.text.max_position_embeddings
    side = clip_words_side(shown, folder, partial(_words, shown, folder), limit=limit)
    if len(side.tokenizer) > tower.text.vocab_size:
        raise InputError(
            f"{shown}: the tokenizer of {folder} has {len(side.tokenizer):,} words, but its text tower has"
            f" {tower.text.vocab_size:,}; it belongs to another model, fetch this one's"
        )
    return side


def _words(shown: str, folder: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    if not all((folder / file).is_file() for file in ("vocab.json", "merges.txt")):
        raise InputError(
            f"{shown}: {folder} has no tokenizer (neither tokenizer.json nor vocab.json and merges.txt);"
            " put it beside the weights"
        )
    return read_saved(folder)
