"""Embedding center localization: choose the descriptions that represent each category.

The rules, over arrays, are in trainer/localize/rules.py. This module finds the samples that guide them and
applies them to the categories of a knowledge base, one per core at a time, so that only their descriptions
are in memory.

Shapes: N texts, M samples, D dimensions, C categories, K chosen.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
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
    RULES,
    Evidence,
    RankedRows,
    largest_cosines,
    mean_direction,
    rank_by_distinctness,
    unit_doubles,
)
from trainer.records import TRANSDUCTIVE, Doubles, Floats, Ints
from trainer.score.blas import one_thread_each, parallel_map
from trainer.settings import LEAKAGE, Localize, Rule

SPLITS = ("train", "val", "test")
_silent: ContextVar[bool] = ContextVar("silent", default=False)

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@contextmanager
def without_progress() -> Iterator[None]:
    """Within: this thread shows no progress of localization, which is one part of something longer."""
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)


def localize(kb: Path, settings: Localize) -> dict[str, Any]:
    """Choose up to `settings.k` centers of every category and write `<kb>/centers.parquet`.

    - `visual`: the texts with the largest cosine with the unit mean of the category's encoded samples, in the
      space that the zero-shot encoder shares with the texts; with `nearest_samples`, with the largest mean
      cosine with the N samples nearest to the text. The samples of the splits in `guide` guide.
    - `distinct`: as `visual`, minus the largest cosine with the mean of another category's samples.
    - `text`: by the cosine with the mean of the category's own texts, minus the largest with another's mean.
    - `name`: by the cosine with the category's own name, minus the largest with another's name.
    - `neighbours`: as `text`, minus the mean cosine with the texts' means of the categories that have the
      names nearest to the category's own.
    - `diverse`: texts such that every guiding sample, and then every text, has a center near it.
    - `pseudo`: as `visual`, but guided by all encoded samples of every split without their labels: each is
      assigned to the category of its nearest center by rule `text`.

    For a category without guiding samples, or whose samples' mean is zero, `visual`, `distinct` and `pseudo`
    fall back to `text`, and `diverse` covers its texts. With `with_name`, the bare name is the first of the
    category's centers, with score 1, rule `class_name` and no guide. Ties go to the lower row id. Returns
    counts: `centers`, categories `by_rule`, `fewer_than_k` (category: number of centers), `without_centers`
    (category ids), `guiding_samples`, `texts_without_vector`. Raises InputError for guides that leak and for
    settings without effect, and KnowledgeBaseError where there is no description or the dimensions differ.
    """
    table, summary = choose_centers(open_kb(kb), settings)
    with atomic_path(kb / "centers.parquet") as temporary:
        pq.write_table(table, temporary)
    return summary


def choose_centers(
    base: KnowledgeBase, settings: Localize, texts: CategoryTexts | None = None
) -> tuple[pa.Table, dict[str, Any]]:
    """The table that `localize` writes, and the counts that it returns; nothing is written.

    `texts`: others than the knowledge base's own (trainer/localize/edited.py).
    """
    _require_consistent(settings)
    if not base.categories:
        return CENTERS.empty_table(), {"k": settings.k, "centers": 0, "by_rule": {}, "guiding_samples": 0}
    texts = texts or open_category_texts(base, settings.texts, seed=settings.seed)
    k = sys.maxsize if settings.k == "all" else settings.k
    has_neighbours = RULES[settings.rule].neighbours
    names = load_class_names(base) if settings.with_name or has_neighbours else None
    names_CD = unit_doubles(names.vectors_CD, "names") if names is not None and has_neighbours else None
    k_texts = k - 1 if settings.with_name else k
    with one_thread_each():
        guides, centroids_CD = _guides_and_centroids(base, texts, settings, k_texts)

        def choose(category: int) -> tuple[pa.RecordBatch, int]:
            ids, vectors_ND = texts.read(category)
            evidence = Evidence(
                vectors_ND=vectors_ND,
                category=category,
                samples_MD=guides.of(category),
                directions_CD=guides.directions_CD,
                centroids_CD=centroids_CD,
                names_CD=names_CD,
                nearest_samples=settings.nearest_samples,
            )
            ranked, rule, guided_by = _rank(evidence, settings.rule, k_texts, guided_by=guides.guided_by)
            chosen = len(ranked.rows_K)
            own = [names.row_ids[category]] if names is not None and settings.with_name else []
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


@dataclass(frozen=True)
class Guides:
    """The guiding samples, sorted by category; those of category c are `of(c)`."""

    guided_by: str  # the splits they come from, or "transductive"
    vectors_MD: Floats
    starts_C1: Ints
    directions_CD: Doubles  # the unit mean of each category's samples; zeros without samples

    def of(self, category: int) -> Floats:
        """The samples of one category: float32[M, D]; M may be 0."""
        return self.vectors_MD[self.starts_C1[category] : self.starts_C1[category + 1]]


def guiding_samples(kb: KnowledgeBase, dim: int, splits: tuple[str, ...]) -> tuple[Floats, Ints]:
    """The zero-shot encoder's vectors of the samples of some splits, and their categories (-1: none).

    Samples of the modality `text` are left out, because rules compare texts with what a category looks or
    sounds like; so are zero vectors. Without a zero-shot encoder there are no samples. Raises
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
    """Group samples by category, in their given order; samples of category -1 are left out."""
    order = np.argsort(category_M, kind="stable")
    order = order[np.count_nonzero(category_M < 0) :]
    starts_C1 = np.searchsorted(category_M[order], np.arange(n_categories + 1))
    directions_CD = np.zeros((n_categories, vectors_MD.shape[1]))
    for category in np.unique(category_M[order]).tolist():
        members = order[starts_C1[category] : starts_C1[category + 1]]
        directions_CD[category] = mean_direction(vectors_MD[members])
    return Guides(guided_by, vectors_MD[order], starts_C1, directions_CD)


