"""MSR-VTT: 10,000 clips of web videos, used for recognition of its 20 categories, not for retrieval."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data.benchmarks.layout import (
    keep_present,
    missing_note,
    note_label,
    read_csv,
    read_json,
    require_count,
    require_file,
    require_folder,
)
from data.benchmarks.record import Benchmark, Imported, Paper, Wanted
from data.benchmarks.splits import draw_val
from data.errors import ManifestError
from data.paths import slug
from data.sample import Category, Sample, Split

# `category.txt` of the official package, slashes replaced by "and", by number from 0 on.
NAMES = (
    "music", "people", "gaming", "sports and actions", "news, events and politics", "education", "TV shows",
    "movies and comedy", "animation", "vehicles and autos", "how-to", "travel", "science and technology",
    "animals and pets", "kids and family", "documentary", "food and drink", "cooking", "beauty and fashion",
    "advertisement",
)  # fmt: skip
VARIANTS = ("full", "1k-a")
CLIPS: dict[str, dict[Split, int]] = {
    "full": {"train": 6_513, "val": 497, "test": 2_990},
    "1k-a": {"train": 9_000, "test": 1_000},
}
_SPLITS: dict[str, Split] = {"train": "train", "validate": "val", "test": "test"}
_LISTS = ("MSRVTT_data.json", "videodatainfo.json", "train_val_videodatainfo.json")
_HOMES = ("", "annotation/", "MSRVTT/", "msrvtt_data/")
_VIDEOS = ("videos/all", "videos", "MSRVTT_Videos", "TrainValVideo", "video")


def read_msrvtt(root: Path, wanted: Wanted) -> Imported:
    """Import the full split or 1k-A. Raises ManifestError for another layout or missing clips."""
    variant = wanted.variant or VARIANTS[0]
    category_of, official = _videos(root)
    lists, split_of = (
        _jsfusion(root) if variant == "1k-a" else (require_file(root, *_places(_LISTS), what="it"), official)
    )
    here = _video_places(root)
    uris: dict[str, tuple[Split, str]] = {}
    for video, split in split_of.items():
        if split == "test" or wanted.train:
            if video not in category_of:
                raise ManifestError(f"{lists}: expected videos of the benchmark; found {video!r}")
            name = NAMES[category_of[video]]
            uris[here.get(f"{video}.mp4", f"{next(iter(_folders(root)))}/{video}.mp4")] = (split, slug(name))
    kept = keep_present(root, list(uris), listed_in=lists, partial=wanted.partial, what="clips")
    samples = [Sample(uri, "video", uri, uris[uri][0], uris[uri][1]) for uri in sorted(kept)]
    for split, expected in CLIPS[variant].items():
        if split == "test" or wanted.train:
            found = sum(each == split for each in split_of.values())
            require_count(lists, found, expected, f"{split} clips", partial=wanted.partial)
    if variant == "1k-a":  # it has no val split
        samples = draw_val(samples)
    used = {sample.category_id for sample in samples}
    categories = tuple(Category(slug(n), n) for n in NAMES if not wanted.partial or slug(n) in used)
    return Imported(tuple(samples), categories, missing_note(len(uris), len(kept), "clips"))


def _places(names: tuple[str, ...]) -> list[str]:
    return [f"{home}{name}" for name in names for home in _HOMES]


def _videos(root: Path) -> tuple[dict[str, int], dict[str, Split]]:
    """Each video's category number and official split, by video id, in the order of the list."""
    listed = require_file(root, *_places(_LISTS), what="the list of the videos")
    lists = [listed]
    if listed.name == "train_val_videodatainfo.json":  # the 2017 challenge has two files
        lists.append(
            require_file(listed.parent, "test_videodatainfo.json", what="the list of the test videos")
        )
    entries: dict[str, tuple[int, Split]] = {}
    for path in lists:
        content = read_json(path)
        videos = content.get("videos") if isinstance(content, dict) else None
        if not isinstance(videos, list) or not videos:
            raise ManifestError(f"{path}: expected an object with a list 'videos'; found none")
        for video in videos:
            name, category, split = _entry(video, path)
            note_label(entries, name, (category, split), path)
    return (
        {name: category for name, (category, _) in entries.items()},
        {name: split for name, (_, split) in entries.items()},
    )


def _entry(video: Any, path: Path) -> tuple[str, int, Split]:
    entry = video if isinstance(video, dict) else {}
    name, category, split = (entry.get(key) for key in ("video_id", "category", "split"))
    if not isinstance(name, str) or split not in _SPLITS or type(category) is not int:
        raise ManifestError(
            f"{path}: expected video_id, category (0 to 19) and split (train, validate, test) of every video;"
            f" found {str(video)[:80]}"
        )
    if not 0 <= category < len(NAMES):
        raise ManifestError(f"{path}: expected a category from 0 to 19; {name} has {category}")
    return name, category, _SPLITS[split]


def _jsfusion(root: Path) -> tuple[Path, dict[str, Split]]:
    """The 1k-A split: 1,000 videos of JSFusion's list are test, the 9,000 of `MSRVTT_train.9k.csv` train."""
    test = require_file(root, *_places(("MSRVTT_JSFUSION_test.csv",)), what="the test list of the split 1k-A")
    train = require_file(root, *_places(("MSRVTT_train.9k.csv",)), what="the train list of the split 1k-A")
    split_of: dict[str, Split] = {row["video_id"]: "train" for row in read_csv(train, ("video_id",))}
    return test, split_of | {row["video_id"]: "test" for row in read_csv(test, ("video_id",))}


def _folders(root: Path) -> list[str]:
    found = [place for place in (*_VIDEOS, "TestVideo") if (root / place).is_dir()]
    if not found:
        require_folder(root, *_VIDEOS, what="the videos")
    return found


def _video_places(root: Path) -> dict[str, str]:
    """The uri of each video, by file name: the official archives unpack into several folders."""
    return {
        path.name: f"{place}/{path.name}" for place in _folders(root) for path in (root / place).glob("*.mp4")
    }


MSRVTT = Benchmark(
    name="msr-vtt",
    title="MSR-VTT",
    modality="video",
    classes=len(NAMES),
    paper=Paper(31.27, 40.90, 63.81, 69.53, base="ImageBind-huge"),
    licence="research use; the videos belong to their owners",
    home="https://www.microsoft.com/en-us/research/publication/"
    "msr-vtt-a-large-video-description-dataset-for-bridging-video-and-language/",
    layout="videos/all/video0.mp4 (or videos, TrainValVideo and TestVideo) and MSRVTT_data.json"
    " (or videodatainfo.json); for 1k-A also MSRVTT_JSFUSION_test.csv and MSRVTT_train.9k.csv",
    split_rule="full: the official 6,513 / 497 / 2,990; 1k-a: 1,000 test, 9,000 train (val = 10% drawn from"
    " each category of train). The paper does not say which it used",
    metric_rule="top-1 over all test clips, among the 20 categories",
    read=read_msrvtt,
    variants=VARIANTS,
)
