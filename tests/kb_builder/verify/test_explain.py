"""kb_builder.verify.explain: one row's whole story."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.errors import InputError, KnowledgeBaseError
from kb_builder.tables.parts import write_part
from kb_builder.tables.schemas import read_rows
from kb_builder.verify.explain import explain

PART = Path("descriptions") / "category" / "part-00000.parquet"


def test_an_answered_row(described_kb: Path) -> None:
    """Prompt, parameters, key, raw answer, its texts, every gate in order, and who was asked when."""
    row = read_rows(described_kb / PART)[0]
    page = explain(described_kb, row["row_id"][:8])
    text = str(page)
    assert [title for title, _ in page.sections] == [
        "row",
        "subject",
        "prompt",
        "request",
        "answer",
        "parsed",
        "gates",
    ]
    for said in (
        row["row_id"],
        row["request_key"],
        'Describe "ball".',
        "Be brief.",
        "json_schema",
        "0.004",
        "0 (this row)",
        "One ball bounces.",
        "rolls away over the lawns",
    ):
        assert said in text
    gates = dict(page.sections)["gates"].rows
    assert [verdict for _, verdict, _ in gates] == ["yes"] * 10 + ["ok"]
    assert "most like row" in gates[-1][2]


def test_a_near_duplicate(described_kb: Path) -> None:
    """The gate that turned it away is named, with the row it repeats and how alike they are."""
    first, near = read_rows(described_kb / PART)[:2]
    gates = dict(explain(described_kb, near["row_id"]).sections)["gates"].rows
    assert [verdict for _, verdict, _ in gates] == ["yes"] * 9 + ["NO: dup_near"]
    assert first["text"] in gates[-1][2]
    assert "3-gram Jaccard 0.98" in gates[-1][2]


def test_a_failed_request(described_kb: Path) -> None:
    """What the server said is shown, and no later gate is said to have judged."""
    row = read_rows(described_kb / PART)[-1]
    page = explain(described_kb, row["row_id"])
    assert "status 400: no" in str(page)
    gates = dict(page.sections)["gates"].rows
    assert gates[0][1] == "NO: failed"
    assert {verdict for _, verdict, _ in gates[1:]} == {"not asked"}


def test_rows_that_nobody_was_asked_for(described_kb: Path) -> None:
    """Measured and given texts say so."""
    for row in read_rows(described_kb / "descriptions" / "sample"):
        text = str(explain(described_kb, row["row_id"]))
        assert "no model was asked" in text
        assert f"{row['sample_id']}.png" in text


def test_which_row_is_meant(described_kb: Path) -> None:
    """Too short, unknown and ambiguous beginnings are told in one line with suggestions."""
    rows = read_rows(described_kb / PART)
    with pytest.raises(InputError, match="at least 6 characters"):
        explain(described_kb, rows[0]["row_id"][:5])
    with pytest.raises(InputError, match="at least 6 characters"):
        explain(described_kb, "not a row")
    wrong = rows[0]["row_id"][:3] + ("0" * 10 if rows[0]["row_id"][3:6] != "000" else "1" * 10)
    with pytest.raises(
        InputError, match=f"no row begins with '{wrong}'; there are .*{rows[0]['row_id'][:12]}"
    ):
        explain(described_kb, wrong)
    twin = rows[0] | {"row_id": rows[0]["row_id"][:10] + "f" * 54}
    write_part(described_kb, "category", "part-00002", [twin])
    with pytest.raises(InputError, match=r"2 rows begin with .* give more characters"):
        explain(described_kb, rows[0]["row_id"][:8])
    assert explain(described_kb, rows[0]["row_id"][:12].upper())


def test_what_strangers_write_reaches_no_terminal(described_kb: Path) -> None:
    """Control characters are shown as such."""
    rows = read_rows(described_kb / PART)
    rows[0]["text"] = "\x1b[31mred\n"
    write_part(described_kb, "category", "part-00000", rows)
    text = str(explain(described_kb, rows[0]["row_id"]))
    assert "\x1b" not in text
    assert "\\x1b[31mred\\n" in text


def test_a_row_whose_ledger_is_gone(described_kb: Path) -> None:
    """The row is told all the same; looking makes no ledger and leaves nothing beside one."""
    row = read_rows(described_kb / PART)[0]
    before = sorted(described_kb.rglob("*"))
    explain(described_kb, row["row_id"])
    assert sorted(described_kb.rglob("*")) == before
    (described_kb / "ledger.sqlite").unlink()
    assert "not in the ledger" in str(explain(described_kb, row["row_id"]))
    assert not (described_kb / "ledger.sqlite").exists()


def test_where_there_is_nothing(tmp_path: Path, described_kb: Path) -> None:
    """No knowledge base, and a damaged part, are one line each."""
    with pytest.raises(KnowledgeBaseError, match="unibind run"):
        explain(tmp_path, "abcdef")
    (described_kb / PART).write_bytes(b"PAR1")
    with pytest.raises(KnowledgeBaseError, match=r"part-00000\.parquet is damaged"):
        explain(described_kb, "abcdef")
