"""The project file: read whole, all mistakes told at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.errors import ProjectError
from pipeline.project import load_project

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
        ('api_key_env = "sk-planted-1"', "must be the name of a variable", "sk-planted-1"),
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