def _rejections(kb: Path) -> str:
    """The number of descriptions of each status, as part of an error message."""
    counts: Counter[str] = Counter()
    for file in sorted((kb / "descriptions" / "category").glob("*.parquet")):
        counts.update(read_columns(file, ["status"], hint="unibind describe")["status"].to_pylist())
    listed = ", ".join(f"{count:,} {status}" for status, count in counts.most_common())
    return f" ({listed})" if listed else ""


def _require_consistent(settings: Localize) -> None:
    if set(settings.guide.split("+")) - {"train", "val"}:
        raise InputError(f"localize.guide: {LEAKAGE}")
    if settings.rule == "pseudo" and not settings.transductive:
        raise InputError(
            "localize.rule: `pseudo` uses every encoded sample, those of the test split too (without their"
            " labels); to allow that, set `transductive = true` in [localize]: results are marked accordingly"
        )
    if settings.nearest_samples is not None and not RULES[settings.rule].uses_nearest:
        raise InputError(
            f"localize.nearest_samples: rule `{settings.rule}` does not use it; remove it, or set `rule` to"
            " `visual` or `pseudo`"
        )


def _guides_and_centroids(
    kb: KnowledgeBase, texts: CategoryTexts, settings: Localize, k: int
) -> tuple[Guides, Doubles | None]:
    """The guiding samples, and the categories' centroids where some category is ranked by them."""
    n = len(kb.categories)
    rule = RULES[settings.rule]
    splits = {
        "labels": tuple(settings.guide.split("+")),
        "pseudo-labels": SPLITS,
        "none": (),
    }[rule.guided_by]
    samples_MD, category_M = guiding_samples(kb, texts.table.dim, splits)
    guides = group_guides(samples_MD, category_M, n, guided_by=settings.guide)
    if rule.centroids == "names":
        return guides, unit_doubles(load_class_names(kb).vectors_CD, "names")
    is_guided = not rule.falls_back or bool(guides.directions_CD.any(axis=1).all())
    if rule.centroids is None and rule.guided_by != "pseudo-labels" and is_guided:
        return guides, None
    means = _map_with_progress(
        lambda category: mean_direction(texts.read(category)[1]), range(n), "centroids"
    )
    centroids_CD = np.stack(means)
    if rule.guided_by == "pseudo-labels":
        label_M = _pseudo_labels(samples_MD, texts, centroids_CD, k)
        guides = group_guides(samples_MD, label_M, n, guided_by=TRANSDUCTIVE)
    return guides, centroids_CD


def _pseudo_labels(samples_MD: Floats, texts: CategoryTexts, centroids_CD: Doubles, k: int) -> Ints:
    """The category of each sample's nearest center by rule `text`: int64[M]; the lower category of equals."""
    best_M = np.full(len(samples_MD), -np.inf)
    label_M = np.full(len(samples_MD), -1)
    merging = threading.Lock()

    def compare(category: int) -> None:
        _, vectors_ND = texts.read(category)
        if len(vectors_ND) == 0:
            return
        rows_K = rank_by_distinctness(vectors_ND, centroids_CD, category, k).rows_K
        cosine_M = largest_cosines(samples_MD, vectors_ND[rows_K])
        with merging:  # the order of the categories does not change the result
            better_M = (cosine_M > best_M) | ((cosine_M == best_M) & (category < label_M))
            best_M[better_M] = cosine_M[better_M]
            label_M[better_M] = category

    _map_with_progress(compare, range(len(texts.categories)), "pseudo-labels")
    return label_M


def _rank(given: Evidence, rule: Rule, k: int, *, guided_by: str) -> tuple[RankedRows, Rule, str | None]:
    """One category's ranked texts, the rule that ranked them, and the splits that guided it."""
    if len(given.vectors_ND) == 0 or k == 0:
        return RankedRows(np.zeros(0, np.int64), np.zeros(0)), rule, None
    if RULES[rule].falls_back and not given.directions_CD[given.category].any():
        return RULES["text"].rank(given, k), "text", None
    return RULES[rule].rank(given, k), rule, guided_by if len(given.samples_MD) else None


def _map_with_progress(work: Callable[[_Item], _Result], items: Iterable[_Item], what: str) -> list[_Result]:
    """`parallel_map` with a progress bar, unless within `without_progress`."""
    items = list(items)
    with tqdm(total=len(items), desc=what, unit="category", disable=_silent.get() or None) as bar:

        def work_and_update(item: _Item) -> _Result:
            result = work(item)
            bar.update()
            return result

        return parallel_map(work_and_update, items)
