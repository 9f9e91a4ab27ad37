"""The data set card of a pack: README.md, whose front matter `datasets` and the Hugging Face hub read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from data.show import visible

UNKNOWN_LICENCE = "unknown"

_USE = """\
```python
from datasets import load_dataset

texts = load_dataset("FOLDER", split="train")  # class, text, model, source …
names = load_dataset("FOLDER", "categories", split="train")
```

In another project: `unibind kb add-texts FOLDER`. `provenance.json` says who wrote what;
`unibind-checksums.json` has the SHA-256 of every file.
"""


def write_card(
    provenance: Mapping[str, Any],
    *,
    texts: int,
    described: int,
    categories: int,
    sample_texts: int | None,
) -> str:
    """The card of a pack with so many texts, about so many of its categories.

    `sample_texts` None: it has no such table.
    """
    tables = ["category_texts", "categories", *([] if sample_texts is None else ["sample_texts"])]
    licence = provenance["licence"]
    stated = licence if licence != UNKNOWN_LICENCE else "unknown (not stated)"
    lines = [
        *_front_matter(provenance, tables),
        f"# {_plain(provenance['project'])}: descriptions of categories",
        "",
        f"{texts:,} texts about {described:,} of {categories:,} categories, for zero-shot recognition and",
        f"retrieval, by UniBind pipeline. Licence: {stated}.",
        "",
        *_writers(provenance),
        "",
        *_gates(provenance),
        "",
        *_added(provenance),
    ]
    if sample_texts is not None:
        lines += [f"Also {sample_texts:,} texts about single samples (`sample_texts`).", ""]
    return "\n".join(lines) + "\n" + _USE


def _front_matter(provenance: Mapping[str, Any], tables: list[str]) -> Iterator[str]:
    title, language = f"{provenance['project']}: descriptions of categories", provenance["gates"]["language"]
    yield "---"
    yield f"license: {provenance['licence'].lower()}"
    yield f"pretty_name: {json.dumps(title)}"
    if language:
        yield from ("language:", f"- {language}")
    yield "configs:"
    for table in tables:
        yield f"- config_name: {table}"
        yield f"  data_files: data/{table}.parquet"
        if table == tables[0]:
            yield "  default: true"
    yield from ("---", "")


def _writers(provenance: Mapping[str, Any]) -> Iterator[str]:
    yield "| model | source | provider | texts |"
    yield "|---|---|---|---|"
    for each in provenance["texts"]:
        names = " | ".join(_plain(each[column]) for column in ("model", "source", "provider"))
        yield f"| {names} | {each['texts']:,} |"


def _gates(provenance: Mapping[str, Any]) -> Iterator[str]:
    gates = provenance["gates"]
    counts = ", ".join(f"{status} {count:,}" for status, count in provenance["rejected"].items())
    language = f"is in the language {gates['language']}" if gates["language"] else "is in any language"
    yield f"Every text names its category and no rival, says something, {language},"
    yield f"fits the text encoder {_plain(gates['text_encoder'])}, and repeats no other (3-gram Jaccard below"
    cosine = gates["near_cosine"]
    yield f"{gates['near_jaccard']}, cosine {'not compared' if cosine is None else f'below {cosine}'})."
    yield f"Rejected, and not in here: {counts or 'none'}."


def _added(provenance: Mapping[str, Any]) -> Iterator[str]:
    if provenance["added"]:
        yield from ("Texts that were added from elsewhere:", "")
        for each in provenance["added"]:
            about = f"{_plain(each['file'])} ({each['format']}), licence: {_plain(each['licence'])}"
            yield f"- {_plain(each['name'])}: {about}"
        yield ""


def _plain(value: str) -> str:
    """A name as plain text within Markdown."""
    return re.sub(r"([|`*_<>\[\]\\#])", r"\\\1", visible(value))
