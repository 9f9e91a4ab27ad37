"""A project that was edited and run again is what a fresh run of the same project is, to the byte."""

from __future__ import annotations

import copy
import hashlib
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data.files import hash_file, hash_json

World = Any  # as conftest.py has it
Run = Callable[[World, Path], Any]
Edit = Callable[[random.Random, World, Path], str | None]

# Of every section some settings, each with the values that it takes in turns; None leaves it out.
SETTINGS: dict[str, dict[str, list[Any]]] = {
    "": {"seed": [1, 2]},
    "describe.categories": {
        "n": [3, 2, 4],
        "temperature": [None, 0.5],
        "near_jaccard": [None, 0.3],
        "contrast_pairs": [None, 0, 2],
        "contrast_texts": [2, 3],
        "shard_categories": [None, 2],
        "language": [None, "off"],
        "budget_usd": [None, 5.0],
    },
    "describe.samples": {
        "describer": ["facts", "fake", "none"],
        "shard_samples": [None, 9],
        "max_tokens": [None, 60],
    },
    "encode": {
        "dtype": [None, "float32"],
        "zero_shot": ["same", "off"],
        "batch_size": [None, 3],
        "samples": ["same", "imported:x"],
    },
    "localize": {
        "k": [3, 1, 2, "all"],
        "rule": [None, "text", "name", "diverse", "distinct"],
        "guide": [None, "val", "train+val"],
        "with_name": [None, True],
        "texts": [None, 2],
        "nearest_samples": [None, 1],
    },
    "train": {
        "enabled": [None, False],
        "epochs": [2, 3],
        "head": [None, "residual"],
        "start": [None, "ridge"],
        "loss": [None, "sigmoid"],
        "center_weight": [None, 0.2],
        "modalities": [None, ["image"]],
        "batch_size": [None, 4],
    },
    "evaluate": {
        "scorer": [None, "mean"],
        "bootstrap": [10, 20],
        "probe": [False, True],
        "baselines": [False, True],
        "sweeps": [False, True],
        "few_shot": [[], [1]],
    },
}


def _label(draw: random.Random, world: World, _: Path) -> None:
    draw.choice(world.rows)["category"] = draw.choice(["", *(each["name"] for each in world.categories)])


def _split(draw: random.Random, world: World, _: Path) -> None:
    draw.choice(world.rows)["split"] = draw.choice(["train", "val", "test"])


def _all_labels(draw: random.Random, world: World, _: Path) -> None:
    """Every label one further: with rules that look at no sample, the centers stay the same bytes."""
    names = [each["name"] for each in world.categories]
    for row in world.rows:
        if row["category"] in names:
            row["category"] = names[(names.index(row["category"]) + 1) % len(names)]


def _remove_row(draw: random.Random, world: World, _: Path) -> None:
    if len(world.rows) > 16:
        world.rows.remove(draw.choice(world.rows))


def _add_row(draw: random.Random, world: World, _: Path) -> None:
    number = draw.randrange(10**6)
    c = draw.randrange(4)
    row = {"sample_id": f"{c}-{number}-image", "uri": f"media/{c}-{number}.bmp", "modality": "image"}
    row |= {"category": world.categories[c]["name"], "split": draw.choice(["train", "test"])}
    world.files[row["uri"]] = world.picture(number, c)
    world.rows.insert(
        draw.randrange(len(world.rows)), {**row, "object_id": f"{c}-{number}", "description": ""}
    )


def _replace_file(draw: random.Random, world: World, folder: Path) -> None:
    """A file of the same size and the same time of change in place of another."""
    uri = draw.choice([row["uri"] for row in world.rows])
    path, old = folder / uri, world.files[uri]
    new = world.picture(draw.randrange(10**6), draw.randrange(4)) if uri.endswith(".bmp") else old[::-1]
    world.files[uri] = new
    before = path.stat()
    path.write_bytes(new)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _spoil_file(draw: random.Random, world: World, _: Path) -> None:
    uri = draw.choice([row["uri"] for row in world.rows if row["modality"] == "image"])
    world.files[uri] = draw.choice([b"", b"no picture", world.files[uri][:500]])


def _restore_file(draw: random.Random, world: World, _: Path) -> None:
    for row in world.rows:
        if row["uri"].endswith(".bmp") and len(world.files.get(row["uri"], b"")) < 1000:
            world.files[row["uri"]] = world.picture(draw.randrange(10**6), 1)
            return


def _lose_file(draw: random.Random, world: World, _: Path) -> None:
    world.files.pop(draw.choice(world.rows)["uri"], None)


def _describe(draw: random.Random, world: World, _: Path) -> None:
    draw.choice(world.rows)["description"] = draw.choice(["", "a fine one", "one more, by the water"])


def _object(draw: random.Random, world: World, _: Path) -> None:
    draw.choice(world.rows)["object_id"] = draw.choice(["", "0-0", "new"])


def _order(draw: random.Random, world: World, _: Path) -> None:
    draw.shuffle(world.rows)


def _rename_category(draw: random.Random, world: World, _: Path) -> None:
    category = draw.choice(world.categories)
    old, new = (
        category["name"],
        f"{draw.choice(['grey', 'tall', 'wet'])} {draw.choice(['wolf', 'elm', 'lake'])}",
    )
    if all(each["name"] != new for each in world.categories):
        category["name"] = new
        for row in world.rows:
            row["category"] = new if row["category"] == old else row["category"]


