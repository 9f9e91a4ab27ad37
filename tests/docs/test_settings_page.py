"""docs/settings.md against the settings that it lists."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from data.tabletop.settings import TabletopSettings
from kb_builder.settings import Asking, DescribeCategories, DescribeSamples, Encode
from pipeline.project import DataSection, RunSection, WorkersSection
from trainer.settings import Evaluate, Localize, Predict, Train

PAGE = (Path(__file__).parents[2] / "docs" / "settings.md").read_text(encoding="utf-8")
SECTIONS: dict[str, tuple[type, ...]] = {
    "tabletop": (TabletopSettings,),
    "encode": (Encode,),
    "localize": (Localize,),
    "train": (Train,),
    "evaluate": (Evaluate,),
    "predict": (Predict,),
}


def _rows(title: str) -> dict[str, str]:
    """Each key of a section of the page with its default."""
    section = PAGE.partition(f"\n## `[{title}]`")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", section, re.MULTILINE))


def _shown(value: Any) -> str:
    """A default as TOML writes it."""
    return f"`{json.dumps(list(value) if isinstance(value, tuple) else value)}`"


@pytest.mark.parametrize("title", SECTIONS)
def test_every_key_is_listed_with_its_default(title: str) -> None:
    """The page has the keys of the section, no other, and the defaults that the code has."""
    rows = _rows(title)
    fields = {each.name: each.default for kind in SECTIONS[title] for each in dataclasses.fields(kind)}
    assert rows.keys() == fields.keys()
    for name, default in fields.items():
        if default is not None:
            assert rows[name] == _shown(default), name


def test_the_describe_sections_are_listed() -> None:
    """Keys that both sections have, and those that one of them has alone, with their defaults."""
    rows = _rows("describe.categories")
    fields = {
        each.name: each.default
        for kind in (Asking, DescribeSamples, DescribeCategories)
        for each in dataclasses.fields(kind)
        if each.name != "section"
    }
    assert rows.keys() == fields.keys()
    for name in ("temperature", "top_p", "request_timeout_s", "max_answer_mb", "n", "near_jaccard", "tries"):
        assert float(rows[name].strip("`")) == fields[name], name


def test_the_run_sections_are_listed() -> None:
    """The keys of `[run]` and `[run.workers]` are those of the project file, with their defaults."""
    for title, section in (("run", RunSection), ("run.workers", WorkersSection)):
        rows = _rows(title)
        fields = {name: field.default for name, field in section.model_fields.items() if name != "workers"}
        assert rows.keys() == fields.keys()
        assert all(rows[name] == _shown(value) for name, value in fields.items() if value is not None)


def test_the_data_section_is_listed() -> None:
    """The keys of `[data]` are those of the project file."""
    assert _rows("data").keys() == DataSection.model_fields.keys()
