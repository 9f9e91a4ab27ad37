"""kb_builder.tables.parts: parts of the descriptions table, and the manifest over them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from data.errors import KnowledgeBaseError
from data.files import hash_file
from kb_builder.describe.rows import JudgedText, RowOrigin, RowQuestion, description_row
from kb_builder.gates.verdict import Verdict
from kb_builder.tables import parts
from kb_builder.tables.parts import read_manifest, remove_beyond, write_part
from kb_builder.tables.schemas import SCHEMA_VERSION, read_rows

ORIGIN = RowOrigin(
    provider="fake",
    model_requested="fake-1",
    model_resolved="fake-1",
    finish_reason="stop",
    attempts=1,
    latency_ms=0.0,
    created_at=datetime(2026, 1, 2, tzinfo=UTC),
    source="fake",
    run_id="r",
)


def rows(count: int, *, status: str = "ok") -> list[dict[str, Any]]:
    return [
        description_row(
            RowQuestion(
                kind="category",
                subject_id="ball",
                modality=None,
                template_id="t",
                template_version="1",
                prompt_hash="0" * 64,
                request_key=f"{number:064x}",
            ),
            ORIGIN,
            JudgedText(f"A ball of {number} colours.", 8, Verdict(status)),
        )
        for number in range(count)
    ]


def test_a_part_and_its_line(tmp_path: Path) -> None:
    """The manifest holds what can be counted of the file; a part that is written again replaces its line."""
    write_part(tmp_path, "category", "part-00000", rows(3) + rows(1, status="refusal"))
    write_part(tmp_path, "category", "part-00000", rows(2) + rows(1, status="refusal"))
    write_part(tmp_path, "sample", "part-00000", [])
    path = tmp_path / "descriptions" / "category" / "part-00000.parquet"
    manifest = read_manifest(tmp_path)
    assert manifest.schema_version == SCHEMA_VERSION
    assert list(manifest.parts) == ["category/part-00000.parquet", "sample/part-00000.parquet"]
    part = manifest.parts["category/part-00000.parquet"]
    assert (part.rows, part.statuses) == (3, {"ok": 2, "refusal": 1})
    assert (part.bytes, part.sha256) == (path.stat().st_size, hash_file(path))
    assert len(read_rows(path)) == 3
    assert manifest.parts["sample/part-00000.parquet"].rows == 0


def test_parts_beyond_a_count_go_with_their_lines(tmp_path: Path) -> None:
    """Only the named prefix and kind are touched; a line whose file is gone already goes as well."""
    for name in ("part-00000", "part-00001", "part-00002", "contrast-00001"):
        write_part(tmp_path, "category", name, rows(1))
    write_part(tmp_path, "sample", "part-00001", rows(1))
    (tmp_path / "descriptions" / "category" / "part-00002.parquet").unlink()
    remove_beyond(tmp_path, "category", "part", 1)
    left = {"category/contrast-00001.parquet", "category/part-00000.parquet", "sample/part-00001.parquet"}
    assert set(read_manifest(tmp_path).parts) == left
    assert {str(path.relative_to(tmp_path / "descriptions")) for path in tmp_path.rglob("*.parquet")} == left


def test_the_manifest_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash before the manifest leaves the old one; it never names a part that is not whole."""
    write_part(tmp_path, "category", "part-00000", rows(1))
    before = read_manifest(tmp_path)

    def crash(*args: object) -> None:
        raise RuntimeError("power cut")

    monkeypatch.setattr(parts, "_write", crash)
    with pytest.raises(RuntimeError):
        write_part(tmp_path, "category", "part-00001", rows(2))
    assert read_manifest(tmp_path) == before


def test_wrong_calls(tmp_path: Path) -> None:
    """A kind or a name that is none is our bug; rows that do not fit leave the old part and its line."""
    with pytest.raises(ValueError, match="kind 'samples'"):
        write_part(tmp_path, "samples", "part-00000", [])
    with pytest.raises(ValueError, match="has no number"):
        write_part(tmp_path, "sample", "part", [])
    write_part(tmp_path, "sample", "part-00000", rows(1))
    before = read_manifest(tmp_path)
    with pytest.raises(ValueError, match="columns"):
        write_part(tmp_path, "sample", "part-00000", [{"text": "x"}])
    assert read_manifest(tmp_path) == before
    assert len(read_rows(tmp_path / "descriptions" / "sample")) == 1


@pytest.mark.parametrize("content", ["", "[]", json.dumps({"schema_version": "2", "parts": {"a": {}}})])
def test_a_damaged_manifest_is_named(tmp_path: Path, content: str) -> None:
    """A manifest that is none is told with its remedy, and nothing is written over it."""
    path = tmp_path / "descriptions" / "manifest.json"
    path.parent.mkdir()
    path.write_text(content, encoding="utf-8")
    with pytest.raises(KnowledgeBaseError, match=r"manifest\.json is damaged; remove it"):
        write_part(tmp_path, "sample", "part-00000", [])
    assert path.read_text(encoding="utf-8") == content
