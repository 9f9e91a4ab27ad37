"""kb_builder.verify.verify: what is changed by hand or by a failing disk is found and named."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from data.errors import KnowledgeBaseError
from data.seals import SEAL, seal
from kb_builder.tables.parts import write_part
from kb_builder.tables.schemas import DESCRIPTIONS, SAMPLES, read_rows, write_table
from kb_builder.verify.verify import verify

LOOKED_AT = {".parquet", ".sqlite", ".json"}
UNSEALED = ("note", "no checksums yet")
PART = "category/part-00000.parquet"


def part(kb: Path, name: str = PART) -> Path:
    return kb / "descriptions" / name


def rewrite(kb: Path, change: Callable[[list[dict[str, Any]]], object], name: str = PART) -> None:
    """Change rows as somebody would who also mends the manifest."""
    rows = read_rows(part(kb, name))
    change(rows)
    kind, _, file = name.partition("/")
    write_part(kb, kind, file.removesuffix(".parquet"), rows)


def errors(kb: Path) -> dict[str, int]:
    verification = verify(kb)
    return {what: total for (severity, what), total in verification.totals.items() if severity == "error"}


def in_ledger(kb: Path, statement: str) -> None:
    with closing(sqlite3.connect(kb / "ledger.sqlite")) as connection, connection:
        assert connection.execute(statement).rowcount == 1


def test_an_untouched_knowledge_base_is_clean(described_kb: Path) -> None:
    """Nothing is wrong; two answers that no row cites are told, and are no error."""
    verification = verify(described_kb)
    assert verification.clean, str(verification)
    sizes = [each.stat().st_size for each in described_kb.rglob("*.*") if each.suffix in LOOKED_AT]
    sizes.remove((described_kb / SEAL).stat().st_size)
    assert verification.counts == {
        "files": len(sizes),
        "bytes": sum(sizes),
        "parts": 4,
        "rows": 18,
        "ledger entries": 9,
        "rows derived again": 18,
        "categories": 2,
        "samples": 3,
    }
    assert verification.totals == {("note", "answer that no row cites"): 2, UNSEALED: 1}
    assert str(verification).endswith("clean")
    assert "18 rows" in str(verification)


def test_what_a_killed_run_left_in_a_hidden_folder_is_not_noted(described_kb: Path) -> None:
    """The next run removes it; another file without a checksum is noted."""
    seal(described_kb, [path for path in described_kb.rglob("*.*") if path.suffix in LOOKED_AT], "test")
    unknown = ("note", "file without a checksum")
    before = verify(described_kb).totals.get(unknown, 0)
    for name in (".plan.x/storage.tmp", "other.tmp"):
        path = described_kb / "embeddings" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"1")
    assert verify(described_kb).totals[unknown] == before + 1


def test_one_byte_of_a_part(described_kb: Path) -> None:
    """The part is named by its checksum, wherever the byte stands; what else breaks with it is named too."""
    path = part(described_kb)
    whole = path.read_bytes()
    for place in range(0, len(whole), 1009):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        verification = verify(described_kb)
        assert ("error", "part changed") in verification.totals
        assert PART in str(verification)
    path.write_bytes(whole[:-5])
    assert errors(described_kb)["part changed"] == 1


def test_one_text_in_parquet(described_kb: Path) -> None:
    """A text that the answer does not give is found though every checksum was mended."""

    def change(rows: list[dict[str, Any]]) -> None:
        rows[0]["text"] = rows[0]["text"].replace("round", "sound")

    rewrite(described_kb, change)
    found = errors(described_kb)
    assert found["text"] == 1
    assert found["column"] == 1  # text_norm_hash
    assert "no exact duplicate" in found
    assert "sound and rolls" in str(verify(described_kb))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("n_chars", 3),
        ("n_tokens", 3),
        ("prompt_hash", "0" * 64),
        ("temperature", 0.6),
        ("top_p", 0.9),
        ("max_tokens", 41),
        ("seed", 5),
        ("model_requested", "other"),
        ("model_resolved", "other"),
        ("finish_reason", "length"),
        ("prompt_tokens", 1),
        ("completion_tokens", None),
        ("cost_usd", 0.002),
        ("cost_usd", None),
        ("attempts", 1),
        ("latency_ms", 1.0),
        ("provider", "openai"),
        ("source", "online"),
        ("run_id", "s"),
        ("kind", "sample"),
    ],
)
def test_one_column_of_one_row(described_kb: Path, column: str, value: object) -> None:
    """Every column that follows from the request, the answer or the text is derived again."""
    rewrite(described_kb, lambda rows: rows[0].update({column: value}))
    assert errors(described_kb) == {"column": 1}
    assert f"{column} is {value!r}" in str(verify(described_kb))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda rows: rows[0].update(row_id="0" * 64), {"row id": 1, "dup_of": 2}),
        (lambda rows: rows[1].update(dup_of="0" * 64), {"dup_of": 1}),
        (lambda rows: rows[1].update(dup_of=None), {"dup_of": 1}),
        (lambda rows: rows[0].update(dup_of=rows[4]["row_id"]), {"dup_of": 1}),
        (lambda rows: rows[1].update(dup_of=rows[3]["row_id"]), {"dup_of": 1}),
        (lambda rows: rows[1].update(status="dup_exact"), {"no exact duplicate": 1}),
        (lambda rows: rows[1].update(reason="3-gram Jaccard 0.50"), {"no near duplicate": 1}),
        (lambda rows: rows[2].update(status="ok", dup_of=None), {"text twice": 1}),
        (lambda rows: rows[0].update(status="fine"), {"unknown status": 1, "dup_of": 2}),
        (lambda rows: rows[0].update(category_id="bull"), {"row of an unknown category": 1, "dup_of": 2}),
        (lambda rows: rows[4].update(request_key="1" * 64), {"no ledger entry": 1}),
        (lambda rows: rows.pop(3), {"rows missing": 1}),
        (lambda rows: rows.append(rows[3]), {"row twice": 1}),
        (lambda rows: rows.clear(), {"category without rows": 1}),
    ],
)
def test_what_is_wrong_between_rows(
    described_kb: Path, change: Callable[[list[dict[str, Any]]], object], found: dict[str, int]
) -> None:
    """Ids, duplicates, missing, repeated and foreign rows are each named for what they are."""
    rewrite(described_kb, change)
    assert {what: count for what, count in errors(described_kb).items() if what in found} == found


def test_a_duplicate_of_a_row_in_another_part(described_kb: Path) -> None:
    """A contrast text may repeat a text of the first pass: the row is looked up in the other part."""
    name = "category/contrast-00000.parquet"
    rewrite(described_kb, lambda rows: rows[0].update(status="dup_near", reason="3-gram Jaccard 0.50"), name)
    assert errors(described_kb) == {"no near duplicate": 1}
    other = read_rows(part(described_kb))[0]["row_id"]
    rewrite(described_kb, lambda rows: rows[0].update(dup_of=other), name)
    assert errors(described_kb) == {"dup_of": 1}
    assert "of 'ball'" in str(verify(described_kb))


def test_the_manifest_against_the_files(described_kb: Path) -> None:
    """A part that is gone, one that nothing knows of, and a manifest that is none are told apart."""
    copy = part(described_kb, "category/part-00002.parquet")
    copy.write_bytes(part(described_kb).read_bytes())
    found = errors(described_kb)
    assert found["part not in the manifest"] == 1
    assert found["row twice"] == 6
    copy.unlink()
    part(described_kb).unlink()
    found = errors(described_kb)
    assert found["part missing"] == 1
    assert found["category without rows"] == 1
    (described_kb / "descriptions" / "manifest.json").write_text("{}", encoding="utf-8")
    assert errors(described_kb)["manifest"] == 1


def test_counts_in_the_manifest(described_kb: Path) -> None:
    """A manifest that was changed by hand does not agree with the rows."""
    path = described_kb / "descriptions" / "manifest.json"
    value = json.loads(path.read_text(encoding="utf-8"))
    value["parts"][PART]["statuses"]["ok"] += 1
    path.write_text(json.dumps(value), encoding="utf-8")
    assert errors(described_kb) == {"part changed": 1}
    value["schema_version"] = "1"
    path.write_text(json.dumps(value), encoding="utf-8")
    assert errors(described_kb) == {"part changed": 1, "manifest": 1}


def test_the_number_of_rows_in_the_manifest(described_kb: Path) -> None:
    """`rows` that the file does not have is an error of its own, whatever the rows per status say."""
    path = described_kb / "descriptions" / "manifest.json"
    value = json.loads(path.read_text(encoding="utf-8"))
    value["parts"][PART]["rows"] += 1
    path.write_text(json.dumps(value), encoding="utf-8")
    assert errors(described_kb) == {"part changed": 1}
    assert "it has 6 rows, the manifest says 7" in str(verify(described_kb))


@pytest.mark.parametrize("break_it", [lambda value: value.clear(), lambda value: _without_statuses(value)])
def test_a_damaged_manifest_hides_no_part(
    described_kb: Path, break_it: Callable[[dict[str, Any]], object]
) -> None:
    """The parts on the disk are read all the same: what is described is not told as missing."""
    path = described_kb / "descriptions" / "manifest.json"
    value = json.loads(path.read_text(encoding="utf-8"))
    break_it(value)
    path.write_text(json.dumps(value), encoding="utf-8")
    verification = verify(described_kb)
    assert verification.counts["rows"] == 18
    expected = {("error", "manifest"): 1, ("note", "answer that no row cites"): 2, UNSEALED: 1}
    assert verification.totals == expected


def _without_statuses(value: dict[str, Any]) -> None:
    value["parts"][PART]["statuses"] = None


def test_a_part_of_another_schema(described_kb: Path) -> None:
    """Columns of another version are not compared with this one's."""
    table = pq.ParquetFile(part(described_kb)).read()
    pq.write_table(table.drop_columns(["reason"]), part(described_kb))
    assert errors(described_kb)["part unreadable"] == 1
    pq.write_table(table.cast(DESCRIPTIONS).replace_schema_metadata(None), part(described_kb))
    assert errors(described_kb)["part unreadable"] == 1


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("UPDATE entries SET answer = replace(answer, 'mirror', 'lake')", {"text": 1}),
        ("UPDATE entries SET answer = substr(answer, 2)", {"answer unreadable": 1}),
        ("UPDATE entries SET answer = '{}'", {"answer unreadable": 1}),
        ("UPDATE entries SET request = replace(request, 'brief', 'short')", {"request changed": 1}),
        ("UPDATE entries SET cost_usd = 1", {"column": 1}),
        ("DELETE FROM entries", {"no ledger entry": 1}),
    ],
)
def test_one_entry_of_the_ledger(described_kb: Path, statement: str, found: dict[str, int]) -> None:
    """An answer or a request that was changed or removed is found by the rows that stand on it."""
    key = read_rows(part(described_kb))[4]["request_key"]
    in_ledger(described_kb, f"{statement} WHERE key = '{key}'")
    assert {what: count for what, count in errors(described_kb).items() if what in found} == found


