"""The flow localize-centers."""

from __future__ import annotations

import pytest

from flows import localize_centers


def test_it_localizes_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """The flow is one stage of the project it is given."""
    ran: list[tuple[str, str]] = []
    monkeypatch.setattr(localize_centers, "run_stage", lambda project, name: ran.append((project, name)))
    localize_centers.localize_centers.fn("other.toml")
    assert ran == [("other.toml", "localize")]