def _notes(draw: random.Random, world: World, _: Path) -> None:
    draw.choice(world.categories)["notes"] = draw.choice(["", "lives in the north", "is green"])


def _aliases(draw: random.Random, world: World, _: Path) -> None:
    draw.choice(world.categories)["aliases"] = draw.choice(["", "vulpes", "old one|big one"])


def _more_categories(draw: random.Random, world: World, _: Path) -> None:
    if len(world.categories) == 4:
        world.categories.append({"category_id": "c4", "name": "blue jay", "aliases": "", "notes": ""})
    else:
        for row in world.rows:
            row["category"] = "" if row["category"] == world.categories[4]["name"] else row["category"]
        del world.categories[4]


def _weights(draw: random.Random, world: World, folder: Path) -> None:
    world.exchange_weights(draw.choice(["one", "two"]), draw.randrange(10**6))


def _encoder(draw: random.Random, world: World, folder: Path) -> None:
    encode = world.settings["encode"]
    model = f"clip:{world.models / draw.choice(['one', 'two'])}"
    for role in ("text", "samples", "zero_shot"):
        if encode.get(role, "off") not in {"off", "imported:x"}:
            encode[role] = model


def _imported(draw: random.Random, world: World, _: Path) -> None:
    world.imported = draw.randrange(10**6)
    world.settings["encode"]["samples"] = "imported:x"


def _setting(draw: random.Random, world: World, _: Path) -> str:
    section = draw.choice([name for name in SETTINGS for _ in SETTINGS[name]])
    key = draw.choice(list(SETTINGS[section]))
    value = draw.choice(SETTINGS[section][key])
    if value == "same":
        value = world.settings["encode"]["text"]
    if value is None:
        world.settings[section].pop(key, None)
    else:
        world.settings[section][key] = value
    return f"{section}.{key} = {value!r}"


def _lose_output(draw: random.Random, world: World, folder: Path) -> str:
    path = draw.choice(_outputs(folder))
    path.unlink()
    return str(path.relative_to(folder))


def _spoil_output(draw: random.Random, world: World, folder: Path) -> str:
    """One byte of an output is another, and its time of change is the same."""
    path = draw.choice(_outputs(folder))
    content, before = bytearray(path.read_bytes()), path.stat()
    content[draw.randrange(len(content))] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return str(path.relative_to(folder))


def _lose_heads(draw: random.Random, world: World, folder: Path) -> None:
    (folder / "runs/p/heads.safetensors").unlink(missing_ok=True)


def _outputs(folder: Path) -> list[Path]:
    """What a run wrote; but the ledger, which holds what was paid for, and what was imported."""
    found = sorted(path for path in (folder / "runs/p").rglob("*") if path.is_file() and path.stat().st_size)
    return [
        path
        for path in found
        if not path.name.startswith(("ledger", "run.lock")) and "imported-x" not in str(path)
    ]


EDITS: tuple[tuple[Edit, int], ...] = (
    (_label, 3),
    (_all_labels, 1),
    (_split, 3),
    (_remove_row, 2),
    (_add_row, 2),
    (_replace_file, 3),
    (_spoil_file, 1),
    (_restore_file, 1),
    (_lose_file, 1),
    (_describe, 2),
    (_object, 1),
    (_order, 1),
    (_rename_category, 2),
    (_notes, 1),
    (_aliases, 1),
    (_more_categories, 1),
    (_weights, 2),
    (_encoder, 1),
    (_imported, 2),
    (_setting, 12),
    (_lose_output, 2),
    (_spoil_output, 2),
    (_lose_heads, 1),
)


def _state(world: World) -> str:
    """Worlds of one state are one project, of which one fresh run is enough."""
    files = {name: hashlib.sha256(content).hexdigest() for name, content in world.files.items()}
    models = {str(path): hash_file(path) for path in world.models.rglob("*") if path.is_file()}
    return hash_json([world.rows, world.categories, world.settings, world.imported, files, models])


def _edits(seed: int, count: int, world: World, run: Run, tmp_path: Path) -> None:
    draw = random.Random(seed)
    folder = tmp_path / "edited"
    fresh_runs = {_state(world): run(world, folder)}
    assert fresh_runs[_state(world)].error is None
    kinds = [edit for edit, weight in EDITS for _ in range(weight)]
    done: list[str] = []
    for number in range(count):
        before = copy.deepcopy(world)
        edit = draw.choice(kinds)
        told = edit(draw, world, folder)
        done.append(f"{edit.__name__}{f' ({told})' if told else ''}")
        again, state = run(world, folder), _state(world)
        if state not in fresh_runs:
            fresh_runs[state] = run(world, tmp_path / f"fresh-{number}")
        fresh = fresh_runs[state]
        what = f"seed {seed}, edits: {'; '.join(done)}"
        assert again.error == fresh.error, what
        assert sorted(again.files) == sorted(fresh.files), what
        for name in fresh.files:
            assert again.files[name] == fresh.files[name], f"{name} differs. {what}"
        if fresh.error is not None:  # a project that cannot be run: take the edit back
            world = before
            assert run(world, folder).error is None, what


def test_an_edited_project_is_what_a_fresh_run_gives(world: World, run: Run, tmp_path: Path) -> None:
    """25 random edits, one after the other: tables, vectors, centers, heads and numbers are equal."""
    _edits(1, 25, world, run, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 14))
def test_many_edited_projects_are_what_fresh_runs_give(
    seed: int, world: World, run: Run, tmp_path: Path
) -> None:
    """300 random edits."""
    _edits(seed, 25, world, run, tmp_path)
