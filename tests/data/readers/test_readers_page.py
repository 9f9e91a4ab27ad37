"""docs/readers.md against the code that it describes."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

from data.readers.lookup import EVENT_FORMATS, POINT_FORMATS
from data.render.event import EVENT_DRAWINGS, TAU_US

PAGE = (Path(__file__).parents[3] / "docs" / "readers.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("ending", [*EVENT_FORMATS, *POINT_FORMATS])
def test_every_ending_is_named(ending: str) -> None:
    """The page names every ending that the readers of points and events take."""
    name = {".pt": "torch tensors"}.get(ending, ending[1:])
    assert re.search(rf"\b{name}\b", PAGE, re.IGNORECASE)


def test_every_representation_is_named_and_no_other() -> None:
    """The table of representations is that of the code, with its decay."""
    table = PAGE.partition("| name | array |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `([a-z-]+)`", table, re.MULTILINE)) == set(EVENT_DRAWINGS)
    assert f"τ = {TAU_US / 1000:g} ms" in table


def test_every_function_named_is_there() -> None:
    """Dotted names lead to functions."""
    dotted = re.findall(r"`(data(?:\.\w+)+)\.(\w+)[(`]", PAGE)
    assert len(dotted) >= 4
    for module, function in dotted:
        assert callable(getattr(import_module(module), function))
