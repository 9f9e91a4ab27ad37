"""The trainings of an evaluation, made elsewhere in any order: the metrics and files of one process."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data.reads import recorded
from data.work import Carry
from tests.elsewhere import Elsewhere, all_files
from trainer.align.train import train
from trainer.evaluate.measure import evaluate
from trainer.evaluate.trainings import elsewhere
from trainer.localize.choose import localize
from trainer.settings import Evaluate, Localize, Train

SETTINGS = Evaluate(bootstrap=20, few_shot=(1, 50, 60), stacking_folds=2, repeats=1, sweeps=False)


def evaluated(kb: Path, run: Path, carry: Carry | None) -> tuple[str, dict[str, str], set[Any]]:
    """The metrics, the files of the run, and what was read."""
    with recorded() as recorder:
        metrics = evaluate(kb, run, SETTINGS, carry)
    read = {(note.path, note.kind, note.detail, note.digest) for note in recorder.notes()}
    return json.dumps(metrics), all_files(run), read


def test_trainings_made_elsewhere_give_the_same_bytes(make_kb: Callable[..., Path], tmp_path: Path) -> None:
    """Metrics, outcomes, and the notes on what was read; each training that differs is made once."""
    kb = make_kb()
    localize(kb, Localize(k=5))
    train(kb, tmp_path, Train(epochs=1, batch_size=48))
    here = evaluated(kb, tmp_path, None)
    engine = Elsewhere(seed=3)
    assert evaluated(kb, tmp_path, engine.map) == here
    counts = Counter(order.kind for order in engine.orders)
    assert counts == {"fold": 2, "repeat": 2, "baseline": 2, "few_shot": 2 * 2}  # 50 are all, as are 60
    assert len(set(engine.orders)) == len(engine.orders)
    elsewhere._loaded.cache_clear()


def test_without_heads_nothing_is_trained_elsewhere_but_probes(
    make_kb: Callable[..., Path], tmp_path: Path
) -> None:
    """The same metrics."""
    kb = make_kb()
    localize(kb, Localize(k=5))
    here = evaluated(kb, tmp_path, None)
    engine = Elsewhere(seed=4)
    assert evaluated(kb, tmp_path, engine.map) == here
    assert {(order.kind, order.method) for order in engine.orders} == {("few_shot", "probe")}
