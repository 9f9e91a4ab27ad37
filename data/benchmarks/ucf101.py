"""UCF-101: 13,320 clips of 101 actions, three official splits (Soomro et al., 2012)."""

from __future__ import annotations

import re
from pathlib import Path

from data.benchmarks.layout import (
    keep_present,
    known_or_refuse,
    missing_note,
    note_label,
    read_lines,
    require_count,
    require_file,
    require_folder,
)
from data.benchmarks.record import Benchmark, Imported, Paper, Wanted
from data.benchmarks.splits import draw_val
from data.paths import slug
from data.sample import Category, Sample, Split

CLASSES, FOLDS = 101, 3
# Clips of the test and train lists of splits 1, 2 and 3.
COUNTS: dict[Split, tuple[int, int, int]] = {"test": (3783, 3734, 3696), "train": (9537, 9586, 9624)}
_LISTS: dict[Split, str] = {"test": "testlist", "train": "trainlist"}
_HOMES = ("ucfTrainTestlist/", "UCF101TrainTestSplits-RecognitionTask/ucfTrainTestlist/", "")


def read_ucf101(root: Path, wanted: Wanted) -> Imported:
    """Import one split. Raises ManifestError for another layout or missing clips."""
    fold = wanted.fold or 1
    videos = require_folder(root, "UCF-101", what="the class folders of clips").name
    named = require_file(root, *(f"{home}classInd.txt" for home in _HOMES), what="the list of the actions")
    classes = [line.split(" ")[-1] for line in read_lines(named)]  # "1 ApplyEyeMakeup"
    require_count(named, len(classes), CLASSES, "actions", partial=wanted.partial)
    samples: list[Sample] = []
    notes: tuple[str, ...] = ()
    for split, name in _LISTS.items():
        if split == "train" and not wanted.train:
            continue
        places = [f"{home}{name}{fold:02d}.txt" for home in _HOMES]
        listed = require_file(root, *places, what=f"the {split} list of split {fold}")
        uris: dict[str, str] = {}
        for line in read_lines(
            listed
        ):  # "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1"; no number in test lists
            clip = line.split(" ")[0]
            action = known_or_refuse(clip.partition("/")[0], classes, listed, "actions")
            note_label(uris, f"{videos}/{clip}", action, listed)
        require_count(listed, len(uris), COUNTS[split][fold - 1], f"{split} clips", partial=wanted.partial)
        kept = keep_present(root, list(uris), listed_in=listed, partial=wanted.partial, what="clips")
        samples += [
            Sample(uri, "video", uri, split, slug(action_name(uris[uri])), object_id=_group(uri))
            for uri in kept
        ]
        notes += missing_note(len(uris), len(kept), f"{split} clips")
    used = {sample.category_id for sample in samples}
    names = [action_name(action) for action in classes]
    categories = tuple(Category(slug(n), n) for n in names if not wanted.partial or slug(n) in used)
    return Imported(tuple(draw_val(samples)), categories, notes)


def action_name(label: str) -> str:
    """`ApplyEyeMakeup` is called "apply eye makeup"."""
    return " ".join(re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z]*|[a-z]+|\d+", label)).lower()


def _group(uri: str) -> str:
    """The group of a clip, `v_ApplyEyeMakeup_g08`: clips of a group come from the same video."""
    return uri.rpartition("/")[2].rpartition("_")[0]


UCF101 = Benchmark(
    name="ucf-101",
    title="UCF-101",
    modality="video",
    classes=CLASSES,
    paper=Paper(64.84, 73.74, 98.06, 93.31, base="ImageBind-huge"),
    licence="none is stated; the videos were gathered from the web",
    home="https://www.crcv.ucf.edu/data/UCF101.php",
    layout="UCF-101/ApplyEyeMakeup/v_*.avi and ucfTrainTestlist/{classInd,trainlist01,testlist01}.txt",
    split_rule="three official splits (val = 10% of each class of train, whole groups); zero-shot: the test"
    " list of split 1",
    metric_rule="top-1; over the splits their mean",
    read=read_ucf101,
    folds=FOLDS,
    fold_needed=True,
)
