"""Characters that are no part of a text: controls, lost and private ones, and those that cannot be seen."""

from __future__ import annotations

import re
import unicodedata

# C0 (without tab and line breaks), DEL, C1, halves of surrogate pairs, private use, U+FFFD and what is no
# character, and the signs that turn the direction of what follows.
_CONTROL = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u206f\ud800-\udfff\ue000-\uf8ff"
    "\ufdd0-\ufdef\ufff9-\uffff\U000f0000-\U0010ffff]"
)
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u180e\u200b-\u200f\u2060-\u2064\u3164\ufeff\uffa0\U000e0000-\U000e007f]+"
)
_JOINERS = frozenset("\u200c\u200d")
_BLACK_FLAG = "\U0001f3f4"  # the flags of England, Scotland and Wales are this and invisible letters
# A web search's references, as some models write them: a private sign, names of sources, a private sign.
_CITATION = re.compile("\ue200[^\ue200\ue201]*\ue201|【[^【】]{0,80}†[^【】]{0,200}】")
_LOST = re.compile("[\ud800-\udfff]")


def without_halves(text: str) -> str:
    """With U+FFFD for each half of a surrogate pair, which JSON can carry and no file can hold."""
    return text if text.isascii() else _LOST.sub("\ufffd", text)


def control_reason(text: str) -> str | None:
    """Which character a text may not hold, and what it is; None for a text without."""
    if text.isprintable():  # C0, C1, surrogates, private use and what turns the direction are not printable
        return "holds U+FFFD: a character was lost on the way" if "\ufffd" in text else None
    found = _CONTROL.search(text)
    if found is None:
        return None
    letter = found[0]
    code = f"U+{ord(letter):04X}"
    if letter == "\ufffd" or "\ud800" <= letter <= "\udfff":
        return f"holds {code}: a character was lost on the way"
    if "\u202a" <= letter <= "\u2069":
        return f"holds {code}, which turns the direction of what follows"
    kind = "private" if unicodedata.category(letter) == "Co" else "control"
    return f"holds the {kind} character {code}"


def escaped(text: str) -> str:
    r"""With controls as they are written in Python (`\x1b`): for what is kept of an answer without a text."""
    if text.isprintable() and "\ufffd" not in text:
        return text
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def without_invisible(text: str) -> str:
    """Without zero-width signs, soft hyphens and byte-order marks, but for those that make up letters.

    A joiner between two letters or signs of a script that joins them (Persian, Hindi, emoji) stays.
    """
    if text.isascii():
        return text
    if "\ue200" in text or "†" in text:
        text = _CITATION.sub("", text)
    return _INVISIBLE.sub(_kept, text)


def _kept(found: re.Match[str]) -> str:
    signs, text = found[0], found.string
    before, after = text[found.start() - 1 : found.start()], text[found.end() : found.end() + 1]
    if signs in _JOINERS and _joins(before) and _joins(after):
        return signs
    if before == _BLACK_FLAG and signs[-1] == "\U000e007f":
        return signs
    return ""


def _joins(letter: str) -> bool:
    return letter > "\u05ff" and unicodedata.category(letter) in {"Lo", "Mn", "Mc", "So", "Sk"}
