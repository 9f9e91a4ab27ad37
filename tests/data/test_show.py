"""How names and numbers are shown: nothing invisible, nothing that steers a terminal, few digits."""

from __future__ import annotations

import json
import math
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.show import aligned, duration, json_text, number, shorten, visible, visible_lines

_JOINERS = "\u200c\u200d"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("one\ntwo\r\tthree\x00", "one\\ntwo\\r\\tthree\\x00"),
        ("\x7f\x80\x9b31m", "\\x7f\\x80\\x9b31m"),
        ("photo\u202egpj.exe", "photo\\u202egpj.exe"),
        ("\u2066a\u2069\u200e\u200f\u061c", "\\u2066a\\u2069\\u200e\\u200f\\u061c"),
        ("zero\u200bwidth\ufeff\u2060\xad", "zero\\u200bwidth\\ufeff\\u2060\\xad"),
        ("a\u2028b\u2029c", "a\\u2028b\\u2029c"),
        ("\udcff.png", "\\udcff.png"),
        ("cat\u200d", "cat\\u200d"),
        ("tag\U000e0041", "tag\\U000e0041"),
        ("Größe, 東京, Ελλάδα, 5 μm – “x” … é", "Größe, 東京, Ελλάδα, 5 μm – “x” … é"),
        ("خانه\u200cها", "خانه\u200cها"),
        ("नमस्\u200dते", "नमस्\u200dते"),
        ("👩\u200d🔬 ❤️", "👩\u200d🔬 ❤️"),
        ("back\\slash \\x1b", "back\\slash \\x1b"),
    ],
)
def test_hidden_characters_are_shown_and_letters_stay(text: str, shown: str) -> None:
    """Controls, marks of direction, characters of no width; every script and composed emoji as they are."""
    assert visible(text) == shown


@given(st.text(st.characters(categories=None)))
def test_nothing_hidden_is_left(text: str) -> None:
    """Of any text, no control, format character, line break or surrogate is left, joiners in words apart."""
    for letter in visible(text):
        category = unicodedata.category(letter)
        if category == "Cf":
            assert letter in _JOINERS or not _steers(letter), f"U+{ord(letter):04X}"
        else:
            assert category not in {"Cc", "Cs", "Zl", "Zp"}, f"U+{ord(letter):04X}"
    assert visible(visible(text)) == visible(text)
    assert visible_lines(text).replace("\n", "") == visible(text.replace("\n", ""))


def _steers(letter: str) -> bool:
    """Whether a format character has to do with direction, or is not drawn."""
    return unicodedata.bidirectional(letter) in {
        "BN",
        "LRE",
        "RLE",
        "LRO",
        "RLO",
        "PDF",
        "LRI",
        "RLI",
        "FSI",
        "PDI",
    }


@given(st.text(st.characters(categories=None)))
def test_json_is_shown_safely_and_read_back_exactly(text: str) -> None:
    """Reading it gives the same characters; printed, it holds none that `visible` would escape."""
    told = json_text({"a": [text]})
    assert json.loads(told) == {"a": [text]}
    assert visible_lines(told) == told


def test_json_has_no_nan() -> None:
    """Strict readers know no NaN and no infinity: null stands there."""
    assert json.loads(json_text({"a": (math.nan, math.inf, 0.1 + 0.2)})) == {"a": [None, None, 0.1 + 0.2]}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.1 + 0.2, "0.3"),
        (1234567, "1,234,567"),
        (-1234567, "-1,234,567"),
        (1234.5678, "1,234.6"),
        (12.345678, "12.35"),
        (2.0, "2"),
        (0.000123456, "0.000123"),
        (0.0, "0"),
        (-0.0, "0"),
        (-0.004, "-0.004"),
        (3e-9, "3e-09"),
        (math.nan, "nan"),
        (math.inf, "inf"),
        (True, "yes"),
        ("all\x1b", "all\\x1b"),
        (None, "None"),
    ],
)
def test_numbers_are_rounded_for_people(value: object, shown: str) -> None:
    """Thousands apart, three digits of a fraction, no rounding errors in sight."""
    assert number(value) == shown


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e15, max_value=1e15))
def test_a_rounded_number_is_near(value: float) -> None:
    """Read back, it is within half a percent, however large or small."""
    assert float(number(value).replace(",", "")) == pytest.approx(value, rel=0.005, abs=1e-300)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.04, "0.0 s"), (99.94, "99.9 s"), (99.96, "1 min 40 s"), (3599.6, "1 h 0 min"), (7777, "2 h 9 min")],
)
def test_times_for_people(value: float, shown: str) -> None:
    """Seconds, then minutes, then hours."""
    assert duration(value) == shown


def test_long_texts_are_cut_visibly() -> None:
    """A shortened text has no line breaks, fits its limit and shows that something is missing."""
    assert shorten("a\n b", 10) == "a b"
    assert shorten("abcdefghij", 5) == "abcd…"


def test_columns_are_aligned() -> None:
    """Words to the left, numbers to the right, headings apart; hidden characters are escaped before."""
    lines = [["", "n", "verdict"], ["a heading that is wide"], ["red\x1b", "7", "better"], ["b", "12", "no"]]
    assert aligned(lines, left=(0, 2), indent="  ") == [
        "            n  verdict",
        "  a heading that is wide",
        "  red\\x1b   7  better",
        "  b        12  no",
    ]
    assert aligned([["n"], ["12"]], left=()) == [" n", "12"]
