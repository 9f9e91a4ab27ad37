"""What a run's balance is measured against: the same heads and budget, drawn to something else.

class_name: the bare category names in place of the embedding centers · image_centred: every modality drawn to
images, as ImageBind does (or text_centred, where the run itself is image-centred; trainer/rounds.py).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from data.errors import TrainingError
from trainer.heads import Heads
from trainer.inputs import KnowledgeBase
from trainer.names import CLASS_NAME
from trainer.records import Centers
from trainer.tasks import CENTERS
from trainer.train import fit, recipe_of

_OTHER: dict[Literal["text", "image"], Literal["text", "image"]] = {"text": "image", "image": "text"}


def baseline_heads(base: KnowledgeBase, anchors: dict[str, Centers], heads: Heads) -> dict[str, Heads]:
    """Heads by baseline, each trained by the recipe of `heads` but for what it is drawn to.

    A baseline that the knowledge base does not allow (no names, no train images) is absent.
    """
    recipe = recipe_of(heads)
    turned = _OTHER[recipe.align]
    wanted = {
        CLASS_NAME: (anchors.get(CLASS_NAME), recipe),
        f"{turned}_centred": (anchors[CENTERS], replace(recipe, align=turned)),
    }
    found = {}
    for name, (centers, settings) in wanted.items():
        if centers is None:
            continue
        try:
            found[name] = fit(base, centers, settings).heads
        except TrainingError:  # there are no train samples of what it would be drawn to
            continue
    return found
