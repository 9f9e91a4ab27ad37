"""A study on disk, <run>/studies/<name>/: whole and as it was written.

study.json, study.html    what it came to; their checksums (data/seals.py) stand beside them
cells/<key>/              what a variant came to: named.parquet, ranks.parquet, and written last cell.json:
                          key, variant, balance, error, files: {name: SHA-256}, sha256: of all that
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.files import hash_file, hash_json, write_json
from kb_builder.verify.files import Looked
from trainer.evaluate.outcomes import NAMED_FILE, RANKS_FILE

CELL = "cell.json"


def write_cell(folder: Path, told: dict[str, Any]) -> None:
    """Say that a cell is whole; its tables are there by now."""
    files = {name: hash_file(folder / name) for name in (NAMED_FILE, RANKS_FILE) if (folder / name).is_file()}
    value = {**json.loads(json.dumps(told)), "key": folder.name, "files": files}
    write_json(folder / CELL, {**value, "sha256": hash_json(value)})


def read_cell(folder: Path) -> dict[str, Any] | None:
    """What was written of a cell; None where it is not whole, or not what was written."""
    return None if wrong_with(folder) else _read(folder / CELL)


def wrong_with(folder: Path) -> tuple[Path, str] | None:
    """The file of a cell that is not as it was written, and how; None where all are."""
    path = folder / CELL
    told = _read(path)
    if told is None or told.get("key") != folder.name:
        return path, "missing, or damaged: its checksum does not fit; `unibind study` works it out again"
    for name, digest in told["files"].items():
        file = folder / name
        if not file.is_file() or hash_file(file) != digest:
            return file, "missing or damaged; `unibind study` works it out again"
    return None


def damaged_cells(studies: Path, looked: Looked) -> Iterator[tuple[Path, str]]:
    """The damaged files of all studies' cells."""
    for folder in sorted(path for path in studies.glob("*/cells/*") if path.is_dir()):
        for path in sorted(path for path in folder.iterdir() if path.is_file()):
            looked.at(path)
        wrong = wrong_with(folder)
        if wrong is not None and any(folder.iterdir()):
            yield wrong


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        claimed = value.pop("sha256") if isinstance(value, dict) else None
        return value if claimed is not None and claimed == hash_json(value) else None
    except (OSError, ValueError, KeyError, RecursionError):
        return None
