"""A small real encoder and small tables, for the tests of parts."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data.errors import SampleError
from data.files import hash_file
from data.modality import Modality
from kb_builder.encode.parts import Encoded, encode_parts
from kb_builder.encode.plan import plan_parts
from kb_builder.encode.rows import TEXT, WantedVectors, hash_texts
from kb_builder.encode.spread import Spread
from kb_builder.settings import Encode


@dataclass
class LetterCounter:
    """Counts letters; the sum over its batch leaks into every row, as padding does, at the last bits.

    Remembers what it was asked, so that tests see what was encoded and how often.
    """

    name: str = "letters"
    identity: str = "letters-1"
    dim: int = 26
    modalities: frozenset[str] = frozenset({"text"})
    licence: str = "MIT"
    parameters: int = 0
    seen: Counter[str] = field(default_factory=Counter)
    fail_after: int | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def prepare(self, modality: Modality, source: Path | str) -> str:
        if "unreadable" in str(source):
            raise SampleError(f"{source}: cannot be read; export it again")
        return str(source)

    def encode(self, batch: Sequence[str]) -> np.ndarray:
        with self.lock:
            self.seen.update(batch)
            if self.fail_after is not None and sum(self.seen.values()) > self.fail_after:
                raise RuntimeError("killed")
        counts = np.array([[1 + text.count(chr(97 + k)) for k in range(26)] for text in batch], np.float64)
        counts += 1e-7 * sum(map(len, batch))
        vectors = counts.reshape(-1, 26) / np.linalg.norm(counts.reshape(-1, 26), axis=1, keepdims=True)
        return vectors.astype(np.float32)


@dataclass(frozen=True)
class Row:
    """One row to be, as tests write it."""

    id: str
    group: str
    source: str
    content: str
    file: bool = False


def row(name: str, text: str, group: str = "g") -> Row:
    return Row(name, group, text, text)


def picture(name: str, path: str, content: str) -> Row:
    return Row(name, "image", path, content, file=True)


def wanted(rows: Sequence[Row]) -> WantedVectors:
    """Rows as the columns that the plan takes."""
    files = any(each.file for each in rows)
    ids, groups, sources = (
        pa.array([getattr(each, name) for each in rows], TEXT) for name in ("id", "group", "source")
    )
    contents = pa.array([each.content for each in rows], TEXT) if files else hash_texts(sources)
    labels = pa.array([Path(each.source).name for each in rows], TEXT)
    return WantedVectors(ids, groups, contents, sources, files=files, labels=labels)


TABLES = {
    "one": [row(f"a{n:02d}", f"text {'z' * (n * 7 % 11)} {n % 20}", "ab"[n % 2]) for n in range(30)],
    "two": [row(f"b{n:02d}", f"text {'z' * (n * 7 % 11)} {n % 25}") for n in range(25)],
    "none": [],
}


def run(
    folder: Path,
    encoder: LetterCounter,
    tables: dict[str, list[Row]] = TABLES,
    dtype: Any = "float32",
    spread: Spread | None = None,
) -> Encoded:
    columns = {name: [wanted(rows)] for name, rows in tables.items()}
    settings = Encode(batch_size=3, dtype=dtype, device="cpu")
    with plan_parts(folder, columns, identity=encoder.identity, rows_per_part=8) as plan:
        return encode_parts(plan, encoder, settings, what="texts", spread=spread)


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hash_file(path) for path in sorted(folder.rglob("*.parquet"))
    }
