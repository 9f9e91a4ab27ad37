"""What CLIP and CLAP share: a folder that transformers saved, with a text tower and one for media.

Nothing is downloaded, and no code of the model's is run.

Shape legend: N samples, V views or windows of all samples, D dimensions.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from data.errors import InputError, MissingDependencyError, UniBindError, first_line
from data.files import hash_json
from data.modality import Modality
from data.readers import read
from data.readers.axes import File, path_of
from data.readers.payload import Text
from data.reads import reading
from kb_builder.encoders.base import Floats, Source, as_file, unit_rows
from kb_builder.encoders.checkpoint import load_state, told_keys
from kb_builder.encoders.licences import licence_of, tell_licence
from kb_builder.encoders.linear import use_onednn
from kb_builder.encoders.memory import check_memory
from kb_builder.encoders.passes import text_passes
from kb_builder.weights import hash_weights, refuse_pointers

Inputs = dict[str, npt.NDArray[Any]]  # what a media tower takes, by argument; every first axis is V
_BESIDE = ("config.json", "tokenizer_config.json", "special_tokens_map.json")  # what a tokenizer reads, too
_PADDED_PER_PASS = 16  # texts that are all padded to one length, of 64 tokens
PICKLED = (
    "pytorch_model.bin"  # where there are no safetensors: read weights-only, so that no code in it is run
)
_VOCABULARIES = ("tokenizer.json", "vocab.json", "spiece.model", "tokenizer.model", "vocab.txt")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TextSide:
    """The tokenizer of a text tower. `fixed`: the tower knows no padding mask, so that every text is padded
    to `limit` tokens; else to the longest text beside it."""

    name: str
    tokenizer: Any
    limit: int
    fixed: bool
    # Hugging Face tokenizers keep their padding settings inside and refuse to be used by two threads at once.
    _tokenizing: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def count(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each text, special ones included, however many."""
        if not texts:
            return []
        with self._tokenizing:
            return [len(ids) for ids in self.tokenizer(list(texts), verbose=False)["input_ids"]]

    def tokens(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """What the text tower takes; texts beyond the limit are cut, and that is logged."""
        # No token is shorter than a byte, and two special ones are added.
        long = [text for text in texts if len(text.encode()) + 2 > self.limit]
        over = sum(count > self.limit for count in self.count(long))
        if over:
            logger.warning(
                "%s reads at most %d tokens: of %d longer texts, only those", self.name, self.limit, over
            )
        padding = "max_length" if self.fixed else "longest"
        with self._tokenizing:
            found: dict[str, torch.Tensor] = dict(
                self.tokenizer(
                    list(texts), padding=padding, truncation=True, max_length=self.limit, return_tensors="pt"
                )
            )
        # Some saved tokenizers give a mask; a tower that was trained without one must not see it.
        return {"input_ids": found["input_ids"]} if self.fixed else found

    def passes(self, texts: list[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
        """Texts, cut into forward passes."""
        if not self.fixed:
            counts = self.count([text for _, text in texts])
            yield from text_passes(texts, [min(count, self.limit) for count in counts])
            return
        for start in range(0, len(texts), _PADDED_PER_PASS):
            yield texts[start : start + _PADDED_PER_PASS]


@dataclass(frozen=True)
class PairedEncoder:
    """Two towers into one space. A sample of several views has their mean direction."""

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
        """The text itself, or what the media tower takes. Raises SampleError for a bad file."""
        if modality == "text":
            return source if isinstance(source, str) else read_text(path_of(source))
        return self.look(modality, as_file(source))

    def encode(self, batch: Sequence[str | Inputs]) -> Floats:
        """float32[N, D], unit rows: those of the library's own call, up to rounding."""
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
        """Unit rows. An input alone goes in twice: a product of one row has other last bits."""
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
    """The encoder of a folder; tells its licence. `weights`: of `hash_folder`; `preprocessing`: a version."""
    licence = licence_of(folder)
    tell_licence(shown, licence)
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
    """What transformers prepares media with, by a folder's own settings; `family` gives its class.

    Raises InputError where the folder does not say how `of` are prepared, or says it wrongly.
    """
    if not any((folder / f"{each}_config.json").is_file() for each in ("preprocessor", "processor")):
        raise InputError(
            f"{shown}: {folder} does not say how {of} are prepared; put preprocessor_config.json there"
        )
    prepares = family()
    try:
        with quiet_transformers():
            return prepares.from_pretrained(str(folder), local_files_only=True)
    except UniBindError:
        raise
    except Exception as error:  # of damaged settings comes anything
        raise InputError(f"{shown}: {folder}: its {what} cannot be loaded: {first_line(error)}") from error


def read_text(path: Path) -> str:
    """The words of a text file."""
    payload = read("text", path)
    assert isinstance(payload, Text)
    return payload.text


def read_kind(name: str, folder: Path, kinds: Collection[str]) -> str:
    """The `model_type` of a folder's config.json. Raises InputError where it is none of `kinds`."""
    path = folder / "config.json"
    if not path.is_file():
        raise InputError(
            f"{name}: {folder} is no folder of transformers (it has no config.json); name the folder that"
            " holds config.json, *.safetensors and the tokenizer"
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        kind = config["model_type"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{name}: {path} is damaged or says no model_type; fetch it again") from None
    if kind not in kinds:
        raise InputError(
            f"{name}: {folder} holds a model of type {kind!r}; this adapter takes {', '.join(sorted(kinds))}"
        )
    return str(kind)


def hash_folder(folder: Path) -> str:
    """SHA-256 over what a model is loaded from. Raises InputError where there are no weights."""
    return hash_weights(folder, besides=() if any(folder.glob("*.safetensors")) else (PICKLED,))


def load_network(name: str, folder: Path, *, device: str) -> Any:
    """The model of a folder in float32, frozen. Raises InputError for weights that are not its own."""
    from safetensors import SafetensorError
    from transformers import MODEL_MAPPING, AutoConfig

    parts = list(folder.glob("*.safetensors"))
    check_memory(name, sum(path.stat().st_size for path in parts))
    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(str(folder), local_files_only=True)
            family: Any = MODEL_MAPPING[type(config)]
            network, told = family.from_pretrained(
                str(folder) if parts else None,
                config=config,
                state_dict=None if parts else load_state(folder / PICKLED),
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,  # told below, in one line
                output_loading_info=True,
            )
    except SafetensorError as error:
        raise InputError(f"{name}: {folder} is damaged ({first_line(error)}); fetch it again") from error
    except UniBindError:
        raise
    except Exception as error:  # of a damaged configuration comes anything
        raise InputError(f"{name}: {folder} cannot be loaded: {first_line(error)}") from error
    missing, misshapen = told["missing_keys"], [str(key[0]) for key in told["mismatched_keys"]]
    if missing or misshapen:
        what = type(network).__name__
        raise InputError(told_keys(f"{name}: {folder}", what, missing, told["unexpected_keys"], misshapen))
    network.eval().requires_grad_(False).to(device)
    if device == "cpu":
        use_onednn(network)
    return network


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without its notices, of which we tell what matters in words of our own."""
    from transformers.utils import logging as theirs

    before = theirs.get_verbosity()
    theirs.set_verbosity_error()
    theirs.disable_progress_bar()
    try:
        yield
    finally:
        theirs.set_verbosity(before)


def load_text_side(name: str, folder: Path, *, fixed: bool) -> TextSide:
    """The tokenizer of a folder and how many tokens its text tower reads; no weights are loaded.

    Raises InputError where there is no tokenizer, MissingDependencyError where it needs another package.
    """
    from transformers import AutoConfig, AutoTokenizer

    if not any((folder / file).is_file() for file in _VOCABULARIES):
        raise InputError(
            f"{name}: {folder} holds no tokenizer (none of {', '.join(_VOCABULARIES)}); put it beside the"
            " weights"
        )
    refuse_pointers(*(reading(folder / file) for file in (*_VOCABULARIES, *_BESIDE)))
    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(str(folder), local_files_only=True).text_config
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except ImportError as error:
        raise MissingDependencyError(
            f"{name}: its tokenizer needs another package ({first_line(error)}):"
            " .venv/bin/pip install --editable '.[clip]'"
        ) from error
    except Exception as error:  # tokenizers raises bare Exception for a damaged file
        raise InputError(
            f"{name}: the tokenizer of {folder} cannot be loaded: {first_line(error)}"
        ) from error
    if len(tokenizer) > config.vocab_size:
        raise InputError(
            f"{name}: the tokenizer of {folder} has {len(tokenizer):,} words, its text tower"
            f" {config.vocab_size:,}; it is another model's"
        )
    limit = config.max_position_embeddings
    if config.model_type == "clap_text_model":  # RoBERTa counts positions from behind the padding's
        limit -= config.pad_token_id + 1
    if not isinstance(tokenizer.model_max_length, int) or tokenizer.model_max_length < 1:
        raise InputError(
            f"{name}: the tokenizer of {folder} has a model_max_length of {tokenizer.model_max_length!r};"
            " correct tokenizer_config.json"
        )
    return TextSide(name, tokenizer, min(limit, tokenizer.model_max_length), fixed)
