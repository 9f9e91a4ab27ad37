"""Texts about categories that a person has struck out: they stay in their table, but are never centers.

<kb>/struck.json    {"format": 1, "struck": {row_id: {"category_id", "text", "reason", "struck_at"}}}

An input like the added texts: no stage writes it. `localize` reads it, so that it and what follows run again
after a change; no request is asked for a text that was struck out, and nothing before `localize` runs again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data.errors import DamagedError, InputError
from data.files import write_json
from data.reads import reading
from data.seals import seal, unseal
from kb_builder.tables.schemas import read_columns

FILE = "struck.json"
_FORMAT = 1
_MAKER = "strike"
REPAIR = "delete it, then strike out its texts again (`unibind kb strike`)"


@dataclass(frozen=True)
class Struck:
    """A text that was struck out, as it was then, when, and why."""

    category_id: str
    text: str
    reason: str
    struck_at: str  # ISO 8601, UTC


def read_struck(kb: Path) -> dict[str, Struck]:
    """The texts that were struck out, by row id. Raises DamagedError where the file is damaged."""
    path = kb / FILE
    try:
        if not reading(path).is_file():
            return {}
    except DamagedError as error:
        if error.path != path:  # the list of checksums: `kb verify` says how to repair it
            raise
        raise DamagedError(path, f"{error.reason.partition(';')[0]}; {REPAIR}") from error
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise ValueError(f"format {content['format']}, this version reads {_FORMAT}")
        return {row_id: Struck(**each) for row_id, each in content["struck"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(path, f"damaged ({error}); {REPAIR}") from error


def strike(kb: Path, row_id: str, *, reason: str) -> Struck:
    """Strike out a text of a category by its row id. The caller holds the project's lock.

    Raises InputError where no accepted text of a category has that id, and where it is struck out already.
    """
    known = read_struck(kb)
    if row_id in known:
        raise InputError(f"{row_id[:12]} is struck out already")
    row = _accepted(kb, row_id)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    made = Struck(row["category_id"], row["text"], " ".join(reason.split()), now)
    _write(kb, {**known, row_id: made})
    return made


def restore(kb: Path, row_id: str) -> Struck:
    """Take back that a text was struck out. The caller holds the project's lock.

    Raises InputError where it is not struck out.
    """
    known = read_struck(kb)
    if row_id not in known:
        raise InputError(f"{row_id[:12]} is not struck out")
    _write(kb, {key: each for key, each in known.items() if key != row_id})
    return known[row_id]


def full_id(kb: Path, prefix: str) -> str:
    """The row id of an accepted text of a category by its first characters.

    Raises InputError where none or several begin with them.
    """
    found = [row["row_id"] for row in _rows(kb) if row["row_id"].startswith(prefix.strip().lower())]
    if len(prefix.strip()) < 4 or len(found) != 1:
        what = f"{len(found):,} accepted texts of categories begin" if found else "no accepted text begins"
        raise InputError(f"{what} with {prefix!r}; give more characters of a row_id, at least four")
    return str(found[0])


def seal_struck(kb: Path) -> None:
    """Write the checksum of the file as it is now; nothing where there is none."""
    seal(kb, [kb / FILE], _MAKER)


def _accepted(kb: Path, row_id: str) -> Mapping[str, Any]:
    found = [row for row in _rows(kb) if row["row_id"] == row_id]
    if not found:
        raise InputError(f"no accepted text of a category has the row_id {row_id!r}")
    return found[0]


def _rows(kb: Path) -> Sequence[Mapping[str, Any]]:
    """The accepted texts of categories: row_id, category_id, text."""
    rows: list[Mapping[str, Any]] = []
    for path in sorted((kb / "descriptions" / "category").glob("*.parquet")):
        table = read_columns(path, ["row_id", "category_id", "text", "status"], hint="unibind describe")
        rows += [row for row in table.to_pylist() if row["status"] == "ok"]
    return rows


def _write(kb: Path, struck: Mapping[str, Struck]) -> None:
    """Write the file and its checksum; without any text, remove both."""
    path = kb / FILE
    unseal(kb, _MAKER)
    if not struck:
        path.unlink(missing_ok=True)
        return
    listed = {row_id: asdict(each) for row_id, each in sorted(struck.items())}
    write_json(path, {"format": _FORMAT, "struck": listed})
    seal(kb, [path], _MAKER)
