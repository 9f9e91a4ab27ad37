"""What a run could not measure, by modality, with the reason: so that a report explains a missing row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from trainer.align.heads import Heads
from trainer.inputs import KnowledgeBase
from trainer.records import Centers, SampleSet


def unmeasured_rows(
    base: KnowledgeBase,
    centers: Centers,
    *,
    recognised: Collection[str],
    spaces: Mapping[str, Mapping[str, SampleSet]],
    frozen: Mapping[str, SampleSet],
    heads: Heads | None,
) -> list[dict[str, Any]]:
    """Rows {modality, n, reason}: each modality of the samples without a row of recognition.

    `recognised` are the modalities with one; `spaces` and `frozen` hold the encoded samples. A row whose
    modality is null is about the whole run. `n` is the number of samples that the reason applies to.
    """
    rows = [
        {"modality": None, "n": len(base.samples), "reason": reason} for reason in _run_reasons(base, centers)
    ]
    count = Counter(row["modality"] for row in base.samples)
    for modality, n in sorted(count.items()):
        if modality not in recognised:
            reason = _modality_reason(base, modality, spaces=spaces, frozen=frozen, heads=heads)
            rows.append({"modality": modality, "n": n, "reason": reason})
    return rows


def _run_reasons(base: KnowledgeBase, centers: Centers) -> list[str]:
    if not base.categories:
        return [
            "no category is named: nothing can be recognised; fill the manifest's column `category`, or make"
            " sub-folders"
        ]
    if len(base.categories) == 1:
        return ["one category only: every answer is right, whatever the model; add a second one"]
    if not len(centers.row_ids):
        return ["no category has an embedding center"]
    return []


def _modality_reason(
    base: KnowledgeBase,
    modality: str,
    *,
    spaces: Mapping[str, Mapping[str, SampleSet]],
    frozen: Mapping[str, SampleSet],
    heads: Heads | None,
) -> str:
    mine = [row for row in base.samples if row["modality"] == modality]
    labelled = [row for row in mine if row["category_id"] is not None]
    if not labelled:
        return f"none of its {len(mine)} samples has a category"
    space = spaces.get("aligned" if heads is not None else "zero_shot", {})
    if modality in space:
        if not any(row["split"] == "test" for row in labelled):
            return "no test sample has a category; labels were used, so that only test samples are scored"
        return "no test sample with a category could be encoded, or no category has an embedding center"
    if modality not in frozen and modality not in spaces.get("zero_shot", {}):
        return f"none of its {len(mine)} samples could be encoded; the quarantine says why"
    if heads is not None:
        return (
            "no head: none of its train samples has a description or a category with centers; give the"
            " manifest train samples of it"
        )
    untrained = (
        "the zero-shot encoder does not place it in the text space"
        if base.encoders.get("zero_shot") is not None
        else "there is no zero-shot encoder"
    )
    trained = {row["category_id"] for row in base.samples if row["split"] == "train"} - {None}
    if len(trained) == 1:
        return f"{untrained}, and a head needs train samples of two categories"
    if not any(row["split"] == "train" for row in labelled):
        return f"{untrained}, and there is no labelled train sample to train a head on; see `unibind split`"
    return f"{untrained}, and no head was trained; `unibind train` trains one"
