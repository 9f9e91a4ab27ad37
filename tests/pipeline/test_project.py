"""The project file: read whole, all mistakes told at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from data.errors import ProjectError
from data.readers import FileBudget
from pipeline.project import load_project
from pipeline.run.jobs import STAGES

FULL = (Path(__file__).parents[2] / "demo.toml").read_text(encoding="utf-8")
MINIMAL = 'name = "x"\n[data]\nmanifest = "m.csv"\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "unibind.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_minimal_file_takes_every_default(tmp_path: Path) -> None:
    """Two keys are enough; paths are relative to the project file."""
    project = load_project(write(tmp_path, MINIMAL))
    assert project.manifest == tmp_path / "m.csv"
    assert project.data_root == tmp_path
    assert project.run == tmp_path / "runs" / "x"
    assert project.localize.k == 50


def test_the_seed_reaches_every_section_that_has_one(tmp_path: Path) -> None:
    """One seed at the top is enough, and a section may still name its own."""
    project = load_project(write(tmp_path, "seed = 7\n" + MINIMAL + "[train]\nseed = 9\n"))
    assert project.describe.categories.seed == 7
    assert project.evaluate.seed == 7
    assert project.tabletop.seed == 7
    assert project.train.seed == 9


def test_three_mistakes_are_told_at_once_each_with_its_key(tmp_path: Path) -> None:
    """A misspelt key, a wrong choice and a value out of range come in one message, with suggestions."""
    text = MINIMAL + '[describe.categories]\ndescriber = "opnai"\n[localize]\nkk = 5\nk = 0\n'
    with pytest.raises(ProjectError) as caught:
        load_project(write(tmp_path, text))
    message = str(caught.value)
    assert "3 mistakes" in message
    assert "describe.categories.describer" in message
    assert "did you mean 'openai'" in message
    assert "localize.kk: unknown key; did you mean `k`?" in message
    assert "localize.k:" in message


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name = \n", "not valid TOML"),
        ('[data]\nmanifest = "m.csv"\n', "name: missing"),
        ('name = "../x"\n[data]\nmanifest = "m.csv"\n', "name:"),
        ('name = "x"\ndata = 3\n', "data:"),
        ('name = "x"\nseed = "a"\n[data]\nmanifest = "m.csv"\n', "seed:"),
        (MINIMAL + '[encode]\nbatch_size = "many"\n', "encode.batch_size:"),
    ],
)
def test_a_wrong_file_is_refused_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    """Whatever is wrong, the message names the key or the line."""
    with pytest.raises(ProjectError, match=r"unibind\.toml") as caught:
        load_project(write(tmp_path, text))
    assert told in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_file_of_a_windows_editor(tmp_path: Path, encoding: str) -> None:
    """A byte-order mark and Windows' line endings are no mistake."""
    path = tmp_path / "unibind.toml"
    path.write_bytes(MINIMAL.replace("\n", "\r\n").encode(encoding))
    project = load_project(path)
    assert (project.name, project.manifest) == ("x", tmp_path / "m.csv")


@pytest.mark.parametrize("name", ["a" * 5000, "x\0y", "loop", "/dev/zero"])
def test_a_name_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    """A name too long, one with a NUL, a loop of links and an endless device are one line, too."""
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(ProjectError):
        load_project(tmp_path / name)


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    """Where there is no project file, `unibind init` is named."""
    with pytest.raises(ProjectError, match="unibind init"):
        load_project(tmp_path / "unibind.toml")


def test_off_says_what_toml_has_no_word_for(tmp_path: Path) -> None:
    """A setting whose default is a value can be switched off."""
    text = (
        MINIMAL
        + '[describe.categories]\nnear_cosine = "off"\nlanguage = "off"\n[encode]\nzero_shot = "off"\n'
    )
    project = load_project(write(tmp_path, text))
    assert project.describe.categories.near_cosine is None
    assert project.describe.categories.language is None
    assert project.describe.samples.language == "en"
    assert project.encode.zero_shot is None


