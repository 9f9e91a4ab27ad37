"""ImageBind from its official weights: six modalities in one space, without training (`imagebind:FILE`).

FILE is `imagebind_huge.pth` as its authors publish it (or the same as safetensors), loaded with weights_only.
The network (model.py) and the preprocessing (inputs.py) are our own code in plain torch: torchvision,
torchaudio, pytorchvideo and the official package are not needed. The weights are CC BY-NC-SA 4.0: not for
commercial use.

CLIP's vocabulary is expected beside the weights, as `bpe_simple_vocab_16e6.txt.gz` or as the tokenizer.json
of any CLIP; that of an installed open_clip is found too.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from data.errors import InputError
from data.files import hash_json
from data.modality import MODALITIES, Modality
from data.readers.axes import path_of
from data.reads import reading
from kb_builder.encoders.base import Floats, Source, as_file, unit_rows
from kb_builder.encoders.devices import use_onednn
from kb_builder.encoders.imagebind.inputs import VERSION, Views, prepare_media
from kb_builder.encoders.imagebind.model import HEADS, ImageBind, build_imagebind
from kb_builder.encoders.paired import read_text
from kb_builder.encoders.text_side import TextSide, clip_words_side, read_original
from kb_builder.weights.checkpoint import load_state, weights_file
from kb_builder.weights.identity import hash_files
from kb_builder.weights.known import find_model, log_licence

LICENCE = "CC-BY-NC-SA-4.0"
BPE = "bpe_simple_vocab_16e6.txt.gz"
_LIMIT = 77  # tokens that the text tower reads
_VIEWS_PER_PASS = 8
_CARRIERS = ("open_clip", "clip", "imagebind")  # packages that contain CLIP's vocabulary


@dataclass(frozen=True)
class ImageBindEncoder:
    """Vectors of the clips, squares and views of one sample are averaged, as by the official model."""

    network: ImageBind
    text: TextSide
    device: str
    name: str
    identity: str
    dim: int
    parameters: int
    modalities: frozenset[str] = frozenset(MODALITIES)
    licence: str = LICENCE

    def prepare(self, modality: Modality, source: Source) -> str | Views:
        """The text itself, or the inputs of the modality's tower. Raises SampleError for a bad file."""
        if modality == "text":
            return source if isinstance(source, str) else read_text(path_of(source))
        return prepare_media(modality, path_of(as_file(source)))

    def encode(self, batch: Sequence[str | Views]) -> Floats:
        """float32[N, D], unit rows."""
        vectors_ND = np.zeros((len(batch), self.dim), np.float32)
        texts = [(row, item) for row, item in enumerate(batch) if isinstance(item, str)]
        for chunk in self.text.passes(texts):
            ids = self.text.tokens([text for _, text in chunk])["input_ids"]
            vectors_ND[[row for row, _ in chunk]] = self._run("text", ids)
        alike: dict[tuple[str, tuple[int, ...]], list[tuple[int, Floats]]] = {}
        for row, item in enumerate(batch):
            if isinstance(item, Views):
                alike.setdefault((item.tower, item.inputs.shape[1:]), []).extend(
                    (row, one) for one in item.inputs
                )
        for (tower, _), views in alike.items():
            for start in range(0, len(views), _VIEWS_PER_PASS):
                some = views[start : start + _VIEWS_PER_PASS]
                inputs = torch.from_numpy(np.stack([view for _, view in some]))
                np.add.at(vectors_ND, [row for row, _ in some], self._run(tower, inputs))
        return unit_rows(vectors_ND)

    @torch.inference_mode()
    def _run(self, tower: str, inputs: torch.Tensor) -> Floats:
        found: Floats = self.network(tower, inputs.to(self.device)).cpu().numpy()
        return found


def load_imagebind(name: str, *, device: str = "cpu") -> ImageBindEncoder:
    """Load a file of weights, or the only one in a folder, or in a folder of that name in the model folder.

    Raises InputError for other weights, for a missing vocabulary and for too little memory.
    """
    shown = f"imagebind:{name}"
    path = weights_file(find_model(name, encoder="imagebind"), shown)
    text = imagebind_text_side(name)
    heads = _heads(path.with_name("config.json"), shown)
    network = build_imagebind(load_state(path), where=str(path), heads=heads)
    log_licence(shown, LICENCE)
    network.to(device)
    if device == "cpu":
        use_onednn(network)
    facts = {
        "name": "imagebind",
        "weights": hash_files({"weights": path})["weights"],
        "heads": heads,
        "words": text.tokenizer.backend_tokenizer.to_str(),
        "preprocessing": VERSION,
        "dim": network.dim,
    }
    parameters = sum(weight.numel() for weight in network.parameters())
    return ImageBindEncoder(network, text, device, shown, hash_json(facts), network.dim, parameters)


def imagebind_text_side(name: str) -> TextSide:
    """The text side, with CLIP's vocabulary from beside the weights or from an installed package."""
    shown = f"imagebind:{name}"
    folder = weights_file(find_model(name, encoder="imagebind"), shown).parent
    return clip_words_side(shown, folder, lambda: read_original(_vocabulary(folder, shown)), limit=_LIMIT)


def _vocabulary(folder: Path, shown: str) -> Path:
    for place in (folder, *_packages()):
        if reading(place / BPE).is_file():
            return place / BPE
    raise InputError(
        f"{shown}: CLIP's vocabulary is missing; put {BPE} (`unibind models get imagebind` fetches it) or the"
        f" tokenizer.json of a CLIP into {folder}"
    )


def _packages() -> Iterator[Path]:
    """The folders of installed packages that may contain the vocabulary; the packages are not imported."""
    for name in _CARRIERS:
        spec = importlib.util.find_spec(name)
        for place in (spec.submodule_search_locations if spec else None) or ():
            yield from (Path(place), Path(place) / "bpe")


def _heads(path: Path, shown: str) -> dict[str, int]:
    """The number of attention heads of each tower: the published ones, unless a config.json states others."""
    if not reading(path).is_file():
        return HEADS
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(value, dict) and "heads" not in value:  # of another program
            return HEADS
        heads = value["heads"]
        return {tower: int(heads[tower]) for tower in HEADS}
    except (OSError, ValueError, KeyError, TypeError):
        towers = ", ".join(HEADS)
        raise InputError(
            f'{shown}: {path}: expected {{"heads": {{…}}}} with a number for each of {towers}'
        ) from None
