"""Build the sample world: 24 categories of objects, seven samples of each, a manifest and a category list.

    <folder>/manifest.parquet                  written last
    <folder>/categories.csv
    <folder>/media/<object id>/image.png  audio.wav  point.ply  thermal.tiff  video.mp4  event.bin  text.txt
                               object.json     the object's record, and the SHA-256 of every file beside it

An object is rendered in a hidden folder that is renamed when it is whole, so a folder under `media` is
always complete; one whose record and hashes still agree is not made again. The bits depend on the settings
alone, not on the number of workers or on the order of work.
"""

from __future__ import annotations

import csv
import json
import logging
import multiprocessing
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

from tqdm import tqdm

from data.environment import KEEP_MEMORY, ONE_THREAD, cores, environment
from data.errors import ProjectError, UniBindError
from data.files import atomic_path, hash_file, hash_json, write_json
from data.manifest.read import write_manifest
from data.modality import Modality
from data.sample import Category, Sample
from data.tabletop.materials import MATERIALS
from data.tabletop.notes import category_note, part_number
from data.tabletop.objects import SHAPES, ObjectSpec, category_pairs, draw_object, split_of
from data.tabletop.settings import TabletopSettings, check_settings

# Part of every object's fingerprint: raise it whenever the same settings should give other files.
WORLD_VERSION = "1"

FILES: dict[Modality, str] = {
    "image": "image.png",
    "text": "text.txt",
    "audio": "audio.wav",
    "point": "point.ply",
    "thermal": "thermal.tiff",
    "video": "video.mp4",
    "event": "event.bin",
}
_RECORD = "object.json"
_log = logging.getLogger(__name__)


def build_world(folder: Path, settings: TabletopSettings, *, workers: int | None = None) -> Path:
    """Create the sample world under `folder`, or its missing parts, and return the path of its manifest.

    `workers` processes render (default: one per core). Raises ProjectError for settings out of bounds, and
    UniBindError where the folder cannot be written or the disk is full; running it again then continues.
    """
    check_settings(settings)
    if workers is not None and workers < 1:
        raise ProjectError(f"workers = {workers}: at least one worker is needed")
    media = folder / "media"
    specs = [
        draw_object(material.name, shape, index=index, seed=settings.seed)
        for material in MATERIALS
        for shape in SHAPES
        for index in range(settings.objects_per_category)
    ]
    with _clear_disk_errors(folder):
        media.mkdir(parents=True, exist_ok=True)
        missing = [spec for spec in specs if not is_complete(spec, settings, media)]
        _log.info("sample world: %d of %d objects to make in %s", len(missing), len(specs), folder)
        _render_all(missing, settings, media, workers=workers or cores())
        os.sync()  # one sync for thousands of small files; the manifest must not outlive them in a power cut
        listed = categories(settings)
        _write_categories(folder / "categories.csv", listed)
        manifest = folder / "manifest.parquet"
        write_manifest(manifest, _samples(specs, settings), categories=listed)
    return manifest