def test_which_axis_is_up_is_one_of_four(tmp_path: Path) -> None:
    """By default each format says it; anything but an axis is refused."""
    assert load_project(write(tmp_path, MINIMAL)).data.up_axis is None
    assert load_project(write(tmp_path, MINIMAL + 'up = "auto"\n')).data.up_axis is None
    assert load_project(write(tmp_path, MINIMAL + 'up = "y"\n')).data.up_axis == "y"
    with pytest.raises(ProjectError, match=r"data\.up: 'up' is not"):
        load_project(write(tmp_path, MINIMAL + 'up = "up"\n'))


def test_reuse_reaches_both_describe_sections(tmp_path: Path) -> None:
    """`--reuse` changes nothing else, in no section."""
    project = load_project(write(tmp_path, MINIMAL + "[describe.categories]\nn = 7\n"))
    reusing = project.with_reuse()
    assert reusing.describe.categories.reuse
    assert reusing.describe.samples.reuse
    assert reusing.describe.categories.n == 7
    assert not project.describe.categories.reuse


@pytest.mark.parametrize(
    ("line", "told", "secret"),
    [
        ('base_url = ""', "leave it out for OpenAI", None),
        ('base_url = "localhost:8000/v1"', "must be an address", None),
        ('base_url = "http://127.0.0.1:99999/v1"', "must be an address", None),
        ('base_url = "http://me:pa55word@h/v1"', "no user name and no password", "pa55word"),
        ('api_key_env = "sk-planted-1"', "must be the name of an environment variable", "sk-planted-1"),
        ('price = { input = 1, output = 1, date = "yesterday" }', "Invalid isoformat", None),
    ],
)
def test_addresses_keys_and_dates_are_checked(
    tmp_path: Path, line: str, told: str, secret: str | None
) -> None:
    """A slip is told with its key before anything is sent, and nothing that may be a secret is repeated."""
    with pytest.raises(ProjectError, match=r"describe\.categories") as caught:
        load_project(write(tmp_path, MINIMAL + f"[describe.categories]\n{line}\n"))
    assert told in str(caught.value)
    assert secret is None or secret not in str(caught.value)


def test_a_date_may_be_one_of_toml(tmp_path: Path) -> None:
    """With and without quotation marks."""
    for given in ("2026-11-01", '"2026-11-01"'):
        text = f"[describe.categories]\nprice = {{ input = 1, output = 1, date = {given} }}\n"
        price = load_project(write(tmp_path, MINIMAL + text)).describe.categories.price
        assert price is not None
        assert price.date == "2026-11-01"


_ODD = (
    *("nan", "inf", "-1", "1e999", "9" * 30, "-0.0", "true", "2024-01-01", "12:00:00"),
    *('""', '"\\u0000"', '"\\u001b[31m"', f"'{'x' * 5000}'"),
    *("[]", "{}", "[[1]]", "{ a = { b = [1] } }", '["a", 1]', "[" * 300 + "]" * 300),
)


def _refused(path: Path) -> bool:
    """Whether a project file is refused by one error of ours that names it; other errors are raised."""
    try:
        load_project(path)
    except ProjectError as error:
        assert str(error).startswith(str(path))
        return True
    return False


@pytest.mark.parametrize("odd", _ODD, ids=lambda value: value[:12])
def test_an_odd_value_in_any_place_is_read_or_refused(tmp_path: Path, odd: str) -> None:
    """Each line of a full project file with another value: read, or one error that names the file."""
    lines = FULL.splitlines()
    for number, line in enumerate(lines):
        if " = " in line:
            key = line.partition(" = ")[0]
            _refused(write(tmp_path, "\n".join([*lines[:number], f"{key} = {odd}", *lines[number + 1 :]])))


def _damage(folder: Path, mutations: Callable[[bytes, int], Iterator[bytes]], number: int) -> int:
    assert not _refused(write(folder, FULL))
    refused = 0
    for copy in mutations(FULL.encode(), number):
        (folder / "unibind.toml").write_bytes(copy)
        refused += _refused(folder / "unibind.toml")
    return refused


def test_a_damaged_file_is_read_or_refused(
    tmp_path: Path, mutations: Callable[[bytes, int], Iterator[bytes]]
) -> None:
    """A few hundred damaged copies: no library's error comes through."""
    assert _damage(tmp_path, mutations, 300) > 200


@pytest.mark.slow
def test_many_damaged_files_are_read_or_refused(
    tmp_path: Path, mutations: Callable[[bytes, int], Iterator[bytes]]
) -> None:
    """The same, thousands of times."""
    assert _damage(tmp_path, mutations, 10_000) > 6_000


