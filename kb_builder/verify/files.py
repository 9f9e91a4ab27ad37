"""The files of a knowledge base against their checksums, tables of vectors against their manifests."""

from __future__ import annotations

import json
import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from data.environment import cores
from data.errors import DamagedError, KnowledgeBaseError, SampleError
from data.files import hash_file
from data.paths import resolver
from data.readers.axes import turned
from data.readers.companions import content_hash
from data.seals import SEAL, Sum, differs, sealed
from kb_builder.added.sources import FOLDER as ADDED
from kb_builder.added.sources import repair
from kb_builder.added.struck import FILE as STRUCK
from kb_builder.added.struck import REPAIR
from kb_builder.store.shards import inspect_shard
from kb_builder.store.table import MANIFEST, part_paths, read_manifest
from kb_builder.tables.schemas import SAMPLES, read_columns
from kb_builder.verify.findings import Findings

_LEDGER = "ledger.sqlite"
_LOCKS = frozenset({"ledger.lock", "run.lock", f"{_LEDGER}-wal", f"{_LEDGER}-shm", SEAL})


@dataclass
class Looked:
    """What was looked at, and which files were found to be as they were written."""

    counts: Counter[str] = field(default_factory=Counter)
    whole: set[Path] = field(default_factory=set)
    sums: dict[Path, Sum] = field(default_factory=dict)  # of these
    stated: set[Path] = field(default_factory=set)  # files whose damage is among the findings
    remarks: list[str] = field(default_factory=list)  # what was not checked, and how to ask for it

    def at(self, path: Path) -> None:
        """Count a file, every byte of which was read."""
        self.counts["files"] += 1
        self.counts["bytes"] += path.stat().st_size


def check_sealed(
    base: Path, found: Findings, looked: Looked, *, below: str = "", maker: str = "unibind run"
) -> Mapping[str, Sum]:
    """Hold every file of a folder's list against its checksum; returns the list, empty where it is no use.

    `below` stands before the names in findings; `maker` is the command that writes the files.
    """
    try:
        lines = sealed(base)
    except DamagedError as error:
        looked.stated.add(error.path)
        about = f"{error.reason.partition(';')[0]}; run `{maker}`, or `unibind kb verify --seal`"
        found.error("checksums damaged", f"{below}{SEAL}", about)
        return {}
    if lines is None:
        if base.is_dir():
            stated = f"made by an earlier version, or the list is gone; the next `{maker}` writes it,"
            found.note("no checksums yet", f"{below}{SEAL}", f"{stated} or `unibind kb verify --seal`")
        return {}

    def check(name: str) -> str | None:
        return differs(base / name, lines[name])

    with ThreadPoolExecutor(min(8, cores())) as pool:
        for name, wrong in zip(lines, pool.map(check, lines), strict=True):
            path = base / name
            looked.counts["files"] += 1
            looked.counts["bytes"] += lines[name].bytes
            if wrong is None:
                looked.whole.add(path)
                looked.sums[path] = lines[name]
            else:
                looked.stated.add(path)
                found.error("file damaged", f"{below}{name}", f"{wrong}; {_remedy(path, maker)}")
    return lines


def _remedy(path: Path, maker: str = "unibind run") -> str:
    if path.name == _LEDGER:
        return "restore it from a backup, or `unibind kb verify --seal` takes it as it is"
    if path.parent.name == ADDED:
        return repair(path.name)
    if path.name == STRUCK:
        return REPAIR
    return f"{'delete it and ' if os.path.lexists(path) else ''}`{maker}` makes it again"


def check_unlisted(kb: Path, lines: Mapping[str, Sum], known: Iterable[str], found: Findings) -> None:
    """Note files in a knowledge base that have no checksum: `known` are those that other lists name."""
    named = {*lines, *known}
    if not lines.keys() - {_LEDGER}:
        if lines:
            found.note(
                "no checksums yet", SEAL, "of the ledger alone; the next `unibind run` writes the others"
            )
        return
    serving = {name.split("/")[1] for name in lines if name.startswith("embeddings/") and name.count("/") > 1}
    for path in sorted(kb.rglob("*")):
        name = path.relative_to(kb).as_posix()
        parts = name.split("/")
        hidden = any(part.startswith(".") for part in parts)
        if name in named or path.name in _LOCKS or hidden or path.is_dir():
            continue
        if parts[0] == "embeddings" and len(parts) > 2 and parts[1] not in serving:
            continue  # kept for when that encoder serves again
        found.note("file without a checksum", name, "its stage has not finished, or unibind did not write it")


def check_tables(kb: Path, found: Findings, looked: Looked) -> set[str]:
    """The embedding store: cards, manifests, and every shard; returns the files' names."""
    names: set[str] = set()
    for folder in sorted(path for path in (kb / "embeddings").glob("*") if path.is_dir()):
        with found.guard(folder.relative_to(kb).as_posix()):
            _check_card(kb, folder, found, looked)
            names.add((folder / "encoder.json").relative_to(kb).as_posix())
        for table in sorted(path for path in folder.glob("[!.]*") if path.is_dir()):
            with found.guard(table.relative_to(kb).as_posix()):
                names |= _check_table(kb, table, found, looked)
    return names


