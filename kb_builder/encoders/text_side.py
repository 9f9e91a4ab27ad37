"""Text side of an encoder: its tokenizer, how many tokens it reads, and how texts share forward passes.

The tokenizer is that of a folder which transformers saved (`load_text_side`), or CLIP's byte-pair encoding
(Radford et al. 2021) from any form of its vocabulary that is found beside the weights (`clip_words_side`).
"""

from __future__ import annotations

import gzip
import json
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from data.errors import InputError, MissingDependencyError, first_line
from data.reads import reading
from kb_builder.encoders.workers import text_passes
from kb_builder.weights.identity import refuse_pointers

# A byte-pair vocabulary: the number of each word, and the merges.
Words = tuple[dict[str, int], list[tuple[str, str]]]

_PADDED_PER_PASS = 16  # texts of a pass whose texts are all padded to one length (SigLIP: 64 tokens)
_VOCABULARIES = ("tokenizer.json", "vocab.json", "spiece.model", "tokenizer.model", "vocab.txt")
_SETTINGS = ("config.json", "tokenizer_config.json", "special_tokens_map.json")  # also read by a tokenizer
_MERGES = 49152 - 256 - 2  # the lines of CLIP's vocabulary file that are used

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TextSide:
    """The tokenizer of a text tower, and its `limit` in tokens.

    `fixed`: the tower has no padding mask, so every text is padded to `limit` tokens; otherwise to the
    longest text of its pass.
    """

    name: str
    tokenizer: Any
    limit: int
    fixed: bool
    # A Hugging Face tokenizer stores its padding settings in itself, so two threads cannot use it at once.
    _tokenizing: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def count(self, texts: Sequence[str]) -> list[int]:
        """The number of tokens of each text, special ones included, without the limit."""
        if not texts:
            return []
        with self._tokenizing:
            return [len(ids) for ids in self.tokenizer(list(texts), verbose=False)["input_ids"]]

    def tokens(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """The inputs of the text tower. Texts beyond the limit are truncated, with a warning in the log."""
        # A token is at least one byte, and there are two special ones: shorter texts need not be counted.
        long = [text for text in texts if len(text.encode()) + 2 > self.limit]
        over = sum(count > self.limit for count in self.count(long))
        if over:
            logger.warning(
                "%s reads at most %d tokens: %d longer texts are truncated", self.name, self.limit, over
            )
        padding = "max_length" if self.fixed else "longest"
        with self._tokenizing:
            found: dict[str, torch.Tensor] = dict(
                self.tokenizer(
                    list(texts), padding=padding, truncation=True, max_length=self.limit, return_tensors="pt"
                )
            )
        # Some saved tokenizers give a mask; a tower that was trained without one must not get it.
        return {"input_ids": found["input_ids"]} if self.fixed else found

    def passes(self, texts: list[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
        """Cut (row, text) pairs into forward passes."""
        if not self.fixed:
            counts = self.count([text for _, text in texts])
            yield from text_passes(texts, [min(count, self.limit) for count in counts])
            return
        for start in range(0, len(texts), _PADDED_PER_PASS):
            yield texts[start : start + _PADDED_PER_PASS]


def load_text_side(name: str, folder: Path, *, fixed: bool) -> TextSide:
    """The text side of a folder that transformers saved; no weights are loaded.

    Raises InputError if the folder has no tokenizer, a damaged one or another model's, and
    MissingDependencyError if its tokenizer needs a package that is not installed.
    """
    from transformers import AutoConfig, AutoTokenizer

    if not any((folder / file).is_file() for file in _VOCABULARIES):
        raise InputError(
            f"{name}: {folder} has no tokenizer (none of {', '.join(_VOCABULARIES)}); put it beside the"
            " weights"
        )
    refuse_pointers(*(reading(folder / file) for file in (*_VOCABULARIES, *_SETTINGS)))
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
            f"{name}: the tokenizer of {folder} has {len(tokenizer):,} words, but its text tower has"
            f" {config.vocab_size:,}; it belongs to another model, fetch this one's"
        )
    limit = config.max_position_embeddings
    if config.model_type == "clap_text_model":  # RoBERTa numbers positions after the padding id
        limit -= config.pad_token_id + 1
    if not isinstance(tokenizer.model_max_length, int) or tokenizer.model_max_length < 1:
        raise InputError(
            f"{name}: the tokenizer of {folder} has a model_max_length of {tokenizer.model_max_length!r};"
            " correct tokenizer_config.json"
        )
    return TextSide(name, tokenizer, min(limit, tokenizer.model_max_length), fixed)


def clip_words_side(shown: str, folder: Path, words: Callable[[], Words], *, limit: int) -> TextSide:
    """A text side with CLIP's byte-pair encoding: by the folder's tokenizer.json if it exists, else by the
    vocabulary `words()`.

    `shown` is the encoder's name in messages. Raises InputError for a damaged file.
    """
    from transformers import CLIPTokenizerFast, PreTrainedTokenizerFast

    try:
        with quiet_transformers():
            if reading(folder / "tokenizer.json").is_file():
                tokenizer: Any = PreTrainedTokenizerFast(
                    tokenizer_file=str(folder / "tokenizer.json"), pad_token="<|endoftext|>"
                )
            else:
                vocabulary, merges = words()
                tokenizer = CLIPTokenizerFast(vocab=vocabulary, merges=merges)
    except InputError:
        raise
    except Exception as error:  # tokenizers raises bare Exception for a damaged file
        raise InputError(f"{shown}: the vocabulary in {folder} is damaged: {first_line(error)}") from error
    return TextSide(shown, tokenizer, limit, fixed=False)


def read_original(path: Path) -> Words:
    """The vocabulary in OpenAI's `bpe_simple_vocab_16e6.txt.gz`, which lists its merges only."""
    merges = _pairs(gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")[1 : _MERGES + 1])
    letters = _byte_letters()
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    return {word: number for number, word in enumerate(words)}, merges


def read_saved(folder: Path) -> Words:
    """The vocabulary in `vocab.json` and `merges.txt`, as transformers saves it."""
    words = json.loads(reading(folder / "vocab.json").read_text(encoding="utf-8"))
    return words, _pairs(reading(folder / "merges.txt").read_text(encoding="utf-8").split("\n")[1:])


def _pairs(lines: list[str]) -> list[tuple[str, str]]:
    split = [line.split() for line in lines]
    return [(pair[0], pair[1]) for pair in split if len(pair) == 2]


def _byte_letters() -> list[str]:
    """A printable letter for each of the 256 bytes: itself if printable, else a code point from 256 on."""
    own = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [*map(chr, own), *(chr(256 + number) for number in range(256 - len(own)))]


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' log and progress bars; we log what matters ourselves."""
    from transformers.utils import logging as theirs

    before = theirs.get_verbosity()
    theirs.set_verbosity_error()
    theirs.disable_progress_bar()
    try:
        yield
    finally:
        theirs.set_verbosity(before)
