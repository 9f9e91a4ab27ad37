"""MiniLM, the bundled text encoder, run by torch and `tokenizers` alone: it loads in a tenth of a second.

sentence-transformers and transformers take seconds to import, which every command that encodes a few words
would pay. The network is theirs operation by operation, so a text's vector has the same bits as through them
(kb_builder/encoders/sentence.py), and the encoder the same identity. `fp16:minilm` and `onnx:minilm`, and
MiniLM on a GPU, are loaded there.

Shape legend: B texts of a pass, T tokens, D dimensions.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional

from data.errors import InputError, first_line
from data.files import hash_json
from data.modality import Modality
from data.readers import read
from data.reads import reading
from kb_builder.encoders.base import Encoder, Floats, Source, as_file, unit_rows
from kb_builder.encoders.devices import use_onednn
from kb_builder.encoders.tokens import MINILM, TOKEN_LIMIT, minilm_folder
from kb_builder.encoders.workers import text_passes
from kb_builder.weights.checkpoint import fill, load_state
from kb_builder.weights.identity import hash_model, refuse_pointers
from kb_builder.weights.known import log_licence

LICENCE = "Apache-2.0"
PREPROCESSING = "2"  # that of kb_builder/encoders/sentence.py: part of the identity
WORDS, POSITIONS, KINDS = 30_522, 512, 2  # rows of the three tables of embeddings
LAYERS, DIM, WIDE, HEADS = 6, 384, 1536, 12
_EPSILON = 1e-12
# In the file, but without a part in the vectors: position numbers, and the layer that BERT was trained with.
_UNUSED = ("embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias")

logger = logging.getLogger(__name__)


class _Residual(nn.Module):
    """A linear layer, the sum with what came before, and its normalisation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, DIM)
        self.LayerNorm = nn.LayerNorm(DIM, eps=_EPSILON)

    def forward(self, x: torch.Tensor, before_BTD: torch.Tensor) -> torch.Tensor:
        normal: torch.Tensor = self.LayerNorm(self.dense(x) + before_BTD)
        return normal


