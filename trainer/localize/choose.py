"""Embedding center localization: which of a category's descriptions stand for it.

The rules themselves, over arrays, are in trainer/localize/rules.py. Here they are run category by category
over a knowledge base: never more descriptions are in memory than those of one category per core.

Shapes: N texts, M samples, D dimensions, C categories, K chosen.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from data.errors import InputError, KnowledgeBaseError
from data.files import atomic_path
from kb_builder.tables.schemas import CENTERS, read_columns
from trainer.inputs import (
    CLASS_NAME,
    CategoryTexts,
    KnowledgeBase,
    load_class_names,
    load_samples,
    open_category_texts,
    open_kb,
)
from trainer.localize.rules import (
    RankedRows,
    largest_cosines,
    mean_direction,
    rank_by_coverage,
    rank_by_distinctness,
    rank_by_mean,
    rank_by_nearest,
    unit_doubles,
)
from trainer.records import TRANSDUCTIVE, Doubles, Floats, Ints
from trainer.score.blas import one_thread_each, parallel_map
from trainer.settings import LEAKAGE, Localize

SPLITS = ("train", "val", "test")
UNGUIDED = ("text", "name")  # rules that look at no sample

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def localize(kb: Path, settings: Localize) -> dict[str, Any]:
    """Choose up to `settings.k` centers of every category and write `<kb>/centers.parquet`.

    - `visual`: by the cosine with the unit mean of the category's encoded samples, in the space of the
      zero-shot encoder, which it shares with the texts; or, with `nearest_samples`, by the mean cosine with
      so many samples nearest to the text. The samples of the splits in `guide` guide.
    - `distinct`: as `visual`, less the largest cosine with the mean of another category's samples.
    - `text`: by the cosine with the mean of the category's own texts, less the largest with another's mean.
    - `name`: by the cosine with the category's own name, less the largest with another's name.
    - `diverse`: so that every guiding sample, and then every text, has a center near it.
    - `pseudo`: as `visual`, but guided by all encoded samples of every split without their labels: each
      counts for the category of its nearest center by rule `text`.

    Where nothing guides a category, or its samples cancel each other out, `visual`, `distinct` and `pseudo`
    fall back to `text` there, and `diverse` covers its texts. With `with_name`, the bare name is the first of
    the category's centers, with score 1, rule `class_name` and no guide. Ties go by row id. Returns counts:
    `centers`, categories `by_rule`, `fewer_than_k` (category: number of centers), `without_centers` (category
    ids), `guiding_samples`, `texts_without_vector`. Raises InputError for guides that leak and for settings
    without effect, and KnowledgeBaseError where there is no description or the spaces do not fit.
    """
    table, summary = choose_centers(open_kb(kb), settings)
    with atomic_path(kb / "centers.parquet") as temporary:
        pq.write_table(table, temporary)
    return summary


def choose_centers(base: KnowledgeBase, settings: Localize) -> tuple[pa.Table, dict[str, Any]]:
    """What `localize` writes and returns; nothing is written."""
    _require_consistent(settings)
    if not base.categories:
        return CENTERS.empty_table(), {"k": settings.k, "centers": 0, "by_rule": {}, "guiding_samples": 0}
    texts = open_category_texts(base, settings.texts, seed=settings.seed)
    k = sys.maxsize if settings.k == "all" else settings.k
    names = load_class_names(base) if settings.with_name else None
    k_texts = k - 1 if settings.with_name else k
    with one_thread_each():
        guides, centroids_CD = _guides_and_centroids(base, texts, settings, k_texts)

        def choose(category: int) -> tuple[pa.RecordBatch, int]:
            ids, vectors_ND = texts.read(category)
            ranked, rule, guided_by = _rank(vectors_ND, category, guides, centroids_CD, settings, k_texts)
            chosen = len(ranked.rows_K)
            own = [names.row_ids[category]] if names is not None else []
            n = len(own) + chosen
            columns = {
                "category_id": [base.categories[category]] * n,
                "rank": range(n),
                "row_id": own + [ids[row] for row in ranked.rows_K],
                "score": [1.0] * len(own) + ranked.scores_K.tolist(),
                "rule": [CLASS_NAME] * len(own) + [rule] * chosen,
                "guided_by": [None] * len(own) + [guided_by] * chosen,
                "encoder": [base.encoder("text").name] * n,
            }
            return pa.RecordBatch.from_pydict(columns, schema=CENTERS), len(ids)

        done = _map_with_progress(choose, range(len(base.categories)), "localize")
    if base.categories and not any(found for _, found in done):
        raise KnowledgeBaseError(
            f"{base.folder}: no valid description of any category{_rejections(base.folder)}; "
            "see `unibind kb stats`"
        )
    chosen_C = {name: len(batch) for name, (batch, _) in zip(base.categories, done, strict=True)}
    rules = [batch.column("rule")[-1].as_py() for batch, _ in done if len(batch)]
    guided = [c for c, (batch, _) in enumerate(done) if batch.column("guided_by").null_count < len(batch)]
    summary = {
        "k": settings.k,
        "centers": sum(chosen_C.values()),
        "by_rule": {rule: rules.count(rule) for rule in dict.fromkeys((settings.rule, "text", *rules))},
        "fewer_than_k": {name: n for name, n in chosen_C.items() if 0 < n < k and settings.k != "all"},
        "without_centers": [name for name, n in chosen_C.items() if n == 0],
        "guiding_samples": sum(len(guides.of(category)) for category in guided),
        "texts_without_vector": len(texts.row_ids) - sum(found for _, found in done),
    }
    return pa.Table.from_batches([batch for batch, _ in done], schema=CENTERS), summary


def _rejections(kb: Path) -> str:
    """Why there is none: how many texts were rejected, by reason."""
    counts: Counter[str] = Counter()
    for file in sorted((kb / "descriptions" / "category").glob("*.parquet")):
        counts.update(read_columns(file, ["status"], hint="unibind describe")["status"].to_pylist())
    told = ", ".join(f"{count:,} {status}" for status, count in counts.most_common())
    return f" ({told})" if told else ""


def _require_consistent(settings: Localize) -> None:
    if set(settings.guide.split("+")) - {"train", "val"}:
        raise InputError(f"localize.guide: {LEAKAGE}")
    if settings.rule == "pseudo" and not settings.transductive:
        raise InputError(
            "localize.rule: `pseudo` looks at every encoded sample, those of the test split too (not at their"
            " labels); if you want that, set `transductive = true` in [localize]: results are marked so"
        )
    if settings.nearest_samples is not None and settings.rule not in ("visual", "pseudo"):
        raise InputError(
            f"localize.nearest_samples: rule `{settings.rule}` does not use it; take it out, or set `rule` to"
            " `visual` or `pseudo`"
        )


def _guides_and_centroids(
    kb: KnowledgeBase, texts: CategoryTexts, settings: Localize, k: int
) -> tuple[Guides, Doubles | None]:
    """What guides each category; and the categories' centroids, where some category goes by rule `text`."""
    n = len(kb.categories)
    pseudo = settings.rule == "pseudo"
    splits = SPLITS if pseudo else () if settings.rule in UNGUIDED else tuple(settings.guide.split("+"))
    samples_MD, category_M = guiding_samples(kb, texts.table.dim, splits)
    if not pseudo:
        guides = group_guides(samples_MD, category_M, n, guided_by=settings.guide)
        if settings.rule == "diverse" or (
            settings.rule in ("visual", "distinct") and guides.directions_CD.any(axis=1).all()
        ):
            return guides, None
        if settings.rule == "name":
            return guides, unit_doubles(load_class_names(kb).vectors_CD, "names")
    means = _map_with_progress(
        lambda category: mean_direction(texts.read(category)[1]), range(n), "centroids"
    )
    centroids_CD = np.stack(means)
    if pseudo:
        label_M = _pseudo_labels(samples_MD, texts, centroids_CD, k)
        guides = group_guides(samples_MD, label_M, n, guided_by=TRANSDUCTIVE)
    return guides, centroids_CD


