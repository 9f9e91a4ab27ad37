"""Reads published texts about classes, of any of these origins, as (class, text) pairs with their provenance:

    CuPL JSON        {class: [sentences]}
    DCLIP JSON       {class: [descriptors]}, made sentences by DCLIP's own rule (`descriptor_sentence`)
    a table          CSV, TSV, JSONL or Parquet with a column of classes and one of texts
    knowledge base   the folder of another project's knowledge base, of its run, or a pack (added/pack.py)

Both JSON forms look alike. Texts most of which name their class are sentences, others are descriptors, unless
the caller says which they are.
"""

from __future__ import annotations

import json
import os
import reprlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from data.errors import InputError
from data.files import hash_file
from data.manifest.ids import is_blank, name_key, normal_spelling
from data.tables.read import FORMATS, Mistakes, read_table, read_text, text_of
from kb_builder.gates.names import normalise, stem

As = Literal["sentences", "descriptors"]

KNOWLEDGE_BASE = "knowledge-base"  # the form of what another project gives
TEMPLATE = "{class}, which (is|has) {descriptor}"
MOST_BYTES = 64 * 2**20  # of a JSON or text table, which is read as a whole
MOST_TEXTS = 10_000  # of one class: near-duplicates are looked for among all texts of a class
_CLASS = ("class", "class_name", "category", "name", "label")
_TEXT = ("text", "description", "descriptor", "sentence", "caption")


@dataclass(frozen=True, slots=True)
class AddedText:
    """A text about a class. `model` wrote it, `origin` is the project it comes from; None: unknown."""

    class_name: str
    text: str
    model: str | None = None
    origin: str | None = None
    written_at: datetime | None = None


@dataclass(frozen=True)
class AddedFile:
    """What a file or folder from outside holds: no (class, text) twice, in the order of the file."""

    file: str  # its name, without its folder
    form: str  # cupl | dclip | table | knowledge-base | by-hand
    sha256: str  # of the file; of a folder: of its texts; of texts typed by a person: always the same
    texts: tuple[AddedText, ...]
    template: str | None = None
    licence: str | None = None  # as a pack states it
    notes: tuple[str, ...] = field(default=(), compare=False)


def read_file(path: Path, *, as_: As | None = None) -> AddedFile:
    """The texts of a JSON file or a table. Raises InputError, with a line for every mistake."""
    if not os.path.isfile(path):  # noqa: PTH113  (Path.is_file raises for names that are too long)
        raise InputError(f"{path}: no such file")
    ending = path.suffix.lower()
    if ending != ".json" and ending not in FORMATS:
        raise InputError(
            f"{path}: unknown format {ending or '(no ending)'!r}; give .json, {', '.join(FORMATS)} or the"
            " folder of a knowledge base"
        )
    if ending != ".parquet" and path.stat().st_size > MOST_BYTES:
        raise InputError(f"{path}: larger than {MOST_BYTES / 2**20:.0f} MiB; divide it into several files")
    mistakes = Mistakes(path)
    pairs = list(_json_pairs(path, mistakes) if ending == ".json" else _table_pairs(path, mistakes))
    _check_counts(pairs, mistakes)
    mistakes.raise_if_any()
    if not pairs:
        raise InputError(f"{path}: holds no text")
    said = as_ is not None
    as_ = as_ or ("sentences" if _are_sentences(pairs) else "descriptors")
    if as_ == "descriptors":
        pairs = [(name, descriptor_sentence(name, text)) for name, text in pairs]
    once = tuple(dict.fromkeys(pairs))
    notes = list(mistakes.notes)
    if as_ == "descriptors":
        how = "" if said else "most do not name their class; --as sentences takes them as they are; "
        notes.append(f"read as descriptors ({how}sentences are made by DCLIP's template {TEMPLATE!r})")
    if len(once) < len(pairs):
        notes.append(f"{len(pairs) - len(once):,} texts that repeat another of their class skipped")
    form = {"sentences": "cupl", "descriptors": "dclip"}[as_] if ending == ".json" else "table"
    return AddedFile(
        file=path.name,
        form=form,
        sha256=hash_file(path),
        texts=tuple(AddedText(name, text) for name, text in once),
        template=TEMPLATE if as_ == "descriptors" else None,
        notes=tuple(notes),
    )


