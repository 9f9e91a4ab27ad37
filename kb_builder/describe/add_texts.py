"""`unibind kb add-texts`: takes texts from outside into a knowledge base, and says what becomes of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data.errors import InputError
from data.show import visible
from kb_builder.added.formats import AddedFile, As, read_file
from kb_builder.added.knowledge_base import read_knowledge_base
from kb_builder.added.match import Matched, match_classes
from kb_builder.added.sources import Source, choose_name, read_sources, write_source
from kb_builder.describe.added import added_rows
from kb_builder.describe.categories import read_categories
from kb_builder.settings import DescribeCategories

_SHOWN = 5


@dataclass(frozen=True)
class Added:
    """What a file gave: its source, how its classes matched, and how its texts stand with the gates now."""

    source: Source
    new: bool  # False: the same texts were there already
    matched: Matched
    without: tuple[str, ...]  # categories that it has no text for
    statuses: Mapping[str, int]
    mode: str  # `texts` of the settings

    def __str__(self) -> str:
        content, matched = self.source.content, self.matched
        classes, matches = len(self.source.classes), len(matched.category_of)
        texts = len(content.texts)
        lines = [
            f"{visible(content.file)} ({content.form}): {texts:,} texts about {classes:,} classes",
            *(f"  note: {visible(note)}" for note in content.notes),
            f"{matches:,} of {classes:,} classes are categories of this project",
        ]
        lines += _some(matched.loosely, "fit with underscores and hyphens read as spaces")
        lines += _some(matched.ambiguous, "fit several categories and are left out")
        lines += _some(matched.unknown, "are unknown and wait for a category of their name")
        lines += _some(self.without, "categories get no text from it", of="")
        ok = self.statuses.get("ok", 0)
        rejected = {status: count for status, count in sorted(self.statuses.items()) if status != "ok"}
        by_gate = ", ".join(f"{status} {count:,}" for status, count in rejected.items())
        lines.append(f"{ok:,} texts pass the gates, {sum(rejected.values()):,} do not")
        lines[-1] += f" ({by_gate})" if by_gate else ""
        lines.append(f"licence: {visible(content.licence or 'not stated (--license)')}")
        if not self.new:
            lines.append(f"nothing changes: these texts were added before as {self.source.name}")
        elif self.mode == "written":
            lines.append(f'kept as {self.source.name}, unused: [describe.categories] texts = "written"')
        else:
            how = "beside" if self.mode == "both" else "in place of"
            lines.append(
                f"added as {self.source.name}, {how} the describer's texts"
                f' ([describe.categories] texts = "{self.mode}"); `unibind run` takes them in'
            )
        return "\n".join(lines)


def add_texts(
    kb: Path,
    path: Path,
    settings: DescribeCategories,
    *,
    encoder: str,
    name: str | None = None,
    licence: str | None = None,
    as_: As | None = None,
) -> Added:
    """Take the texts of a file, or of another knowledge base's folder, as a source of descriptions.

    `as_` says what the texts are, where that is not to be guessed; `encoder` names the text encoder that will
    read them. The caller holds the project's lock. The source is written last, whole: where anything raises,
    nothing has changed. Raises InputError where the file is wrong or none of its classes is a category, and
    KnowledgeBaseError where there are no categories yet or a source is damaged.
    """
    categories = read_categories(kb)
    sources = read_sources(kb)
    content = _with_licence(_read(path, as_), licence)
    same = next((each for each in sources if each.content.texts == content.texts), None)
    if same is not None and licence not in {None, same.content.licence}:
        raise InputError(
            f"{path}: these texts were added as {same.name} with the licence"
            f" {same.content.licence or 'not stated'}; to state another, first"
            f" `unibind kb add-texts --remove {same.name}`"
        )
    source = same or Source(choose_name(kb, content, given=name, sources=sources), content)
    matched = match_classes(source.classes, categories)
    if not matched.category_of:
        theirs, ours = source.classes, [each.name for each in categories]
        raise InputError(
            f"{path}: none of its {len(theirs):,} classes is a category of this project; it has"
            f" {_few(theirs)}; the project has {_few(ours)}"
        )
    every = sources if same else sorted([*sources, source], key=lambda each: each.name)
    rows = added_rows(kb, settings, every, run_id="", encoder=encoder)
    mine = [row for of_category in rows for row in of_category if row["provider"] == source.name]
    given = set(matched.category_of.values())
    if same is None:
        write_source(kb, source)
    return Added(
        source=Source(source.name, replace(content, licence=source.content.licence)),
        new=same is None,
        matched=matched,
        without=tuple(each.name for each in categories if each.category_id not in given),
        statuses=Counter(row["status"] for row in mine),
        mode=settings.texts,
    )


def list_added(kb: Path) -> str:
    """The sources of a knowledge base, each with where it comes from."""
    sources = read_sources(kb)
    if not sources:
        return "no texts were added; `unibind kb add-texts FILE` does"
    lines = []
    for source in sources:
        texts, classes = len(source.content.texts), len(source.classes)
        lines.append(f"{source.name}: {texts:,} texts about {classes:,} classes")
        lines += [f"  {key}: {visible(value)}" for key, value in source.describe().items()]
    return "\n".join(lines)


def _read(path: Path, as_: As | None) -> AddedFile:
    return read_knowledge_base(path) if path.is_dir() else read_file(path, as_=as_)


def _with_licence(content: AddedFile, licence: str | None) -> AddedFile:
    return content if licence is None else replace(content, licence=licence)


def _some(names: tuple[str, ...], what: str, *, of: str = "classes ") -> list[str]:
    if not names:
        return []
    return [f"{len(names):,} {of}{what}: {_few(names)}"]


def _few(names: Sequence[str]) -> str:
    return ", ".join(map(visible, names[:_SHOWN])) + (" ..." if len(names) > _SHOWN else "")