def test_rows_that_nobody_was_asked_for(described_kb: Path) -> None:
    """Facts and given texts follow from their sample: its hash, the manifest's words."""
    name = "sample/part-00000.parquet"
    rewrite(described_kb, lambda rows: rows[0].update(sample_id="torn"), name)
    assert errors(described_kb) == {"text": 1, "sample without rows": 1}
    rewrite(described_kb, lambda rows: rows[0].update(sample_id="none"), name)
    assert errors(described_kb)["row of an unknown sample"] == 1
    rewrite(described_kb, lambda rows: rows[0].update(sample_id="measured", modality="audio"), name)
    assert errors(described_kb) == {"column": 1}


def test_samples_without_a_trace(described_kb: Path) -> None:
    """A sample needs a row or a reject; where nothing but the manifest spoke, its absence is a choice."""
    (described_kb / "rejects" / "describe-00000.parquet").unlink()
    assert errors(described_kb) == {"sample without rows": 1}
    rewrite(described_kb, lambda rows: rows.pop(0), "sample/part-00000.parquet")
    verification = verify(described_kb)
    assert verification.clean
    assert verification.totals[("note", "not described yet")] == 1


def test_a_sample_that_changed(described_kb: Path) -> None:
    """Facts about an older state of a file are found by the file's hash."""
    samples = read_rows(described_kb / "samples.parquet")
    samples[0]["sha256"] = "0" * 64
    write_table(described_kb / "samples.parquet", samples, SAMPLES)
    assert errors(described_kb) == {"text": 1}


