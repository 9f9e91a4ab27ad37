"""Characters that may not be in a text: control, private-use, replacement and invisible characters."""

from __future__ import annotations

import re
import unicodedata

# C0 (without tab and line breaks), DEL, C1, unpaired surrogates, private use, U+FFFD, noncharacters, and
# bidirectional controls.
_CONTROL = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u206f\ud800-\udfff\ue000-\uf8ff"
    "\ufdd0-\ufdef\ufff9-\uffff\U000f0000-\U0010ffff]"
)
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u180e\u200b-\u200f\u2060-\u2064\u2800\u3164\ufeff\uffa0\U000e0000-\U000e007f]+"
    "|(?<=[\\s.,;:()A-Za-z\u00c0-\u024f])[\ufe00-\ufe0f]+"  # nothing of which there are variants
)
_JOINERS = frozenset("\u200c\u200d")
_BLACK_FLAG = "\U0001f3f4"  # the flags of England, Scotland and Wales are this and invisible letters
# Citations of a web search, as some models write them: names of sources between private-use characters.
_CITATION = re.compile("\ue200[^\ue200\ue201]*\ue201|【[^【】]{0,80}†[^【】]{0,200}】")
_SURROGATE = re.compile("[\ud800-\udfff]")


def replace_surrogates(text: str) -> str:
    """The text with U+FFFD for each unpaired surrogate, which JSON can carry but UTF-8 cannot."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def control_reason(text: str) -> str | None:
    """Which forbidden character a text has, and its kind; None for a text without one."""
    if text.isprintable():  # all of _CONTROL but U+FFFD is not printable
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
    r"""The words of a rejected answer, with control characters escaped as in Python (`\x1b`)."""
    if text.isprintable() and "\ufffd" not in text:
        return text
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def without_invisible(text: str) -> str:
    """The text without zero-width characters, soft hyphens and byte-order marks.

    A joiner between two characters of a script that joins them (Persian, Hindi, emoji) stays.
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
