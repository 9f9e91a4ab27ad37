"""Characters that are no part of a text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kb_builder.parse.letters import control_reason, escaped, replace_surrogates, without_invisible

ENGLAND = "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"  # its flag


@pytest.mark.parametrize("letter", [*map(chr, [*range(9), 11, 12, *range(14, 32), *range(127, 160)])])
def test_controls_have_a_reason(letter: str) -> None:
    """C0 and C1 but tab and line breaks, and DEL."""
    assert control_reason(f"a{letter}b") == f"holds the control character U+{ord(letter):04X}"
    assert control_reason("a\tb\r\nc") is None


@given(st.text(alphabet=st.characters()))
def test_what_is_kept_can_be_seen(text: str) -> None:
    """`escaped` leaves no control character, and changes no text without one."""
    shown = escaped(text)
    assert control_reason(shown) is None
    shown.encode()
    if control_reason(text) is None:
        assert shown == text


def test_halves_of_characters_become_lost_ones() -> None:
    """A pair that is whole stays."""
    assert replace_surrogates("a\ud83d b\U0001f600") == "a\ufffd b\U0001f600"


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("\ufeffA d\u00adog\u200b bar\u2060ks.", "A dog barks."),
        ("A d\u200dog.", "A dog."),
        ("A dog has \u3164four\ufe0f legs\u2800.", "A dog has four legs."),
        ("葛\U000e0100 ☎\ufe0f 1\ufe0f\u20e3", "葛\U000e0100 ☎\ufe0f 1\ufe0f\u20e3"),
        ("👨\u200d👩\u200d👧 and ❤\ufe0f\u200d🔥", "👨\u200d👩\u200d👧 and ❤\ufe0f\u200d🔥"),
        ("नमस्\u200dते", "नमस्\u200dते"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        (ENGLAND, ENGLAND),
        ("dog\U000e0041\U000e0042", "dog"),
        ("A dog\ue200cite\ue202turn0search0\ue201 barks【3†a.txt】.", "A dog barks."),
    ],
)  # fmt: skip
def test_signs_that_cannot_be_seen_go_unless_they_make_up_a_letter(text: str, seen: str) -> None:
    """Zero-width signs, soft hyphens, byte-order marks; not the joiners of scripts and emoji."""
    assert without_invisible(text) == seen
