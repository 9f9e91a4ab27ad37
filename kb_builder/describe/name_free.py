"""Descriptions without their category's name, for the evaluation without class names."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from kb_builder.describe.categories import read_categories
from kb_builder.describe.confusable import ok_texts
from kb_builder.gates.names import category_names
from kb_builder.gates.without_name import without_name
from kb_builder.tables.controls import NameFree, ok_counts

MOST = 20_000  # descriptions; each is encoded a second time
_PASSES = ("part", "contrast", "added")


def name_free_texts(kb: Path) -> Iterator[NameFree]:
    """Every `ok` description of a category, without the name; those that say nothing else are left out.

    None where there are no categories yet, and, with a line on stderr, where there are more than MOST
    descriptions: which of them become centers is not known before they are encoded, so all are encoded twice.
    """
    if not (kb / "categories.parquet").is_file():
        return
    if (count := sum(ok_counts(kb).values())) > MOST:
        print(
            f"  note: {count:,} descriptions are more than {MOST:,}: they are not encoded again without"
            " the name of their category, and the evaluation without class names is left out",
            file=sys.stderr,
        )
        return
    names = category_names(read_categories(kb))
    for prefix in _PASSES:
        for category_id, texts in ok_texts(kb, prefix):
            if category_id not in names:
                continue
            for row_id, text in texts.items():
                left = without_name(text, names[category_id])
                if left is not None:
                    yield NameFree(category_id, row_id, left)
