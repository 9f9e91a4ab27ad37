"""Two-tower encoders, the shared part of CLIP and CLAP: a text tower and a media tower from one folder.

The folder is one that transformers saved. Nothing is downloaded, and no code from the folder is run.

Shape legend: N samples, V views or windows of all samples, D dimensions.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from data.errors import InputError, UniBindError, first_line
from data.files import hash_json
from data.modality import Modality
from data.readers import read
from data.readers.axes import File, path_of
from data.readers.payload import Text
from kb_builder.encoders.base import Floats, Source, as_file, unit_rows
from kb_builder.encoders.devices import use_onednn
from kb_builder.encoders.text_side import TextSide, quiet_transformers
from kb_builder.weights.checkpoint import load_state, mismatch_line
from kb_builder.weights.identity import check_memory, hash_weights
from kb_builder.weights.known import licence_of, log_licence

Inputs = dict[str, npt.NDArray[Any]]  # arguments of a media tower, by name; each first axis is V
# Read only if there are no safetensors; with weights_only, so that no code in it is run.
PICKLED = "pytorch_model.bin"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PairedEncoder:
    """Two towers into one space. A sample of several views gets the mean direction of their vectors."""

    network: Any
    text: TextSide
    look: Callable[[Modality, File], Inputs]  # decodes one sample and prepares it for the media tower
    features: str  # the method of the network that runs the media tower
    views_per_pass: int
    name: str
    identity: str
    dim: int
    modalities: frozenset[str]
    licence: str
    parameters: int

    def prepare(self, modality: Modality, source: Source) -> str | Inputs:
        """The text itself, or the inputs of the media tower. Raises SampleError for a bad file."""
        if modality == "text":
            return source if isinstance(source, str) else read_text(path_of(source))
        return self.look(modality, as_file(source))

    def encode(self, batch: Sequence[str | Inputs]) -> Floats:
        """float32[N, D], unit rows, equal to the library's own result up to rounding."""
        vectors_ND = np.zeros((len(batch), self.dim), np.float32)
        texts = [(row, item) for row, item in enumerate(batch) if isinstance(item, str)]
        for chunk in self.text.passes(texts):
            tokens = self.text.tokens([text for _, text in chunk])
            vectors_ND[[row for row, _ in chunk]] = self._run("get_text_features", tokens)
        media = [(row, item) for row, item in enumerate(batch) if not isinstance(item, str)]
        if media:
            row_V = np.repeat(
                [row for row, _ in media], [len(next(iter(item.values()))) for _, item in media]
            )
            joined = {key: np.concatenate([item[key] for _, item in media]) for key in media[0][1]}
            for start in range(0, len(row_V), self.views_per_pass):
                some = slice(start, start + self.views_per_pass)
                tensors = {key: torch.from_numpy(value[some]) for key, value in joined.items()}
                np.add.at(vectors_ND, row_V[some], self._run(self.features, tensors))
        return unit_rows(vectors_ND)

    @torch.inference_mode()
    def _run(self, method: str, tensors: dict[str, torch.Tensor]) -> Floats:
        """Unit rows. A single input goes in twice, since a product of one row has other last bits."""
        device = self.network.device
        n = len(next(iter(tensors.values())))
        if n == 1:
            tensors = {key: torch.cat([value, value]) for key, value in tensors.items()}
        output = getattr(self.network, method)(**{key: value.to(device) for key, value in tensors.items()})
        unit_VD: Floats = torch.nn.functional.normalize(output.pooler_output.float()).cpu().numpy()
        return unit_VD[:n]


