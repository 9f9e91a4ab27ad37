"""JSON as language models write it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kb_builder.parse.loose_json import strict, values


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{'a': ['A dog's wet.', 'He barks, 3 times.']}", {"a": ["A dog's wet.", "He barks, 3 times."]}),
        ('["The "bad" dog", "He said "hi", then left."]', ['The "bad" dog', 'He said "hi", then left.']),
        ('["The dog is "big""]', ['The dog is "big"']),
        ("[“x”, “y, z”]", ["x", "y, z"]),
        ('{a: "x", b: `y`}', {"a": "x", "b": "y"}),
        ('["x", // c\n"y", # d\n/* e */ "z",]', ["x", "y", "z"]),
        ('["x" "y"\n"z"]', ["x", "y", "z"]),
        ('{"d": ["x", "y"}', {"d": ["x", "y"]}),
        ('{"x", "y"}', {"0": "x", "1": "y"}),
        ('{"a": "x", "a": "y"}', {"a": ["x", "y"]}),
        ('{"a": """x "q" y"""}', {"a": 'x "q" y'}),
        ('["x\\n\\u00e9\\ud83d\\ude00"]', ["x\n\u00e9\U0001f600"]),
        ("{1: 'x', 2: None}", {"1": "x", "2": None}),
        ('[{"id": 1, "text": "x"}, ...]', [{"id": None, "text": "x"}]),
    ],
)
def test_loose_forms(text: str, value: Any) -> None:
    """Each is read whole."""
    [found] = values(text)
    assert (found.value, found.rest) == (value, None)


@pytest.mark.parametrize(
    ("text", "value", "rest"),
    [
        ('["x", "y', ["x"], '"y'),
        ('{"d": ["x", "y"', {"d": ["x", "y"]}, ""),
        ('["x", The bad dog, "y"]', ["x"], 'The bad dog, "y"]'),
        ("[[[[" * 30, None, "[" * 56),
    ],
)
def test_torn_values_say_what_is_left(text: str, value: Any, rest: str) -> None:
    """What is whole, and where it breaks off."""
    [found] = values(text)
    assert value is None or found.value == value
    assert found.rest == rest


def test_brackets_in_prose_are_no_json() -> None:
    """A list begins a line or follows a colon."""
    assert not list(values('A dog ["good boy"] barks (or "woofs") [1].'))


_VALUES = st.recursive(
    st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.lists(_VALUES, max_size=3), st.text())
def test_no_text_raises(found: list[Any], noise: str) -> None:
    """Whatever it is, it is read or breaks off; JSON itself is read as JSON."""
    import json

    text = json.dumps(found)
    assert strict(text) == found
    for value in (*values(text + noise), *values(noise), *values(text[: len(text) // 2])):
        assert value.end <= len(text + noise)
