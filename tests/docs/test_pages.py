"""README.md, ARCHITECTURE.md, CONTRIBUTING.md and docs/*.md: links, names of files, and the site."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
# A path of a file or folder of the repository, as prose and code spans name it.
PATH = re.compile(
    r"(?<![\w/.~-])(?:data|kb_builder|trainer|pipeline|flows|tests|bench|docs)/"
    r"(?:[\w-]+/)*(?:[\w-]+\.(?:py|toml|md|json|png)|(?=[`,;.:) ]|$))"
)
PAGES = (
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")),
)


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    """docs/build.py, which belongs to no package."""
    spec = importlib.util.spec_from_file_location("docs_build", ROOT / "docs" / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # NamedTuple looks its module up
    spec.loader.exec_module(module)
    return module


def _read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def test_every_relative_link_and_anchor_leads_somewhere(builder: ModuleType) -> None:
    """Files exist, and headings have the anchors that links name."""
    assert sum(1 for page in builder.page_names() for _ in builder.links(page)) > 80
    assert builder.broken_links() == []


def test_a_broken_link_is_found(builder: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing file and a missing heading are one line each, and the site is not built."""
    for name in builder.TOP:
        (tmp_path / name).write_text("# Title\n", encoding="utf-8")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text(
        "# Index\n\n[a](../README.md#title) [b](none.md) [c](../README.md#none)\n", encoding="utf-8"
    )
    monkeypatch.setattr(builder, "ROOT", tmp_path)
    for cached in (builder._tokens, builder.headings):
        cached.cache_clear()
    assert builder.broken_links() == [
        "docs/index.md:3: none.md: there is no file docs/none.md",
        "docs/index.md:3: ../README.md#none: README.md has no heading with the anchor none",
    ]
    with pytest.raises(ValueError, match="there is no file"):
        builder.build(tmp_path / "site")
    for cached in (builder._tokens, builder.headings):
        cached.cache_clear()


def test_every_file_that_a_page_names_exists() -> None:
    """Paths of modules, folders, tables and pages are those of the tree."""
    named = {(page, found) for page in PAGES for found in PATH.findall(_read(page))}
    assert len(named) > 100
    assert sorted((page, path) for page, path in named if not (ROOT / path).exists()) == []


def test_every_module_that_a_page_names_exists() -> None:
    """The module of each dotted name, such as `python -m bench.train_gpu`, is there."""
    named = {
        (page, found)
        for page in PAGES
        for found in re.findall(
            r"(?:`|python -m )((?:data|kb_builder|trainer|pipeline|flows|bench)(?:\.\w+)+)", _read(page)
        )
    }
    assert len(named) > 5
    for page, name in sorted(named):
        module = ROOT / name.replace(".", "/")
        there = (module, module.with_suffix(".py"), module.parent, module.parent.with_suffix(".py"))
        assert any(path.exists() for path in there), (page, name)


def test_the_readme_is_short_and_names_the_commands() -> None:
    """Under 900 words; the test command is the one that .ci/run runs; every page it lists is there."""
    readme = _read("README.md")
    assert len(readme.split()) < 900
    assert "make test " in readme and "make test" in _read(".ci/run")
    targets = set(re.findall(r"^([a-z-]+):", _read("Makefile"), re.MULTILINE))
    for page in PAGES:
        used = set(re.findall(r"`make ([a-z-]+)|^make ([a-z-]+)", _read(page), re.MULTILINE))
        assert {name for pair in used for name in pair if name} <= targets, page


def test_the_index_lists_every_page(builder: ModuleType) -> None:
    """No page of docs/ is missing from docs/index.md, which is the site's menu."""
    listed = {builder._target("docs/index.md", link.target)[0] for link in builder.links("docs/index.md")}
    assert {page for page in PAGES if page != "docs/index.md"} - listed == set()


def test_every_room_is_on_the_map() -> None:
    """ARCHITECTURE.md has a line for each sub-package of the first two levels, by its path."""
    page = _read("ARCHITECTURE.md")
    rooms = {
        str(init.parent.relative_to(ROOT))
        for package in ("data", "kb_builder", "trainer", "pipeline")
        for init in (ROOT / package).glob("*/__init__.py")
    }
    assert len(rooms) > 30
    assert {room for room in rooms if f"`{room}/`" not in page} == set()


def test_where_would_i_is_answered_by_the_map() -> None:
    """Ten questions; each folder that CONTRIBUTING.md answers with is explained in ARCHITECTURE.md."""
    table = _read("CONTRIBUTING.md").partition("## Where would I")[2].partition("\n## ")[0]
    answers = [line.strip("| ").split("|")[1] for line in table.splitlines() if line.endswith("|")][2:]
    assert len(answers) == 10
    on_the_map = _read("ARCHITECTURE.md")
    for answer in answers:
        path = PATH.findall(answer)[0]
        assert path in on_the_map or f"{Path(path).parent}/" in on_the_map, answer


def test_the_site_is_complete_and_loads_nothing_from_outside(builder: ModuleType, tmp_path: Path) -> None:
    """One page for each Markdown file, every address in them is in the site, no script, no outside style."""
    out = tmp_path / "site"
    subprocess.run(
        [sys.executable, str(ROOT / "docs" / "build.py"), str(out)], check=True, capture_output=True
    )
    pages = sorted(out.glob("*.html"))
    assert len(pages) == len(builder.page_names())
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert "<script" not in text and "style=" not in text, page.name
        assert not re.search(r'(?:src|<link[^>]*href)="(?:https?:)?//', text), page.name
        for address in re.findall(r'(?:src|href)="([^"]+)"', text):
            path, _, anchor = address.partition("#")
            if ":" in address:
                continue
            there = out / path if path else page
            assert there.is_file(), (page.name, address)
            if anchor:
                assert f'id="{anchor}"' in there.read_text(encoding="utf-8"), (page.name, address)