def is_complete(spec: ObjectSpec, settings: TabletopSettings, media: Path) -> bool:
    """Whether an object's folder has all of its files, intact, as these settings define them."""
    home = media / spec.object_id
    try:
        record = json.loads((home / _RECORD).read_text(encoding="utf-8"))
        return bool(
            record["fingerprint"] == _fingerprint(spec, settings)
            and record["sha256"] == {name: hash_file(home / name) for name in sorted(FILES.values())}
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return False


def render_object(spec: ObjectSpec, *, settings: TabletopSettings, media: Path) -> str:
    """Render one object into `<media>/<object id>` and return its id. Whole or not at all."""
    # Imported here: the parent process, which only hands out work, needs neither Embree nor FFmpeg.
    from data.tabletop.events import write_events
    from data.tabletop.notes import write_note
    from data.tabletop.picture import write_picture
    from data.tabletop.scan import write_scan
    from data.tabletop.scene import solid_of
    from data.tabletop.sound import write_sound
    from data.tabletop.thermal import write_thermal
    from data.tabletop.video import SECONDS, film, write_video

    home, place = media / spec.object_id, media / f".{spec.object_id}.tmp"
    shutil.rmtree(place, ignore_errors=True)  # left by a killed run
    place.mkdir()
    try:
        solid = solid_of(spec)
        write_picture(spec, solid, place / FILES["image"], side=settings.image_px)
        write_note(spec, place / FILES["text"])
        write_sound(spec, place / FILES["audio"])
        write_scan(spec, place / FILES["point"], count=settings.points)
        write_thermal(spec, solid, place / FILES["thermal"])
        filmed = film(spec, solid, side=settings.video_px, frames=settings.video_frames)
        write_video(filmed.frames_FHW3, place / FILES["video"])
        write_events(spec, filmed.light_FHW, place / FILES["event"], seconds=SECONDS)
        record = {
            "fingerprint": _fingerprint(spec, settings),
            "object": asdict(spec),
            "sha256": {name: hash_file(place / name) for name in sorted(FILES.values())},
        }
        write_json(place / _RECORD, record)
        if home.exists():
            shutil.rmtree(home)
        place.rename(home)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return spec.object_id


def _fingerprint(spec: ObjectSpec, settings: TabletopSettings) -> str:
    rendering = asdict(settings)
    del rendering["objects_per_category"]  # more objects do not change the existing ones
    del rendering["names"]  # an object is the same by any name
    return hash_json({"version": WORLD_VERSION, "object": spec, "rendering": rendering})


def _render_all(specs: list[ObjectSpec], settings: TabletopSettings, media: Path, *, workers: int) -> None:
    if not specs:
        return
    work = partial(render_object, settings=settings, media=media)
    with (
        _for_children(),
        ProcessPoolExecutor(
            min(workers, len(specs)),
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_die_with_parent,
        ) as pool,
        tqdm(total=len(specs), desc="tabletop objects", unit="object", disable=None) as bar,
    ):
        futures = [pool.submit(work, spec) for spec in specs]
        try:
            for future in as_completed(futures):
                future.result()
                bar.update()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _die_with_parent() -> None:
    """End this worker as soon as its parent process has ended, even if that was killed.

    A worker that outlives a killed run would wait for work for ever, and interfere with the next run.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _for_children() -> AbstractContextManager[None]:
    """Make numeric libraries of processes started within use one thread each, and keep their memory.

    Workers then do not compete for cores, and sums are always added in the same order: the same bits.
    """
    return environment(ONE_THREAD | KEEP_MEMORY)


@contextmanager
def _clear_disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UniBindError(
            f"cannot write the sample world to {folder}: {error.strerror or error}; "
            "free some space or give another folder, then run it again: finished objects are kept"
        ) from error
    except BrokenProcessPool as error:
        raise UniBindError(
            f"a worker process for the sample world in {folder} was killed, perhaps by the OOM killer; "
            "run it again: finished objects are kept"
        ) from error


def _samples(specs: list[ObjectSpec], settings: TabletopSettings) -> list[Sample]:
    """Seven samples an object, sorted by object id."""
    count = settings.objects_per_category
    return [
        Sample(
            sample_id=f"{spec.object_id}/{modality}",
            modality=modality,
            uri=f"media/{spec.object_id}/{name}",
            split=split_of(spec, count=count),
            category_id=spec.category_id,
            object_id=spec.object_id,
        )
        for spec in sorted(specs, key=lambda spec: spec.object_id)
        for modality, name in FILES.items()
    ]


def categories(settings: TabletopSettings) -> tuple[Category, ...]:
    """The 24 categories, in the order of their ids: by their names, or by part numbers with notes."""
    if settings.names == "codes":
        return tuple(
            Category(
                f"{material}-{shape}", part_number(material, shape), notes=category_note(material, shape)
            )
            for material, shape in category_pairs()
        )
    return tuple(
        Category(f"{material}-{shape}", f"{material} {shape}") for material, shape in category_pairs()
    )


def _write_categories(path: Path, listed: Sequence[Category]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        noted = any(one.notes for one in listed)
        writer.writerow(("category_id", "name", "notes") if noted else ("category_id", "name"))
        writer.writerows(
            (one.category_id, one.name, one.notes) if noted else (one.category_id, one.name) for one in listed
        )