def test_unknown_aspects_are_refused(tmp_path: Path) -> None:
    """With the known ones, and none at all is a mistake too."""
    path = tmp_path / "unibind.toml"
    for aspects in ('["lock"]', "[]"):
        path.write_text(
            f'name = "x"\n[data]\nmanifest = "m.csv"\n[describe.categories]\naspects = {aspects}\n'
        )
        with pytest.raises(ProjectError, match=r"describe\.categories\.aspects"):
            load_project(path)
    path.write_text(
        'name = "x"\n[data]\nmanifest = "m.csv"\n[describe.categories]\naspects = ["sound", "use"]\n'
    )
    assert load_project(path).describe.categories.aspects == ("sound", "use")


def test_the_budget_of_a_file_is_a_setting(tmp_path: Path) -> None:
    """Seconds and a size with its unit; by default a minute and 2 GB."""
    assert load_project(write(tmp_path, MINIMAL)).data.budget == FileBudget(60.0, 2_000_000_000)
    for told, count in (('"500 MB"', 500_000_000), ('"1.5 GB"', 1_500_000_000), ("100_000_000", 100_000_000)):
        text = MINIMAL + f"seconds_per_file = 5\nmemory_per_file = {told}\n"
        assert load_project(write(tmp_path, text)).data.budget == FileBudget(5.0, count)


@pytest.mark.parametrize(
    "line",
    [
        "seconds_per_file = 0",
        'seconds_per_file = "long"',
        'memory_per_file = "2 GiB"',
        'memory_per_file = "lots"',
        'memory_per_file = "1 MB"',
        "memory_per_file = -1",
    ],
)
def test_a_budget_that_is_none_is_refused(tmp_path: Path, line: str) -> None:
    """What allows nothing, or is no size, is told with its key."""
    with pytest.raises(ProjectError, match=rf"data\.{line.partition(' ')[0]}: "):
        load_project(write(tmp_path, MINIMAL + line + "\n"))


def test_stages_that_decode_depend_on_the_budget(tmp_path: Path) -> None:
    """A larger budget has quarantined samples tried again; nothing is hashed or asked anew for it."""
    one, other = (
        load_project(write(tmp_path, MINIMAL + f"seconds_per_file = {seconds}\n")) for seconds in (5, 50)
    )
    stale = {stage.name for stage in STAGES if stage.settings(one) != stage.settings(other)}
    assert stale == {"describe-samples", "encode"}


@pytest.mark.parametrize(
    ("section", "line", "key"),
    [
        ("train", "learning_rate = inf", "train.learning_rate"),
        ("train", "penalty = inf", "train.penalty"),
        ("train", "modalities = []", "train.modalities"),
        ("train", 'modalities = ["image", "image"]', "train.modalities: names 'image' twice"),
        ("evaluate", "few_shot = [4, 1, 4]", "evaluate.few_shot: names 4 twice"),
        (
            "describe.categories",
            'aspects = ["look", "look"]',
            "describe.categories.aspects: names 'look' twice",
        ),
        ("describe.categories", "max_requests_per_text = inf", "describe.categories.max_requests_per_text"),
        ("describe.categories", "budget_usd = inf", "describe.categories.budget_usd"),
        ("describe.samples", "request_timeout_s = inf", "describe.samples.request_timeout_s"),
        ("describe.samples", 'model = ""', "describe.samples.model"),
    ],
)
def test_values_that_say_nothing_or_twice_the_same_are_refused(
    section: str, line: str, key: str, tmp_path: Path
) -> None:
    """No infinite number, empty name, empty list or repeated item has a meaning of its own."""
    with pytest.raises(ProjectError) as caught:
        load_project(write(tmp_path, f"{MINIMAL}[{section}]\n{line}\n"))
    assert key in str(caught.value)


@pytest.mark.parametrize("key", ["root", "categories"])
def test_an_empty_path_is_none(key: str, tmp_path: Path) -> None:
    """`categories = ""` was the same as no category list."""
    with pytest.raises(ProjectError, match=rf"data\.{key}: string should have at least 1 character"):
        load_project(write(tmp_path, f'{MINIMAL}{key} = ""\n'))
