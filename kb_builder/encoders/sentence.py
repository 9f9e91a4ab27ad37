"""Encoders of sentence-transformers: the bundled MiniLM, or any model by its name or folder.

A CLIP-like model takes pictures too, and so every modality that has a rendering; videos are pictures of their
frames. A model with an audio tower takes the sounds themselves.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from PIL import Image
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import batch_to_device
from transformers.utils.logging import disable_progress_bar

from data.errors import InputError, first_line
from data.files import hash_json
from data.modality import Modality
from data.readers import read, read_audio
from data.readers.axes import path_of
from data.readers.payload import Bytes, Text, Waveform
from data.render import RENDER_VERSION, drawn
from kb_builder.encoders.base import Floats, Source, as_file, unit_rows
from kb_builder.encoders.devices import use_onednn
from kb_builder.encoders.pictures import PICTURED
from kb_builder.encoders.tokens import MINILM, minilm_folder
from kb_builder.encoders.workers import text_passes
from kb_builder.weights.identity import hash_model, refuse_pointers
from kb_builder.weights.known import log_licence, stated_licence

# More would overflow a core's cache, fewer would leave it waiting for Python.
_PICTURES_PER_PASS = 64
_MOST_DIMENSIONS = 2**20
# A clone without Git LFS may have pointers in the place of these.
_LFS_FILES = {".safetensors", ".bin", ".json", ".model"}
_PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

logger = logging.getLogger(__name__)
disable_progress_bar()  # of transformers, one per model loaded; our own progress bars count samples

_Prepared = str | list[Bytes] | Waveform  # a text, the renderings of a sample, or a sound


@dataclass(frozen=True)
class SentenceEncoder:
    """A sentence-transformers model; its vectors are those of `SentenceTransformer.encode`, as unit rows."""

    model: SentenceTransformer
    name: str
    identity: str
    dim: int
    modalities: frozenset[str]
    licence: str
    parameters: int
    hears_at: int | None = None  # samples per second of the sounds it takes; None: it takes renderings
    # The least cosine to the published model, if the model is run in another way.
    agreement: float | None = None
    # A Hugging Face tokenizer stores its padding settings in itself, so two threads cannot use it at once.
    _tokenizing: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def prepare(self, modality: Modality, source: Source) -> _Prepared:
        """The text itself, a sound at the model's rate, or the renderings uint8[H, W, 3] of a sample."""
        if isinstance(source, str) and modality == "text":
            return source
        if modality == "audio" and self.hears_at is not None:
            return read_audio(path_of(as_file(source)), rate=self.hears_at)
        file = as_file(source)
        if modality != "text":
            return drawn(modality, file)
        payload = read(modality, file)
        assert isinstance(payload, Text)
        return payload.text

    def encode(self, batch: Sequence[_Prepared]) -> Floats:
        """float32[N, D], unit rows. Texts of equal length share a forward pass, so no padding is computed.

        A sample of several views gets the mean direction of their vectors. On one CPU, with one set of
        installed packages, a text has the same bytes in any process, on any number of threads and with any
        other texts in the batch. The last does not hold for a tokenizer without an attention mask (SigLIP):
        its texts are padded to the longest of their pass.
        """
        vectors_ND = np.zeros((len(batch), self.dim), np.float32)
        texts = [(row, item) for row, item in enumerate(batch) if isinstance(item, str)]
        for chunk in text_passes(texts, self._lengths([text for _, text in texts])):
            vectors_ND[[row for row, _ in chunk]] = self._forward([text for _, text in chunk])
        views = [(row, view) for row, item in enumerate(batch) if isinstance(item, list) for view in item]
        for start in range(0, len(views), _PICTURES_PER_PASS):
            pictures = views[start : start + _PICTURES_PER_PASS]
            vectors_VD = self._forward([Image.fromarray(view) for _, view in pictures])
            np.add.at(vectors_ND, [row for row, _ in pictures], vectors_VD)
        for row, item in enumerate(batch):
            if isinstance(item, Waveform):  # one at a time: the model would hear the padding to a longer one
                sound = {"array": item.samples_T, "sampling_rate": item.rate}
                vectors_ND[row] = self._forward([sound])[0]
        return unit_rows(vectors_ND)

    def _lengths(self, texts: list[str]) -> list[int]:
        """The tokens of each text that the model reads; all 0 if its tokenizer gives no attention mask."""
        mask_NT = self._preprocess(list(texts)).get("attention_mask") if texts else None
        if mask_NT is None or mask_NT.ndim != 2:
            return [0] * len(texts)
        lengths: list[int] = mask_NT.sum(dim=1).tolist()
        return lengths

    def _preprocess(self, inputs: list[Any]) -> dict[str, Any]:
        prompt = self.model.prompts.get(self.model.default_prompt_name)
        with self._tokenizing:
            features: dict[str, Any] = self.model.preprocess(inputs, prompt=prompt)
        return features

    @torch.inference_mode()
    def _forward(self, inputs: list[Any]) -> Floats:
        features = self._preprocess(inputs)
        self._report_truncation(features)
        vectors_ND = self.model(batch_to_device(features, self.model.device))["sentence_embedding"].float()
        unit_ND: Floats = (
            torch.nn.functional.normalize(vectors_ND[:, : self.model.truncate_dim]).cpu().numpy()
        )
        return unit_ND

    def _report_truncation(self, features: dict[str, Any]) -> None:
        limit, mask_NT = self.model.max_seq_length, features.get("attention_mask")
        if limit is not None and mask_NT is not None and mask_NT.ndim == 2 and mask_NT.shape[1] >= limit:
            full = int((mask_NT.sum(dim=1) >= limit).sum())
            logger.warning(
                "%s reads at most %d tokens: %d texts of that length or more are truncated",
                self.name,
                limit,
                full,
            )


