"""Controls: texts that stand in for the centers, to show what the centers owe to what.

- `class_name`: the bare name, one text;
- `templates`: the name in prompt templates (a prompt ensemble as in Radford et al., 2021, section 3.1.4);
- `notes`: the category's notes as they are, one text, where the list of categories has any (else the name);
- `name_free`: each description without the name (`kb_builder/describe/name_free.py` makes them), to stand for
  it in the evaluation without class names;
- `random_words`: `a photo of a NAME, which has ...` followed by random words or random letters, in turns
  (Roth et al., "Waffling around for Performance", ICCV 2023). Every category gets the same draws, so two
  categories differ in the name only.

The others know a category by its name alone, and each category has as many of them as centers. A knowledge
base is useful if its centers are more accurate than these. The control `permuted` needs no texts:
the trainer gives each category another's centers.
"""

from __future__ import annotations

import hashlib
import string
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import InputError
from data.files import hash_json
from data.reads import names
from kb_builder.tables.schemas import CATEGORIES, CONTROLS, read_columns, write_table

NAME_FREE = "name_free"
_FEWEST = 64  # texts per category and control, where a category has as many descriptions
WORDS_PER_TEXT = 2
LETTERS_PER_WORD = 6
# Kinds of record. The first 16 templates are these without a manner, place or time, so that a small count
# already covers every modality.
_RECORDS = (
    "photo",
    "sound recording",
    "3D scan",
    "thermal picture",
    "video",
    "event-camera recording",
    "picture",
    "short text",
    "close-up",
    "point cloud",
    "recording",
    "heat image",
    "film clip",
    "drawing",
    "rendering",
    "view",
)
_MANNERS = ("", "clear ", "blurry ", "good ", "poor ", "typical ", "plain ", "noisy ")
_PLACES = (
    "",
    " indoors",
    " outdoors",
    " nearby",
    " far away",
    " in a corner",
    " on the left",
    " on the right",
)
_TIMES = (
    "",
    " by day",
    " at night",
    " in the morning",
    " in spring",
    " in summer",
    " in autumn",
    " in winter",
)
TEMPLATES: tuple[str, ...] = tuple(
    f"{'an' if (manner + record)[0] in 'aeiou' else 'a'} {manner}{record} of {{a}} {{name}}{place}{time}"
    for time in _TIMES
    for place in _PLACES
    for manner in _MANNERS
    for record in _RECORDS
)
# Everyday English words, chosen for this project; none is meant to describe a category.
_WORDS = """
account action advice afternoon agreement amount answer argument arrival attempt autumn average balance
bargain beginning belief benefit birthday border bottom branch breakfast budget business candidate capital
career century chance chapter charge choice circle climate climb comfort committee company concert contest
contract copy corner council couple courage course credit crowd culture custom damage daughter debate
decade decision degree delay demand departure deposit desire detail dinner direction discount distance
district doubt dream duty economy editor effort election emphasis entry error evening event exam example
excuse exercise expense expert factor failure faith fashion favour fiction finding fortune freedom friend
future gain gallery gesture goal gossip grade grammar growth guess guest guide habit harvest height
history holiday honour hope hour idea income industry inquiry instance interest interview invention
invitation island issue journal journey judge justice kindness knowledge labour language laughter lawyer
leader league lecture legend lesson letter level limit list loan lunch luck manner market marriage match
matter meaning measure meeting member memory message method middle minute mistake moment month morning
motion motive nation neighbour network notice number object occasion offer office opinion option order
origin outcome owner package parade parent partner passage patience payment pension people period
permission person phase phrase plan player plenty policy position poster power practice praise presence
price pride prize problem process product profit program project promise proof purpose quality quarter
question quota rating reaction reason receipt record reform region relief remark rent reply report request
rescue resort respect result return reward rhythm rival routine rumour salary sample savings scheme school
season secret section sentence series service session share shift signal silence skill society solution
source speech spirit standard statement station status story strategy student study style subject success
summer supper survey symbol system talent target teacher tenant term theory thought title topic total tour
trade tradition trial trip trust truth tutor union unit update vacation value version victory village
visit vote voyage wage week welcome wish witness wonder worker world writer year youth zone
"""
WORDS: tuple[str, ...] = tuple(_WORDS.split())


def most_controls(k: int | Literal["all"]) -> int:
    """How many control texts per category there are at most, for up to `k` centers.

    In steps (64, 128, ...): another k takes the first of the same texts, which are encoded already.
    """
    return len(TEMPLATES) if k == "all" or k > len(TEMPLATES) else max(_FEWEST, 1 << (k - 1).bit_length())


def control_count(kb: Path, k: int | Literal["all"]) -> int:
    """How many control texts each category is to have: as many as may become centers of any one category."""
    return min(most_controls(k), _most_descriptions(kb))


class NameFree(NamedTuple):
    """A description without its category's name, and the row that it stands for."""

    category_id: str
    row_id: str
    text: str