def descriptor_sentence(class_name: str, descriptor: str) -> str:
    """The sentence of a descriptor: "hen, which has two legs".

    The published rule of DCLIP (Menon and Vondrick, 2023), to the letter: what begins with an "a" gets "is",
    whether that is an article or not.
    """
    name = normal_spelling(class_name.replace("_", " "))
    if descriptor.startswith(("has", "often", "typically", "may", "can")):
        return f"{name}, which {descriptor}"
    verb = "is" if descriptor.startswith(("a", "used")) else "has"
    return f"{name}, which {verb} {descriptor}"


def _are_sentences(pairs: Iterable[tuple[str, str]]) -> bool:
    """Whether most texts name their class."""
    named = total = 0
    for name, text in pairs:
        total += 1
        named += _stems(name) <= _stems(text)
    return 2 * named >= total


def _stems(text: str) -> set[str]:
    return {stem(word) for word in normalise(text).split()}


def _json_pairs(path: Path, mistakes: Mistakes) -> Iterator[tuple[str, str]]:
    content = _parsed(path)
    if not isinstance(content, dict) or not content:
        found = "an empty object" if content == {} else f"a {type(content).__name__}"
        raise InputError(f'{path}: expected {{"class": ["text", ...]}}, found {found}')
    keys: dict[str, str] = {}
    empty = 0
    for given, texts in content.items():
        where = f"class {reprlib.repr(given)}"
        name = _class_name(given, where, mistakes)
        if name is None:
            continue
        if (same := keys.setdefault(name_key(name), given)) != given:
            mistakes.add(where, f"the same class as {same!r} (capitals and spaces do not count); merge them")
        if not isinstance(texts, list):
            mistakes.add(where, f"its texts are a {type(texts).__name__}, not a list")
            continue
        for number, text in enumerate(texts, start=1):
            if not isinstance(text, str):
                mistakes.add(where, f"text {number} is a {type(text).__name__}: {reprlib.repr(text)}")
            elif (cell := text_of(text, where, f"text {number}", mistakes)) is not None:
                yield name, normal_spelling(cell)
            else:
                empty += not text.strip()
        if not texts:
            mistakes.note(f"classes without a text, such as {given!r}, skipped")
    if empty:
        mistakes.note(f"{empty:,} empty texts skipped")


def _parsed(path: Path) -> Any:
    try:
        return json.loads(read_text(path, InputError, most_bytes=MOST_BYTES), object_pairs_hook=_unique)
    except RecursionError:
        raise InputError(f"{path}: not valid JSON: nested too deeply") from None
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON: {error}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        ((twice, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice!r} comes twice")
    return value


def _table_pairs(path: Path, mistakes: Mistakes) -> Iterator[tuple[str, str]]:
    table = read_table(path, mistakes, known=[*_CLASS, *_TEXT])
    classes, texts = (next((n for n in names if n in table.columns), None) for names in (_CLASS, _TEXT))
    if classes is None or texts is None:
        lacking = f"class ({', '.join(_CLASS)})" if classes is None else f"text ({', '.join(_TEXT)})"
        raise InputError(f"{path}: no column {lacking}; it has {', '.join(sorted(table.columns)) or 'none'}")
    if other := sorted(table.columns - {classes, texts}):
        mistakes.note(f"columns not read: {', '.join(other)}")
    first: dict[str, str] = {}  # rows of one class may spell it differently
    empty = 0
    for row in table.rows:
        name = _class_name(row.cells.get(classes), row.where, mistakes)
        cell = row.cells.get(texts)
        if cell is None:
            empty += 1
        if name is None or cell is None:
            continue
        spelling = first.setdefault(name_key(name), name)
        for text in cell if isinstance(cell, list) else [cell]:
            yield spelling, normal_spelling(text)
    if empty:
        mistakes.note(f"{empty:,} rows without a text skipped")


def _class_name(given: Any, where: str, mistakes: Mistakes) -> str | None:
    name = text_of(given, where, "class", mistakes) if isinstance(given, str) else None
    if name is not None and not is_blank(name):
        return normal_spelling(name)
    if not isinstance(given, str) or is_blank(given):
        mistakes.add(where, "no class name")
    return None


def _check_counts(pairs: Iterable[tuple[str, str]], mistakes: Mistakes) -> None:
    for name, count in Counter(name for name, _ in pairs).items():
        if count > MOST_TEXTS:
            mistakes.add(f"class {name!r}", f"{count:,} texts, more than {MOST_TEXTS:,}")