class _Layer(nn.Module):
    """Attention and the feed-forward network of one layer, with BERT's names."""

    def __init__(self) -> None:
        super().__init__()
        projections = {name: nn.Linear(DIM, DIM) for name in ("query", "key", "value")}
        self.attention = nn.ModuleDict({"self": nn.ModuleDict(projections), "output": _Residual(DIM)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(DIM, WIDE)})
        self.output = _Residual(WIDE)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        split = (*x_BTD.shape[:2], HEADS, DIM // HEADS)
        projections: Any = self.attention["self"]
        query, key, value = (
            projections[name](x_BTD).view(split).transpose(1, 2) for name in ("query", "key", "value")
        )
        seen = functional.scaled_dot_product_attention(query, key, value, scale=(DIM // HEADS) ** -0.5)
        x_BTD = self.attention["output"](seen.transpose(1, 2).reshape(x_BTD.shape), x_BTD)
        wide = functional.gelu(self.intermediate["dense"](x_BTD))
        found: torch.Tensor = self.output(wide, x_BTD)
        return found


def _table(rows: int) -> nn.Embedding:
    # On the meta device, the random values of `nn.Embedding(rows, DIM)` would import torch's compiler (3 s).
    return nn.Embedding(rows, DIM, _weight=torch.empty(rows, DIM))


class MiniLMNetwork(nn.Module):
    """The frozen transformer for texts of equal length, so without a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.ModuleDict(
            {
                "word_embeddings": _table(WORDS),
                "position_embeddings": _table(POSITIONS),
                "token_type_embeddings": _table(KINDS),
                "LayerNorm": nn.LayerNorm(DIM, eps=_EPSILON),
            }
        )
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(_Layer() for _ in range(LAYERS))})

    def forward(self, ids_BT: torch.Tensor) -> torch.Tensor:
        """float32[B, D], unit rows: the mean of the last layer over the tokens."""
        tables = self.embeddings
        x_BTD = tables["word_embeddings"](ids_BT) + tables["token_type_embeddings"](torch.zeros_like(ids_BT))
        positions_1TD = tables["position_embeddings"](torch.arange(ids_BT.shape[1])[None])
        x_BTD = tables["LayerNorm"](x_BTD + positions_1TD)
        layers: Any = self.encoder["layer"]
        for layer in layers:
            x_BTD = layer(x_BTD)
        mean_BD = x_BTD.sum(dim=1) / x_BTD.shape[1]
        # Twice, as there: once as the last module of the model, once as the setting of `encode`.
        return functional.normalize(functional.normalize(mean_BD))


@dataclass(frozen=True)
class MiniLmEncoder:
    """The bundled MiniLM on the CPU; its vectors are those of `SentenceTransformer.encode`, as unit rows."""

    network: MiniLMNetwork
    tokenizer: Tokenizer
    identity: str
    parameters: int
    name: str = MINILM
    dim: int = DIM
    modalities: frozenset[str] = frozenset({"text"})
    licence: str = LICENCE

    def prepare(self, modality: Modality, source: Source) -> str:
        """The text itself, or that of a file. Raises SampleError for an unreadable file."""
        if isinstance(source, str) and modality == "text":
            return source
        payload: Any = read(modality, as_file(source))
        text: str = payload.text
        return text

    def encode(self, batch: Sequence[str]) -> Floats:
        """float32[N, D], unit rows. Texts of equal length share a forward pass, so no padding is computed.

        On one CPU, with one set of installed packages, a text has the same bytes in any process, on any
        number of threads and with any other texts in the batch.
        """
        vectors_ND = np.zeros((len(batch), DIM), np.float32)
        ids = [encoding.ids for encoding in self.tokenizer.encode_batch(list(batch))]
        for chunk in text_passes(list(enumerate(batch)), [len(each) for each in ids]):
            rows = [row for row, _ in chunk]
            vectors_ND[rows] = self._forward([ids[row] for row in rows])
        return unit_rows(vectors_ND)

    @torch.inference_mode()
    def _forward(self, ids: list[list[int]]) -> Floats:
        if len(ids[0]) >= TOKEN_LIMIT:
            logger.warning(
                "%s reads at most %d tokens: %d texts of that length or more are truncated",
                self.name,
                TOKEN_LIMIT,
                len(ids),
            )
        unit_BD: Floats = self.network(torch.tensor(ids)).numpy()
        return unit_BD


def load_minilm(detail: str = "", *, device: str = "cpu") -> Encoder:
    """The bundled MiniLM.

    Raises InputError where a model is named after the colon, for there is one only, and where a file is
    damaged; MissingDependencyError where its package is not installed.
    """
    if detail:
        raise InputError(f"{MINILM}:{detail}: {MINILM} is one model; leave out `:{detail}`")
    if device != "cpu":
        from kb_builder.encoders.sentence import load_fp32

        return load_fp32(MINILM, device=device)
    folder = minilm_folder()
    weights = reading(folder / "model.safetensors")
    refuse_pointers(weights, folder / "tokenizer.json")
    facts = {"name": MINILM, "weights": hash_model(folder), "preprocessing": PREPROCESSING, "dim": DIM}
    state = load_state(weights)
    network = _empty_network()
    used = {name: tensor for name, tensor in state.items() if name not in _UNUSED}
    fill(network, used, where=str(weights), what="MiniLM")
    use_onednn(network)
    log_licence(MINILM, LICENCE)
    counted = sum(tensor.numel() for tensor in state.values() if tensor.is_floating_point())
    return MiniLmEncoder(network, _load_tokenizer(folder), hash_json(facts), counted)


def _empty_network() -> MiniLMNetwork:
    with torch.device("meta"):
        return MiniLMNetwork()


def _load_tokenizer(folder: Path) -> Tokenizer:
    path = reading(folder / "tokenizer.json")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for a damaged file
        raise InputError(f"{path}: cannot be read as a tokenizer: {first_line(error)}") from error
    tokenizer.no_padding()  # the file pads to 128 tokens
    tokenizer.enable_truncation(TOKEN_LIMIT)
    return tokenizer