def _pseudo_labels(samples_MD: Floats, texts: CategoryTexts, centroids_CD: Doubles, k: int) -> Ints:
    """The category of each sample's nearest center by rule `text`: int64[M]; of equal ones, the first."""
    best_M = np.full(len(samples_MD), -np.inf)
    label_M = np.full(len(samples_MD), -1)
    merging = threading.Lock()

    def compare(category: int) -> None:
        _, vectors_ND = texts.read(category)
        if len(vectors_ND) == 0:
            return
        rows_K = rank_by_distinctness(vectors_ND, centroids_CD, category, k).rows_K
        cosine_M = largest_cosines(samples_MD, vectors_ND[rows_K])
        with merging:  # in any order, for the outcome does not depend on it
            better_M = (cosine_M > best_M) | ((cosine_M == best_M) & (category < label_M))
            best_M[better_M] = cosine_M[better_M]
            label_M[better_M] = category

    _map_with_progress(compare, range(len(texts.categories)), "pseudo-labels")
    return label_M


def _rank(
    vectors_ND: Floats,
    category: int,
    guides: Guides,
    centroids_CD: Doubles | None,
    settings: Localize,
    k: int,
) -> tuple[RankedRows, str, str | None]:
    """One category's choice, the rule that made it, and what guided that."""
    if len(vectors_ND) == 0 or k == 0:
        return RankedRows(np.zeros(0, np.int64), np.zeros(0)), settings.rule, None
    samples_MD = guides.of(category)
    if settings.rule == "diverse":
        guided_by = guides.guided_by if len(samples_MD) else None
        return rank_by_coverage(vectors_ND, samples_MD, k), "diverse", guided_by
    direction_D = guides.directions_CD[category]
    if not direction_D.any():
        assert centroids_CD is not None
        rule = settings.rule if settings.rule in UNGUIDED else "text"
        return rank_by_distinctness(vectors_ND, centroids_CD, category, k), rule, None
    if settings.rule == "distinct":
        ranked = rank_by_distinctness(vectors_ND, guides.directions_CD, category, k)
        return ranked, "distinct", guides.guided_by
    if settings.nearest_samples is not None:
        ranked = rank_by_nearest(vectors_ND, samples_MD, settings.nearest_samples, k)
    else:
        rows_1K, scores_1K = rank_by_mean(vectors_ND, np.array([0, len(vectors_ND)]), direction_D[None], k)
        ranked = RankedRows(rows_1K[0], scores_1K[0])
    return ranked, settings.rule, guides.guided_by