def write_controls(
    kb: Path,
    *,
    count: int | Literal["all"],
    seed: int,
    name_free: Iterable[NameFree] = (),
    before: Callable[[], None] | None = None,
) -> dict[str, int]:
    """Write `controls.parquet`: `count` texts per category and control (one for `class_name`).

    `all` is as many as the category with the most valid descriptions has, which all become centers. Depends
    on the categories' names and notes, the count, `seed` and the `name_free` texts, which are all written.
    With `before`, a file that holds these texts already stays as it is, and any other is replaced after a
    call of `before`. Returns the number of texts of each control. Raises InputError where the count is below
    one or above the number of templates.
    """
    n = _most_descriptions(kb) if count == "all" else count
    if not 1 <= n <= len(TEMPLATES):
        raise InputError(
            f"controls of {n} texts per category: between 1 and {len(TEMPLATES)} can be made; "
            "set localize.k accordingly"
        )
    categories = read_columns(
        kb / "categories.parquet",
        ["category_id", "name"],
        hint="unibind ingest",
        optional=[CATEGORIES.field("notes")],
    ).to_pylist()
    noises = random_descriptors(n, seed=seed)
    noted = any(category["notes"] for category in categories)
    rows = [
        _row(control, category["category_id"], rank, text)
        for category in categories
        for control, texts in {
            **_texts(category["name"], n, noises),
            **({"notes": [category["notes"] or category["name"]]} if noted else {}),
        }.items()
        for rank, text in enumerate(texts)
    ]
    places: Counter[str] = Counter()
    for each in name_free:
        rows.append(_name_free_row(each, places[each.category_id]))
        places[each.category_id] += 1
    rows.sort(key=lambda row: (row["control"], row["category_id"], row["rank"]))
    path = kb / "controls.parquet"
    if before is None or not _holds(path, rows):
        if before is not None:
            before()
        write_table(path, rows, CONTROLS)
    return dict(sorted(Counter(str(row["control"]) for row in rows).items()))


def _holds(path: Path, rows: list[dict[str, Any]]) -> bool:
    """Whether a table has exactly these rows; False also where it is missing or damaged."""
    try:
        found: list[dict[str, Any]] = pq.ParquetFile(path).read().to_pylist()
    except (pa.ArrowException, OSError):
        return False
    return found == rows


def _most_descriptions(kb: Path) -> int:
    """How many valid descriptions the category with the most of them has; 1 where there are none."""
    return max(ok_counts(kb).values(), default=1)


def ok_counts(kb: Path) -> Counter[str]:
    """How many valid descriptions each category has, by its id."""
    counts: Counter[str] = Counter()
    for file in names(kb / "descriptions" / "category", "*.parquet"):
        rows = read_columns(file, ["category_id", "status"], hint="unibind describe").to_pydict()
        owned = zip(rows["category_id"], rows["status"], strict=True)
        counts.update(owner for owner, status in owned if status == "ok")
    return counts


def random_descriptors(count: int, *, seed: int) -> list[str]:
    """`count` different descriptors: word pairs and letter pairs in turns, the same for the same seed.

    Drawn by SHA-256 rather than by a library's generator, whose stream may change between versions.
    """
    found: dict[str, None] = {}
    attempt = 0
    while len(found) < count:
        of_words = len(found) % 2 == 0
        place = f"{seed}/{attempt}"
        parts = [
            WORDS[_draw(f"{place}/{part}", len(WORDS))]
            if of_words
            else "".join(
                string.ascii_lowercase[_draw(f"{place}/{part}/{letter}", 26)]
                for letter in range(LETTERS_PER_WORD)
            )
            for part in range(WORDS_PER_TEXT)
        ]
        found[(" " if of_words else ", ").join(parts)] = None
        attempt += 1
    return list(found)


def _texts(name: str, count: int, noises: list[str]) -> dict[str, list[str]]:
    article = "an" if name[:1].casefold() in set("aeiou") else "a"
    return {
        "class_name": [name],
        # A name may hold braces: replace, not format.
        "templates": [
            template.replace("{a}", article).replace("{name}", name) for template in TEMPLATES[:count]
        ],
        "random_words": [f"a photo of {article} {name}, which has {noise}." for noise in noises],
    }


def _row(control: str, category_id: str, rank: int, text: str) -> dict[str, Any]:
    return {
        "row_id": hash_json([control, category_id, rank, text]),
        "control": control,
        "category_id": category_id,
        "rank": rank,
        "text": text,
    }


def _name_free_row(each: NameFree, rank: int) -> dict[str, Any]:
    return {
        "row_id": hash_json([NAME_FREE, each.category_id, each.row_id, each.text]),
        "control": NAME_FREE,
        "category_id": each.category_id,
        "rank": rank,
        "text": each.text,
        "stands_for": each.row_id,
    }


def _draw(place: str, n: int) -> int:
    """A number in 0 ... n - 1; the bias of the remainder is below n / 2**64."""
    return int.from_bytes(hashlib.sha256(place.encode()).digest()[:8], "big") % n