def load_sentence_encoder(name: str, *, device: str = "cpu", precision: str = "fp32") -> SentenceEncoder:
    """Load `minilm`, the folder of a sentence-transformers model, or a downloaded model by its name.

    `precision` is fp32, fp16 or bf16; in half precision it is another encoder, `fp16:NAME`. So it is with
    options behind the name: `NAME?dim=256` keeps the first 256 dimensions, which are a whole embedding where
    the model was trained for it (Matryoshka, Kusupati et al. 2022); `NAME?prompt=document` puts the model's
    own prompt of that name before every text, in place of its default; `NAME?dim=256&prompt=document` does
    both. Nothing is downloaded, and no code from the model's folder is run. Raises InputError if the model
    does not exist, is not one of sentence-transformers or does not have what an option asks for, and
    MissingDependencyError if `minilm` is not installed.
    """
    bare, options = _options(name)
    folder = minilm_folder() if bare == MINILM else _model_folder(bare)
    files = [path for path in folder.rglob("*") if path.suffix in _LFS_FILES]
    # Where there are safetensors, the weights in the older format are not read.
    if any(path.suffix == ".safetensors" for path in files):
        files = [path for path in files if path.suffix != ".bin"]
    refuse_pointers(*files)
    try:
        model = SentenceTransformer(
            str(folder),
            device=device,
            local_files_only=True,
            model_kwargs={"dtype": _PRECISIONS[precision]},
        )
        dim, pictures = model.get_embedding_dimension(), model.supports("image")
        reads, hears = model.supports("text"), model.supports("audio")
    except UnpicklingError as error:  # torch's own message recommends loading it anyway
        raise InputError(
            f"the encoder {name!r} ({folder}) cannot be loaded: its pickled weights hold more than tensors"
            " and are not loaded, since they could run any code; put its *.safetensors there"
        ) from error
    except Exception as error:  # a damaged file can raise any exception
        reason = first_line(error)
        raise InputError(f"the encoder {name!r} ({folder}) cannot be loaded: {reason}") from error
    if dim is None:
        raise InputError(f"the encoder {name!r} ({folder}) does not state its dimension; name another model")
    if not 0 < dim <= _MOST_DIMENSIONS:
        raise InputError(f"the encoder {name!r} ({folder}) is damaged: {dim:,} dimensions; fetch it again")
    chosen = _choose(model, options, name, dim)
    dim = min(dim, chosen.get("dim", dim))
    facts = {
        "name": folder.name if Path(bare).is_dir() else bare,
        "weights": hash_model(folder),
        "preprocessing": f"2/{RENDER_VERSION}" if pictures else "3/sounds" if hears else "2",
        "dim": dim,
        **{key: value for key, value in chosen.items() if key != "dim"},
    }
    model.eval().requires_grad_(False)
    if device == "cpu":
        use_onednn(model)
    licence = "Apache-2.0" if bare == MINILM else stated_licence(folder)
    log_licence(name, licence)
    return SentenceEncoder(
        model=model,
        name=name if precision == "fp32" else f"{precision}:{name}",
        identity=hash_json(facts if precision == "fp32" else {**facts, "precision": precision}),
        dim=dim,
        modalities=frozenset(["text"] * reads + ["audio"] * hears) | (PICTURED if pictures else frozenset()),
        hears_at=_hearing_rate(model, name) if hears else None,
        licence=licence,
        parameters=sum(weight.numel() for weight in model.parameters()),
    )