def _map_with_progress(work: Callable[[_Item], _Result], items: Iterable[_Item], what: str) -> list[_Result]:
    """`parallel_map` with a progress bar."""
    items = list(items)
    with tqdm(total=len(items), desc=what, unit="category", disable=None) as bar:

        def work_and_tell(item: _Item) -> _Result:
            result = work(item)
            bar.update()
            return result

        return parallel_map(work_and_tell, items)


@dataclass(frozen=True)
class Guides:
    """Samples sorted by the category they guide; those of category c are `of(c)`."""

    guided_by: str  # the splits they come from, or "transductive"
    vectors_MD: Floats
    starts_C1: Ints
    directions_CD: Doubles  # the unit mean of each category's samples; zeros where none point anywhere

    def of(self, category: int) -> Floats:
        """The samples of one category: float32[M, D]; none is no error."""
        return self.vectors_MD[self.starts_C1[category] : self.starts_C1[category + 1]]


def guiding_samples(kb: KnowledgeBase, dim: int, splits: tuple[str, ...]) -> tuple[Floats, Ints]:
    """The samples of some splits as the zero-shot encoder sees them, and their categories (-1: none).

    Not those of the modality `text`: rules ask what a category looks like, not what is said of it. Nor those
    without direction, whose vector is zero. Without a zero-shot encoder there are none. Raises
    KnowledgeBaseError where the vectors do not have the texts' `dim` dimensions.
    """
    vectors, categories = [np.zeros((0, dim), np.float32)], [np.zeros(0, np.int64)]
    sets = load_samples(kb, "zero_shot")[0] if kb.encoders.get("zero_shot") is not None else {}
    for modality, samples in sorted(sets.items()):
        if modality == "text":
            continue
        if samples.vectors_ND.shape[1] != dim:
            raise KnowledgeBaseError(
                f"{kb.encoder('zero_shot').name} gives {samples.vectors_ND.shape[1]} dimensions and the texts"
                f" have {dim}: a zero-shot encoder must share the text encoder's space"
            )
        shown = np.flatnonzero(np.isin(samples.splits_N, splits) & samples.vectors_ND.any(axis=1))
        vectors.append(samples.vectors_ND[shown])
        categories.append(samples.category_N[shown])
    return np.concatenate(vectors), np.concatenate(categories)


def group_guides(vectors_MD: Floats, category_M: Ints, n_categories: int, *, guided_by: str) -> Guides:
    """Samples by category, each category's in the order they come in; those of category -1 guide nothing."""
    order = np.argsort(category_M, kind="stable")
    order = order[np.count_nonzero(category_M < 0) :]
    starts_C1 = np.searchsorted(category_M[order], np.arange(n_categories + 1))
    directions_CD = np.zeros((n_categories, vectors_MD.shape[1]))
    for category in np.unique(category_M[order]).tolist():
        members = order[starts_C1[category] : starts_C1[category + 1]]
        directions_CD[category] = mean_direction(vectors_MD[members])
    return Guides(guided_by, vectors_MD[order], starts_C1, directions_CD)
