"""CLIP's byte-pair encoding (Radford et al. 2021), from whichever of its forms lies beside the weights."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data.errors import InputError, first_line
from data.reads import reading
from kb_builder.encoders.paired import TextSide, quiet_transformers

Words = tuple[dict[str, int], list[tuple[str, str]]]  # the words with their numbers, and the merges
_MERGES = 49152 - 256 - 2  # of the lines of the original vocabulary; the rest is not used


def clip_words_side(shown: str, folder: Path, words: Callable[[], Words], *, limit: int) -> TextSide:
    """The tokenizer of a folder's tokenizer.json, or where there is none, that of `words()`.

    Raises InputError for a damaged file.
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
    """Of `bpe_simple_vocab_16e6.txt.gz`, as OpenAI published it: merges alone, of which the words follow."""
    merges = _pairs(gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")[1 : _MERGES + 1])
    letters = _byte_letters()
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    return {word: number for number, word in enumerate(words)}, merges


def read_saved(folder: Path) -> Words:
    """Of `vocab.json` and `merges.txt`, as transformers saves them."""
    words = json.loads(reading(folder / "vocab.json").read_text(encoding="utf-8"))
    return words, _pairs(reading(folder / "merges.txt").read_text(encoding="utf-8").split("\n")[1:])


def _pairs(lines: list[str]) -> list[tuple[str, str]]:
    split = [line.split() for line in lines]
    return [(pair[0], pair[1]) for pair in split if len(pair) == 2]


def _byte_letters() -> list[str]:
    """A printable letter for each of the 256 bytes: its own where it has one, else those from 256 on."""
    own = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [*map(chr, own), *(chr(256 + number) for number in range(256 - len(own)))]
