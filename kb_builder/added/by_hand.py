"""Texts that a person adds one by one: a source of added texts like a file, under the name `by-hand`."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from data.errors import InputError
from data.files import hash_text
from data.manifest.ids import normal_spelling
from kb_builder.added.formats import AddedFile, AddedText
from kb_builder.added.sources import Source, read_sources, write_source

NAME = FORM = "by-hand"
WRITER = "a person"  # in the column `model_resolved`
MOST_LETTERS = 2000
# In place of a file's hash. It is the same whatever is added, so that a text's row keeps its id.
_NO_FILE = hash_text(NAME)


def add_by_hand(kb: Path, class_name: str, text: str) -> AddedText:
    """Add a text about the category of that name. The caller holds the project's lock.

    It is judged by the gates like any other when the stages run. Raises InputError for an empty text, one
    that is too long, and one that was added before.
    """
    given = normal_spelling(text)
    if not given:
        raise InputError("the text is empty")
    if len(given) > MOST_LETTERS:
        raise InputError(f"the text has {len(given):,} characters; at most {MOST_LETTERS:,} are read")
    texts = texts_by_hand(kb)
    if any((each.class_name, each.text) == (class_name, given) for each in texts):
        raise InputError(f"{given!r} was added to {class_name} before")
    made = AddedText(class_name, given, model=WRITER, written_at=datetime.now(UTC).replace(microsecond=0))
    write_source(kb, Source(NAME, _content((*texts, made))))
    return made


def texts_by_hand(kb: Path) -> tuple[AddedText, ...]:
    """The texts that were added by hand, the oldest first. Raises DamagedError where a source is damaged."""
    found = next((source for source in read_sources(kb) if source.name == NAME), None)
    if found is None:
        return ()
    if found.content.form != FORM:
        raise InputError(f"the texts added as {NAME!r} come from a file; remove them first")
    return found.content.texts


def row_key(class_name: str, text: str) -> str:
    """The `request_key` that the row of such a text has."""
    source = Source(NAME, _content(()))
    return source.key(AddedText(class_name, text))


def _content(texts: tuple[AddedText, ...]) -> AddedFile:
    return replace(AddedFile(file="typed by a person", form=FORM, sha256=_NO_FILE, texts=()), texts=texts)
