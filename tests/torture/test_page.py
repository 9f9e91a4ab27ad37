"""docs/reliability.md says what bench/results/torture.json holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.torture.__main__ import ATTACKS
from bench.torture.page import BEGIN, END, PAGE, RESULTS, rendered, update, updated


def results(**row: Any) -> dict[str, Any]:
    rows = [{"name": "kills", "value": 1.0, "tried": 1200, "problems": ["killed after 3 s: hangs"]} | row]
    return {"rows": rows, "machine": {"processor": "P", "cores": 2}, "command": "python -m bench.torture"}


def test_the_page_has_the_numbers_of_the_last_run() -> None:
    """The table is that of the results; where it is not, `python -m bench.torture.page` renders it anew.

    Without results nothing is claimed.
    """
    page = PAGE.read_text(encoding="utf-8")
    if not RESULTS.exists():
        assert f"{BEGIN}\n{END}" in page
        return
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert page == updated(page, found)
    assert [each["name"] for each in found["rows"]] == [attack.name for attack in ATTACKS]


def test_the_table_says_what_was_tried_and_held_and_what_did_not_hold(tmp_path: Path) -> None:
    """Between the markers and nowhere else; rendering twice is rendering once."""
    (tmp_path / "page.md").write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    (tmp_path / "torture.json").write_text(json.dumps(results()), encoding="utf-8")
    for _ in range(2):
        update(tmp_path / "torture.json", tmp_path / "page.md")
        page = (tmp_path / "page.md").read_text(encoding="utf-8")
        assert page == f"before\n{BEGIN}\n\n{rendered(results())}\n\n{END}\nafter\n"
    assert "| kills | 1,200 | 1,199 |" in page and "- kills: killed after 3 s: hangs" in page
    assert "did not hold" not in rendered(results(value=0.0, problems=[]))


@pytest.mark.parametrize("page", ["", BEGIN, END])
def test_a_page_without_its_markers_is_refused(page: str) -> None:
    """Nothing is appended where nobody looks for it."""
    with pytest.raises(ValueError, match=r"reliability\.md: the markers .* are missing"):
        updated(page, results())