def _check_card(kb: Path, folder: Path, found: Findings, looked: Looked) -> None:
    path = folder / "encoder.json"
    if path in looked.whole or path in looked.stated:
        return
    where = path.relative_to(kb).as_posix()
    if not path.is_file():
        if any(folder.glob("*/*.parquet")):
            found.error("encoder card missing", where, "`unibind run` writes it again")
        return
    looked.at(path)
    try:
        whole = isinstance(json.loads(path.read_text(encoding="utf-8")), dict)
    except ValueError:
        whole = False
    if not whole:
        found.error("file damaged", where, "no JSON object; `unibind run` writes it again")


def _check_table(kb: Path, table: Path, found: Findings, looked: Looked) -> set[str]:
    where = table.relative_to(kb).as_posix()
    path = table / MANIFEST
    if not path.is_file() and os.path.lexists(path):
        found.error("file damaged", f"{where}/{MANIFEST}", "no plain file; delete it and run `unibind run`")
        return set()
    try:
        manifest = read_manifest(table)
    except KnowledgeBaseError as error:
        if path not in looked.stated:
            found.error("file damaged", f"{where}/{MANIFEST}", str(error).removeprefix(f"{path}: "))
        return {f"{where}/{MANIFEST}"}
    if manifest is None:
        if any(table.glob("*.parquet")) and path not in looked.stated:
            found.error(
                "vectors without a manifest", f"{where}/{MANIFEST}", "missing; `unibind run` makes it"
            )
        return set()
    if path not in looked.whole:
        looked.at(path)
    for listed in manifest["shards"]:
        shard = table / listed["name"]
        looked.counts["vectors"] += listed["rows"]
        if shard in looked.whole or shard in looked.stated:
            continue
        with found.guard(f"{where}/{shard.name}"):
            _check_shard(shard, listed, f"{where}/{shard.name}", found, looked)
    for extra in sorted({*table.glob("*.parquet")} - {*part_paths(table)}):
        found.note("vectors that no manifest names", f"{where}/{extra.name}", "unfinished work; not read")
    return {f"{where}/{MANIFEST}", *(f"{where}/{path.name}" for path in table.glob("*.parquet"))}


def _check_shard(
    path: Path, listed: Mapping[str, object], where: str, found: Findings, looked: Looked
) -> None:
    if not path.is_file():
        found.error("vectors missing", where, "though the manifest names it; `unibind run` makes it again")
        return
    looked.at(path)
    try:
        shard = inspect_shard(path).shard
    except KnowledgeBaseError as error:
        found.error("file damaged", where, str(error).removeprefix(f"{path}: "))
        return
    groups = [[each.group, each.rows, each.crc32] for each in shard.row_groups]
    wanted = [[each["group"], each["rows"], each["crc32"]] for each in listed["row_groups"]]  # type: ignore[attr-defined]
    if shard.bytes != listed["bytes"] or groups != wanted:
        found.error("file damaged", where, "not what the manifest says; delete it and run `unibind run`")


def check_ledger(kb: Path, lines: Mapping[str, Sum], found: Findings, looked: Looked) -> bool:
    """Whether the ledger can be used: its pages hold together, where its checksum does not say so already."""
    path = kb / _LEDGER
    if path in looked.whole:
        return True
    if not os.path.lexists(path):
        return True
    if not path.is_file():
        if path not in looked.stated:
            found.error("file damaged", _LEDGER, f"no plain file; {_remedy(path)}")
        return False
    if path in looked.stated:
        return True  # as far as it can be read
    looked.at(path)
    if lines:
        found.note(
            "file without a checksum", _LEDGER, "written by a run that did not end; the next one adds it"
        )
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            stated = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(5)")]
    except sqlite3.Error as error:
        stated = [str(error)]
    for each in stated if stated != ["ok"] else ():
        found.error("file damaged", _LEDGER, f"{each}; {_remedy(path)}")
    return True


def check_media(kb: Path, root: Path, found: Findings, looked: Looked) -> None:
    """The samples' files against the SHA-256 that samples.parquet has of them."""
    names = ["sample_id", "modality", "uri", "sha256"]
    table = read_columns(kb / "samples.parquet", names, hint="unibind run", optional=[SAMPLES.field("up")])
    find = resolver(root)

    def differs_from(row: Mapping[str, str]) -> str | None:
        try:
            path = find(row["uri"])
            if not path.is_file():
                return "no such file"
            looked_at.append(path.stat().st_size)
            same = content_hash(row["modality"], turned(path, row["up"]), hash_one=hash_file)  # type: ignore[arg-type]
        except (SampleError, OSError) as error:
            return str(error)
        return None if same == row["sha256"] else "its content is not what was described and encoded"

    looked_at: list[int] = []
    rows = table.to_pylist()
    with ThreadPoolExecutor(min(8, cores())) as pool:
        for row, wrong in zip(rows, pool.map(differs_from, rows), strict=True):
            if wrong is not None:
                stated = f"{wrong}; restore it, or `unibind run` takes it as it is now"
                found.error("sample's file changed", f"{row['uri']} ({row['sample_id']})", stated)
    looked.counts["samples' files"] += len(looked_at)
    looked.counts["bytes"] += sum(looked_at)
