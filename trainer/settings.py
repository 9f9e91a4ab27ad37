"""The settings of stage 2. Each class is one section of the project file; extra keys are refused there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BeforeValidator

from data.modality import Modality

Count = Annotated[int, Ge(1)]
Share = Annotated[float, Ge(0), Le(1)]

LEAKAGE = (
    "guiding by test samples is leakage: what is measured on them would be no result. Guide by `train`, `val`"
    ' or `train+val`; to let unlabelled test samples take part, and have it marked, set `rule = "pseudo"` and'
    " `transductive = true`"
)


def _count_or_all(value: object) -> object:
    if value == "all" or (type(value) is int and value >= 1):
        return value
    raise ValueError(f'must be a whole number from 1 on, or "all" (given: {value!r})')


def _no_test(value: object) -> object:
    if isinstance(value, str) and "test" in value.casefold():
        raise ValueError(LEAKAGE)
    return value


@dataclass(frozen=True)
class Localize:
    """Which descriptions become embedding centers: `[localize]`."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  (read by pydantic at the project file's edge)

    k: Annotated[int | Literal["all"], BeforeValidator(_count_or_all)] = 50  # centers per category
    # What the rules do is told in trainer/localize/choose.py; formulas stand in trainer/localize/rules.py.
    rule: Literal["visual", "distinct", "text", "name", "diverse", "pseudo"] = "visual"
    guide: Annotated[Literal["train", "val", "train+val"], BeforeValidator(_no_test)] = "train"
    # `visual` and `pseudo`: cosine with so many samples nearest to a text, instead of with the samples' mean
    nearest_samples: Count | None = None
    texts: Count | None = (
        None  # choose from so many descriptions of each category, drawn by `seed`; else from all
    )
    seed: Annotated[int, Ge(0)] = 0
    with_name: bool = False  # the category's bare name is the first of its k centers
    transductive: bool = False  # `pseudo` asks for it: unlabelled samples of every split take part, test too


@dataclass(frozen=True)
class Train:
    """How the alignment heads are trained: `[train]`."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    enabled: bool = True
    modalities: tuple[Modality, ...] | None = None  # only these; all that have train samples otherwise
    # What samples are drawn to: texts; or, for comparison and as in ImageBind, images of the same object and
    # category, which were aligned with the texts before (trainer/align/rounds.py).
    align: Literal["text", "image"] = "text"
    epochs: Count = 30
    batch_size: Annotated[int, Ge(2)] = 1024  # shared evenly by the modalities, however many samples each has
    # The kinds of heads, and how they start, are told in trainer/align/maps.py.
    head: Literal["linear", "residual", "low-rank", "mlp"] = "linear"
    start: Literal["random", "ridge", "procrustes"] = "random"
    rank: Count = 16  # of a `low-rank` head
    hidden: Count = 512  # units of an `mlp` head
    # Formulas in align/losses.py; `official` is the published recipe: one way, no temperature, no centers.
    loss: Literal["infonce", "sigmoid", "official"] = "infonce"
    centers: Literal["one", "all"] = "one"  # meet a center of the category drawn at random, or all of them
    learning_rate: Annotated[float, Gt(0)] = 2e-3  # at its peak, after a linear warm-up
    schedule: Literal["cosine", "linear"] = "cosine"  # how it decays, to zero
    warmup: Share = 0.1  # share of all steps
    weight_decay: Annotated[float, Ge(0)] = 0.01
    clip_norm: Annotated[float, Gt(0)] = 1.0
    temperature: Annotated[float, Ge(0.01), Le(1)] = 0.07  # at the start; learned, within [0.01, 1]
    center_weight: Share = (
        0.5  # share of the loss that pulls to category centers; the rest, to own descriptions
    )
    ema: Annotated[float, Ge(0), Lt(1)] = (
        0.0  # keep the moving average of the heads, with this decay per step
    )
    patience: Count | None = None  # stop after so many epochs without a better one on val
    device: str = "auto"  # the first GPU where there is one; "cpu", "cuda:1", …
    # Of the products' factors, as torch.set_float32_matmul_precision has it: `high` is TF32 on GPUs, `medium`
    # bfloat16 too on processors that have it; sums and results are float32 in any case.
    precision: Literal["highest", "high", "medium"] = "highest"
    tensorboard: bool = False  # a log for TensorBoard beside train_log.parquet
    seed: Annotated[int, Ge(0)] = 1234


# How the centers of a category become its score; the formulas stand in trainer/score/scoring.py.
Scorer = Literal["nearest", "logsumexp", "mean", "medoid"]


@dataclass(frozen=True)
class Evaluate:
    """How the result is measured: `[evaluate]`."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    scorer: Scorer = "nearest"
    bootstrap: Count = 1000  # resamples behind every interval
    probe: bool = True  # a linear probe of the frozen features, beside what the centers reach
    # Labelled train samples per category and modality for probes and heads of a handful; [] for none of it.
    few_shot: tuple[Count, ...] = (1, 2, 4, 8, 16)
    sweeps: bool = True  # measure with fewer centers and with the other scorers, too
    # Balance beside that of heads drawn to bare names and to images, which two more trainings give.
    baselines: bool = True
    seed: Annotated[int, Ge(0)] = 0