def test_rows_of_another_parser_are_told(described_kb: Path) -> None:
    """What today's parser did not write is a note with its remedy, not an error."""

    def age(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["parser_version"] = "0"

    rewrite(described_kb, age)
    verification = verify(described_kb)
    assert verification.clean
    assert verification.totals[("note", "row of another parser")] == 6
    assert "unibind kb reparse" in str(verification)


def test_tokens_of_another_encoder_are_a_note(described_kb: Path) -> None:
    """The rows do not say whose tokens were counted: where hardly any agrees it was another encoder's."""

    def recount(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["n_tokens"] += 100

    for name in (PART, "category/part-00001.parquet"):
        rewrite(described_kb, recount, name)
    assert verify(described_kb).clean


def test_many_findings_are_counted_and_some_shown(described_kb: Path) -> None:
    """At most twenty examples of a kind, and the full count; control characters reach no terminal."""
    rows = read_rows(part(described_kb))[4:5]
    rows[0]["run_id"] = "\x1b[31m"
    write_part(described_kb, "category", "part-00000", rows * 30)
    verification = verify(described_kb)
    assert verification.totals[("error", "row twice")] == 29
    assert sum(finding.what == "row twice" for finding in verification.findings) == 20
    assert "... and 9 more" in str(verification)
    assert "\x1b" not in str(verification)


def test_of_notes_three_examples_are_enough(described_kb: Path) -> None:
    """They are no errors: all are counted, few are shown."""
    rewrite(described_kb, lambda rows: [row.update(parser_version="0") for row in rows])
    verification = verify(described_kb)
    kept = [finding for finding in verification.findings if finding.what == "row of another parser"]
    assert verification.clean
    assert (len(kept), verification.totals["note", "row of another parser"]) == (3, 6)
    assert "... and 3 more" in str(verification)


def test_nothing_is_left_beside_the_ledger(described_kb: Path) -> None:
    """Checking makes no log and no other file."""
    before = sorted(described_kb.rglob("*"))
    assert verify(described_kb).clean
    assert sorted(described_kb.rglob("*")) == before


def test_a_ledger_of_another_format(described_kb: Path) -> None:
    """It is not damaged: its format is named."""
    with closing(sqlite3.connect(described_kb / "ledger.sqlite")) as connection:
        connection.execute("PRAGMA user_version = 1")
    assert "ledger format 1" in str(verify(described_kb))
    assert not verify(described_kb).clean


def test_where_there_is_no_knowledge_base(tmp_path: Path) -> None:
    """One line with the remedy, and a ledger that is none is named."""
    with pytest.raises(KnowledgeBaseError, match="unibind run"):
        verify(tmp_path)


def test_a_damaged_ledger_is_named(described_kb: Path) -> None:
    """The one file that cannot be derived again."""
    for path in described_kb.glob("ledger.sqlite*"):
        path.unlink()
    (described_kb / "ledger.sqlite").write_bytes(b"no database at all " * 300)
    told = str(verify(described_kb))
    assert "ledger.sqlite: damaged" in told and "backup" in told and "NOT clean" in told
