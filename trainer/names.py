"""The categories' bare names, encoded: what rule `name` measures texts against, and a center `with_name`.

They are the texts of the control `class_name`, so localization needs no encoder for them.
"""

from __future__ import annotations

from dataclasses import dataclass

from data.errors import KnowledgeBaseError
from trainer.inputs import KnowledgeBase, load_controls
from trainer.records import Floats

CLASS_NAME = "class_name"  # the control; and in the column `rule`, that a center is the name itself


@dataclass(frozen=True)
class Names:
    """One row per category, in the order of `KnowledgeBase.categories`."""

    row_ids: tuple[str, ...]  # of the control's texts
    vectors_CD: Floats  # as stored: of unit length but for the store's rounding


def load_names(kb: KnowledgeBase) -> Names:
    """The encoded names. Raises KnowledgeBaseError where a category's name has no vector."""
    named = load_controls(kb).get(CLASS_NAME)
    if named is None or (named.counts() != 1).any():
        raise KnowledgeBaseError(
            f"{kb.folder / 'controls.parquet'}: the name of some category has no vector; run `unibind encode`"
        )
    return Names(row_ids=named.row_ids, vectors_CD=named.vectors_ND)
