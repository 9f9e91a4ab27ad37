"""Read and write the files of a study in <run>/studies/<name>/, with checksums.

study.json, study.html    the result; its checksums (data/seals.py) are beside it
cells/<key>/              one variant with one seed: named.parquet, ranks.parquet and, written last, cell.json
                          (key, variant, balance, error, files: {name: SHA-256}, sha256: of the rest)
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from data.files import hash_file, hash_json, write_json
from kb_builder.verify.files import Looked
from trainer.evaluate.outcomes import NAMED_FILE, RANKS_FILE

CELL = "cell.json"


class CellFile(TypedDict):
    """The content of cell.json; `key` and `files` are added when it is written."""

    variant: dict[str, Any]
    balance: dict[str, float]  # measure -> value
    error: str | None
    key: NotRequired[str]
    files: NotRequired[dict[str, str]]  # name -> SHA-256


def write_cell(folder: Path, content: CellFile) -> None:
    """Write cell.json, which marks a cell as complete; its tables must exist."""
    files = {name: hash_file(folder / name) for name in (NAMED_FILE, RANKS_FILE) if (folder / name).is_file()}
    value = {**json.loads(json.dumps(content)), "key": folder.name, "files": files}
    write_json(folder / CELL, {**value, "sha256": hash_json(value)})


def read_cell(folder: Path) -> CellFile | None:
    """The content of cell.json; None where the cell is incomplete or damaged."""
    return None if wrong_with(folder) else _read(folder / CELL)


def wrong_with(folder: Path) -> tuple[Path, str] | None:
    """The first damaged or missing file of a cell, and what is wrong; None where the cell is intact."""
    path = folder / CELL
    content = _read(path)
    if content is None or content.get("key") != folder.name:
        return path, "missing, or damaged: its checksum does not match; `unibind study` computes it again"
    for name, digest in content["files"].items():
        file = folder / name
        if not file.is_file() or hash_file(file) != digest:
            return file, "missing or damaged; `unibind study` computes it again"
    return None


def damaged_cells(studies: Path, looked: Looked) -> Iterator[tuple[Path, str]]:
    """The damaged files of all studies' cells."""
    for folder in sorted(path for path in studies.glob("*/cells/*") if path.is_dir()):
        for path in sorted(path for path in folder.iterdir() if path.is_file()):
            looked.at(path)
        wrong = wrong_with(folder)
        if wrong is not None and any(folder.iterdir()):
            yield wrong


def _read(path: Path) -> CellFile | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        claimed = value.pop("sha256") if isinstance(value, dict) else None
        return cast(CellFile, value) if claimed is not None and claimed == hash_json(value) else None
    except (OSError, ValueError, KeyError, RecursionError):
        return None
