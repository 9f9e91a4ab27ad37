"""The settings of stage 2: each class is one section of the project file, which refuses unknown keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le, Lt, MinLen
from pydantic import AfterValidator, BeforeValidator

from data.modality import Modality
from kb_builder.bounds import NotNegative, Positive, distinct

Count = Annotated[int, Ge(1)]
Share = Annotated[float, Ge(0), Le(1)]

# The names that settings may use; the tables `localize.rules.RULES`, `align.losses.LOSSES` and
# `score.scoring.SCORERS` hold the meaning of each name.
Rule = Literal["visual", "distinct", "text", "name", "neighbours", "diverse", "pseudo"]
Loss = Literal["infonce", "sigmoid", "official"]
Scorer = Literal["nearest", "logsumexp", "mean", "medoid"]

LEAKAGE = (
    "guiding by test samples is leakage: results measured on them would be invalid. Guide by `train`, `val`"
    ' or `train+val`; to use unlabelled test samples, and have the results marked, set `rule = "pseudo"` and'
    " `transductive = true`"
)


def _count_or_all(value: object) -> object:
    if value == "all" or (type(value) is int and value >= 1):
        return value
    raise ValueError(f'must be a whole number from 1 on, or "all" (given: {value!r})')


def _repeats(value: object) -> object:
    if value == "auto" or (type(value) is int and 0 <= value <= 100):
        return value
    raise ValueError(f'must be a whole number from 0 to 100, or "auto" (given: {value!r})')


def _no_test(value: object) -> object:
    if isinstance(value, str) and "test" in value.casefold():
        raise ValueError(LEAKAGE)
    return value


@dataclass(frozen=True)
class Localize:
    """Which descriptions become embedding centers: `[localize]`."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (read by pydantic at the project file's edge)

    k: Annotated[int | Literal["all"], BeforeValidator(_count_or_all)] = 50  # centers per category
    rule: Rule = "visual"  # described in trainer/localize/choose.py; formulas in trainer/localize/rules.py
    guide: Annotated[Literal["train", "val", "train+val"], BeforeValidator(_no_test)] = "train"
    # `visual` and `pseudo`: the mean cosine with the N samples nearest to a text, not with the samples' mean
    nearest_samples: Count | None = None
    # choose from N descriptions of each category, drawn by `seed`; None: from all
    texts: Count | None = None
    seed: Annotated[int, Ge(0)] = 0
    with_name: bool = False  # the category's bare name is the first of its k centers
    transductive: bool = False  # `pseudo` needs it: unlabelled samples of every split take part, test too


@dataclass(frozen=True)
class Train:
    """How the alignment heads are trained: `[train]`."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    enabled: bool = True
    # Only these; None: all that have train samples.
    modalities: Annotated[tuple[Modality, ...], MinLen(1), AfterValidator(distinct)] | None = None
    # What samples are aligned with: texts; or, for comparison and as in ImageBind, images of the same object
    # and category, which were aligned with the texts before (trainer/align/rounds.py).
    align: Literal["text", "image"] = "text"
    epochs: Count = 60
    batch_size: Annotated[int, Ge(2)] = 1024  # shared evenly by the modalities, however many samples each has
    # Text samples get a head as well; texts about categories and samples never do: they are what heads aim
    # at.
    text_head: bool = True
    # The mean of each modality, and that of the centers, is taken off (trainer/align/shared.py).
    centred: bool = True
    # The share of the variance of the trained categories' centers that the shared space keeps: samples and
    # centers lie in the span of the first principal components. 0: in the whole text space.
    subspace: Share = 0.95
    # The kinds of heads and their starts are described in trainer/align/maps.py.
    head: Literal["linear", "residual", "low-rank", "mlp"] = "linear"
    start: Literal["random", "ridge", "procrustes"] = "ridge"
    rank: Count = 16  # of a `low-rank` head
    hidden: Count = 512  # units of an `mlp` head
    # Formulas in trainer/align/losses.py; `official` is UniBind's: one direction, no temperature, no centers.
    loss: Loss = "infonce"
    # What a sample is classified by: the mean centers of the trained categories; or contrasted with: one
    # random center of its category, or all of them.
    centers: Literal["mean", "one", "all"] = "mean"
    # With the mean centers: vectors are divided by their length to this power before they are classified.
    # From 0 (categories without train samples are recognised best) to 1 (modalities mix best).
    mixing: Share = 0.4
    learning_rate: Positive = 1e-2  # at its peak, after a linear warm-up
    schedule: Literal["cosine", "linear"] = "cosine"  # how it decays, to zero
    warmup: Share = 0.1  # share of all steps
    weight_decay: NotNegative = 0.01
    # λ of the penalty λ/2 |W|² on a head's weights in the mean loss of its modality
    penalty: NotNegative = 3e-3
    clip_norm: Positive = 1.0
    # Of the mean centers: as it is. Of contrasts: at the start; learned, within [0.01, 1].
    temperature: Annotated[float, Ge(0.01), Le(1)] = 0.07
    # Share of the loss for category centers; the rest is for the samples' own descriptions. With 1, these
    # train only samples without a label, by their share of the samples.
    center_weight: Share = 1.0
    # decay per step of the moving average of the heads, which is kept in their place; 0: none
    ema: Annotated[float, Ge(0), Lt(1)] = 0.0
    val_every: Count = 5  # epochs between two looks at val, which decides on the epoch that a modality keeps
    # A modality stops after N epochs without a better one on val, the training when all have stopped.
    patience: Count | None = None
    device: str = "auto"  # the first GPU where there is one; "cpu", "cuda:1", …
    # Precision of the factors of products (torch.set_float32_matmul_precision): `high` is TF32 on GPUs,
    # `medium` also bfloat16 on processors that support it; sums and results are always float32.
    precision: Literal["highest", "high", "medium"] = "highest"
    tensorboard: bool = False  # write a TensorBoard log beside train_log.parquet
    seed: Annotated[int, Ge(0)] = 1234


@dataclass(frozen=True)
class Evaluate:
    """How the result is measured: `[evaluate]`."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    scorer: Scorer = "nearest"  # from a category's centers to its score; formulas in trainer/score/scoring.py
    bootstrap: Count = 1000  # resamples for every interval
    probe: bool = True  # measure a linear probe of the frozen features as well
    # Numbers of labelled train samples per category and modality, for few-shot probes and heads; []: none.
    few_shot: Annotated[tuple[Count, ...], AfterValidator(distinct)] = (1, 2, 4, 8, 16)
    sweeps: bool = True  # measure with fewer centers and with the other scorers as well
    # Measure the balance of heads aligned with bare names and with images as well; costs two more trainings.
    baselines: bool = True
    # Trainings that hold out trained categories, to find what is taken off their scores among all categories
    # (trainer/evaluate/trust/stacking.py); 0: nothing is taken off.
    stacking_folds: Annotated[int, Ge(0), Le(20)] = 4
    # Splits that are drawn again by object, each trained and measured (trainer/evaluate/trust/repeats.py).
    # `auto`: 5 for small data, where no modality has more than 1,000 test samples of trained categories.
    repeats: Annotated[int | Literal["auto"], BeforeValidator(_repeats)] = "auto"
    seed: Annotated[int, Ge(0)] = 0


@dataclass(frozen=True)
class Predict:
    """Which scores answer for new files: `[predict]`."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    # `auto`: for each modality what the evaluation chose on val (trainer/evaluate/trust/options.py).
    use: Literal["auto", "zero-shot", "heads", "mean"] = "auto"