def _options(name: str) -> tuple[str, dict[str, str]]:
    """The model's own name, and the options behind it; a folder may have a question mark in its name."""
    bare, mark, rest = name.rpartition("?")
    if not mark or Path(name).is_dir():
        return name, {}
    pairs = [each.partition("=") for each in rest.split("&")]
    options = {key: value for key, _, value in pairs}
    if len(options) < len(pairs) or not options.keys() <= {"dim", "prompt"} or not all(options.values()):
        raise InputError(
            f"the encoder {name!r}: behind the question mark stand dim=NUMBER, prompt=NAME, or both with & "
            "between, each once"
        )
    return bare, options


def _choose(model: SentenceTransformer, options: Mapping[str, str], name: str, dim: int) -> dict[str, Any]:
    """Set what the options ask of the model, of `dim` dimensions; returns what decides its vectors."""
    chosen: dict[str, Any] = {}
    if "dim" in options:
        number = options["dim"]
        if not (number.isascii() and number.isdigit() and 0 < int(number) <= dim):
            raise InputError(
                f"the encoder {name!r} has {dim:,} dimensions: dim takes a whole number from 1 to {dim:,}"
            )
        model.truncate_dim = chosen["dim"] = int(number)
    if "prompt" in options:
        wanted = options["prompt"]
        prompts = {key: text for key, text in model.prompts.items() if text}  # "" stands for none
        if wanted not in prompts:
            known = ", ".join(sorted(prompts)) or "none"
            raise InputError(f"the encoder {name!r}: the model has no such prompt; its prompts: {known}")
        model.default_prompt_name, chosen["prompt"] = wanted, prompts[wanted]
    return chosen


load_fp32 = partial(load_sentence_encoder, precision="fp32")
load_fp16 = partial(load_sentence_encoder, precision="fp16")
load_bf16 = partial(load_sentence_encoder, precision="bf16")


def _hearing_rate(model: SentenceTransformer, name: str) -> int:
    """The sampling rate of the model's feature extractor."""
    processor: Any = getattr(model[0], "processor", None)
    extractor = getattr(processor, "feature_extractor", processor)
    if type(extractor).__name__ == "ClapFeatureExtractor":
        raise InputError(
            f"the encoder {name!r} is a CLAP; name it clap:{name}, which encodes long sounds without random"
            " crops"
        )
    rate = getattr(extractor, "sampling_rate", None)
    if not isinstance(rate, int):
        raise InputError(
            f"the encoder {name!r} takes sounds but does not state their sampling rate; name another model"
        )
    return rate


def _model_folder(name: str) -> Path:
    if Path(name).is_dir():
        return Path(name)
    repository = name if "/" in name else f"sentence-transformers/{name}"
    try:
        return Path(snapshot_download(repository, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError) as error:
        raise InputError(
            f"unknown encoder {name!r}: neither built in (minilm, efficientnet-lite0, conse), nor a"
            f" folder, nor a downloaded model; to download it: hf download {repository}"
        ) from error