def paired_encoder(
    shown: str,
    folder: Path,
    network: Any,
    text: TextSide,
    look: Callable[[Modality, File], Inputs],
    *,
    features: str,
    views_per_pass: int,
    weights: str,
    preprocessing: str,
    dim: int,
    modalities: frozenset[str],
) -> PairedEncoder:
    """The encoder of a folder; logs its licence. `weights`: the hash by `hash_folder`; `preprocessing`: its
    version.
    """
    licence = licence_of(folder)
    log_licence(shown, licence)
    facts = {"name": folder.resolve().name, "weights": weights, "preprocessing": preprocessing, "dim": dim}
    return PairedEncoder(
        network=network,
        text=text,
        look=look,
        features=features,
        views_per_pass=views_per_pass,
        name=shown,
        identity=hash_json(facts),
        dim=dim,
        modalities=modalities,
        licence=licence,
        parameters=sum(weight.numel() for weight in network.parameters()),
    )


def load_preparation(shown: str, folder: Path, family: Callable[[], Any], *, of: str, what: str) -> Any:
    """The processor of transformers that prepares media, with a folder's settings; `family` gives its class.

    `of` and `what` name the media and the processor in messages. Raises InputError if the folder has no
    settings for it, or damaged ones.
    """
    if not any((folder / f"{each}_config.json").is_file() for each in ("preprocessor", "processor")):
        raise InputError(
            f"{shown}: {folder} has no settings to prepare {of}; put preprocessor_config.json there"
        )
    prepares = family()
    try:
        with quiet_transformers():
            return prepares.from_pretrained(str(folder), local_files_only=True)
    except UniBindError:
        raise
    except Exception as error:  # damaged settings can raise any exception
        raise InputError(f"{shown}: {folder}: its {what} cannot be loaded: {first_line(error)}") from error


def read_text(path: Path) -> str:
    """The text in a file. Raises SampleError for an unreadable file."""
    payload = read("text", path)
    assert isinstance(payload, Text)
    return payload.text


def read_kind(name: str, folder: Path, kinds: Collection[str]) -> str:
    """The `model_type` of a folder's config.json. Raises InputError if it is not one of `kinds`."""
    path = folder / "config.json"
    if not path.is_file():
        raise InputError(
            f"{name}: {folder} is not a folder saved by transformers (no config.json); name the folder with"
            " config.json, *.safetensors and the tokenizer"
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        kind = config["model_type"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{name}: {path} is damaged or states no model_type; fetch it again") from None
    if kind not in kinds:
        raise InputError(
            f"{name}: {folder} holds a model of type {kind!r}; this adapter takes {', '.join(sorted(kinds))}"
        )
    return str(kind)


def hash_folder(folder: Path) -> str:
    """SHA-256 over the files that a model is loaded from. Raises InputError if there are no weights."""
    return hash_weights(folder, besides=() if any(folder.glob("*.safetensors")) else (PICKLED,))


def load_network(name: str, folder: Path, *, device: str) -> Any:
    """The model of a folder in float32, frozen. Raises InputError for damaged or other weights."""
    from safetensors import SafetensorError
    from transformers import MODEL_MAPPING, AutoConfig

    parts = list(folder.glob("*.safetensors"))
    check_memory(name, sum(path.stat().st_size for path in parts))
    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(str(folder), local_files_only=True)
            family: Any = MODEL_MAPPING[type(config)]
            network, loading = family.from_pretrained(
                str(folder) if parts else None,
                config=config,
                state_dict=None if parts else load_state(folder / PICKLED),
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,  # reported below, in one line
                output_loading_info=True,
            )
    except SafetensorError as error:
        raise InputError(f"{name}: {folder} is damaged ({first_line(error)}); fetch it again") from error
    except UniBindError:
        raise
    except Exception as error:  # a damaged configuration can raise any exception
        raise InputError(f"{name}: {folder} cannot be loaded: {first_line(error)}") from error
    missing, misshapen = loading["missing_keys"], [str(key[0]) for key in loading["mismatched_keys"]]
    if missing or misshapen:
        what = type(network).__name__
        unexpected = loading["unexpected_keys"]
        raise InputError(mismatch_line(f"{name}: {folder}", what, missing, unexpected, misshapen))
    network.eval().requires_grad_(False).to(device)
    if device == "cpu":
        use_onednn(network)
    return network
