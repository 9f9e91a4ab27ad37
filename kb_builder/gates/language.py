"""Language gate: whether a short text is English, by its script, its function words and its letters.

Made for descriptions of one to three sentences, for which detectors trained on whole documents are
unreliable. A text is rejected only on evidence for another language: a caption without any function word
("bright red cube, rounded corners") counts as English.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection
from functools import cache
from importlib import resources

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_ASCII = "".join(map(chr, range(128)))
_SIGNS_TO_SPACES = str.maketrans({letter: " " for letter in _ASCII if not letter.isalpha()})
_FOREIGN_SCRIPT = 0.2  # share of letters that are not Latin
_FEWEST_FOREIGN = 2  # words of another language, in a text without letters that English lacks
_ODD_LETTERS = 0.5  # weight of a word with letters that English lacks; of a function word: 1


def _read_words() -> tuple[frozenset[str], dict[str, tuple[str, ...]]]:
    """English words, and for each word that is not English the languages that use it."""
    content = tomllib.loads(
        resources.files(__package__).joinpath("languages.toml").read_text(encoding="utf-8")
    )
    words: dict[str, set[str]] = {
        language: set(listed.split()) for language, listed in content["words"].items()
    }
    english = words.pop("English")
    languages_of: dict[str, list[str]] = defaultdict(list)
    for language, listed in words.items():
        for word in listed - english:
            languages_of[word].append(language)
    return frozenset(english), {word: tuple(languages) for word, languages in languages_of.items()}


_ENGLISH, _LANGUAGES_OF = _read_words()


def foreign_reason(text: str, *, ignored: Collection[str] = ()) -> str | None:
    """The evidence that a text is in another language; None for English.

    `ignored` are words (case folded) that are no evidence: a category's own name may be from any language.
    """
    if text.isascii():
        # It has Latin letters only and none that is odd: two words of one other language are needed.
        low = text.lower()
        words = _WORD.findall(low) if "'" in low else low.translate(_SIGNS_TO_SPACES).split()
        if sum([word in _LANGUAGES_OF for word in words]) < _FEWEST_FOREIGN:
            return None
    else:
        words = _WORD.findall(text.casefold())
    words = [word for word in words if word not in ignored]
    letters = [letter for word in words for letter in word if letter not in "'’"]
    if not letters:
        return None
    strange = 0 if text.isascii() else sum(_script(letter) != "LATIN" for letter in letters)
    if strange > _FOREIGN_SCRIPT * len(letters):
        scripts = sorted({_script(letter) for letter in letters} - {"LATIN"})
        return f"written in {', '.join(name.capitalize() for name in scripts)} letters"
    english = sum(word in _ENGLISH or "'" in word or "’" in word for word in words)
    counts = Counter(language for word in words for language in _LANGUAGES_OF.get(word, ()))
    language, count = max(counts.items(), key=lambda item: (item[1], item[0]), default=("", 0))
    odd = sum(not word.replace("’", "").isascii() for word in words)
    if count + _ODD_LETTERS * odd > english and (count >= _FEWEST_FOREIGN or odd > 1 or (count and odd)):
        return f"reads as {language or 'another language'}: {max(count, odd)} of {len(words)} words"
    return None


@cache
def _script(letter: str) -> str:
    """The first word of a letter's Unicode name: LATIN, GREEK, CJK, …"""
    return unicodedata.name(letter, "UNKNOWN").split(" ", 1)[0].split("-", 1)[0]
