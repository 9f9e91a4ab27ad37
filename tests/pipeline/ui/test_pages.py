"""Each page, visited by NiceGUI's simulated user."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest
from nicegui import ui
from nicegui.testing import User

from data.seals import discard
from kb_builder.added.struck import read_struck
from kb_builder.tables.schemas import CATEGORIES, read_rows, write_table
from pipeline.predict.search import PlacedPart, Query, Searcher
from pipeline.project import load_project
from pipeline.run.jobs import plan
from pipeline.run.runner import run_stages
from pipeline.ui.canvas import PointMap
from pipeline.ui.maps import KINDS, point_cloud
from pipeline.ui.pages.sql import documented
from pipeline.ui.state import Desk
from tests.planted import register_encoder

HOSTILE = '<script>alert("x")</script>'


@pytest.fixture(autouse=True)
def _encoder() -> None:
    register_encoder()


def _links(user: User) -> list[str]:
    assert user.client is not None
    return [str(each.props["href"]) for each in user.client.elements.values() if "href" in each.props]


def test_words_find_samples_and_categories(desk: Desk, visit: Any) -> None:
    """The nearest of every modality in columns, the categories with the text that spoke, and the time."""

    async def steps(user: User) -> None:
        await user.open("/?q=red+ball")
        await user.should_see("Nearest categories")
        await user.should_see("red ball")
        await user.should_see(marker="timing")
        await user.should_see("60 samples in")
        pictures = [each for each in user.client.elements.values() if each.tag == "img"]  # type: ignore[union-attr]
        assert len(pictures) == 8 and all(each.props["alt"] for each in pictures)
        links = _links(user)
        assert "/category?id=red-ball" in links
        assert sum(link.startswith("/sample?") for link in links) == 16
        assert "ball" in next(link for link in links if link.startswith("/sample?"))

    visit(desk, steps)


def test_parts_of_a_query_are_added_up(desk: Desk, visit: Any) -> None:
    """A sample and words together; each can be taken out; the sample itself is no hit."""

    async def steps(user: User) -> None:
        await user.open("/?q=blue&sample=red-cup-0")
        await user.should_see("Nearest samples")
        links = _links(user)
        assert "/?q=blue" in links and "/?sample=red-cup-0" in links
        assert "/sample?id=red-cup-0" not in links

    visit(desk, steps)


def test_a_part_of_a_query_is_encoded_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that stays in the query while words are added is not encoded again; the answer is the same."""
    opened, placed, place = desk.project(None), [], Searcher.place
    red, cup = Query("text", "red"), Query(None, "red-cup-0", is_sample=True)

    def counted(searcher: Searcher, query: Query) -> PlacedPart:
        placed.append(query)
        return place(searcher, query)

    monkeypatch.setattr(Searcher, "place", counted)
    first = opened.search([red], top=3).found
    both = opened.search([red, cup], top=3).found
    assert placed == [red, cup]
    assert opened.search([red], top=3).found == first != both == opened.search([red, cup], top=3).found
    assert placed == [red, cup]


def test_typing_searches(desk: Desk, visit: Any) -> None:
    """Enter opens the address of the words."""

    async def steps(user: User) -> None:
        await user.open("/")
        await user.should_see("Or one of its own samples")
        user.find(kind=ui.input).type("green cup").trigger("keydown.enter")
        await user.should_see("Nearest categories")
        assert user.back_history[-1] == "/?q=green+cup"

    visit(desk, steps)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("/?sample=nobody", "no sample 'nobody'"),
        ("/?file=gone", "drop it again"),
        ("/?project=other", "there is no project 'other'"),
        ("/sample?id=nobody", "there is no sample"),
        ("/category?id=nobody", "there is no category"),
        ("/text?id=zz", "give at least"),
        ("/samples?category=nobody", "No sample passes"),
        ("/samples?page=99999999999999999999&sure=x&order=y", "60"),
    ],
)
def test_a_wrong_address_says_what_is_wrong(desk: Desk, visit: Any, address: str, words: str) -> None:
    """An error of ours stands within the page."""

    async def steps(user: User) -> None:
        await user.open(address)
        await user.should_see(words)

    visit(desk, steps)


def test_samples_are_filtered(desk: Desk, visit: Any) -> None:
    """By modality, split and answer; the page counts them, and the address keeps the filter."""

    async def steps(user: User) -> None:
        await user.open("/samples")
        await user.should_see("1 to 48 of 60")
        assert "/samples?page=2" in _links(user)
        await user.open("/samples?modality=text&split=train")
        await user.should_see("1 to 5 of 5")
        await user.should_see("A red cup on a table")
        await user.open("/samples?state=quarantined")
        await user.should_see("No sample was quarantined")
        counts = []
        for state in ("right", "wrong", "unlabelled"):
            await user.open(f"/samples?state={state}")
            cards = [e for e in user.client.elements.values() if "card" in e.classes]  # type: ignore[union-attr]
            counts.append(len(cards))
        assert counts[2] == 0 and counts[0] + counts[1] >= 48

    visit(desk, steps)


def test_a_sample_has_its_answers_and_neighbours(desk: Desk, visit: Any) -> None:
    """The picture, its facts, the same object as text, the answers with texts, the nearest samples."""

    async def steps(user: User) -> None:
        await user.open("/sample?id=red-cup-0")
        await user.should_see("Search by this sample")
        await user.should_see("The same object in other modalities")
        await user.should_see("A red cup on a table")
        await user.should_see("Answers")
        await user.should_see("by the aligned heads, among all categories")
        links = _links(user)
        assert "/sample?id=red-cup-0-note" in links and "/category?id=red-cup" in links
        await user.open("/sample?id=red-cup-0-note")
        await user.should_see("by the aligned heads, among all categories")

    visit(desk, steps)


def test_every_modality_has_its_page(world_desk: Desk, visit: Any) -> None:
    """Before anything is encoded: player, turning cloud, frames, scale in degrees; and no answers."""

    async def steps(user: User) -> None:
        for modality, words in (
            ("audio", "Log-mel spectrogram"),
            ("thermal", "°C"),
            ("event", "Red: brightness grows"),
            ("text", "Search by this sample"),
            ("point", "Search by this sample"),
            ("video", "Search by this sample"),
        ):
            await user.open(f"/sample?id=cork-cone-000/{modality}")
            await user.should_see(words)
        tags = [each.tag for each in user.client.elements.values()]  # type: ignore[union-attr]
        assert "video" in tags

    visit(world_desk, steps)


def test_categories_and_one_of_them(desk: Desk, visit: Any) -> None:
    """The table leads to a category, which has accuracy, confusions, centers with their wins, and texts."""

    async def steps(user: User) -> None:
        await user.open("/categories?order=worst")
        await user.should_see("blue ball")
        assert "/category?id=blue-ball" in _links(user)
        await user.open("/category?id=blue-ball")
        for words in ("Recognised test samples", "Recognised as", "Embedding centers", "Texts", "accepted"):
            await user.should_see(words)
        why = next(link for link in _links(user) if link.startswith("/text?"))
        await user.open(why)
        for words in ("The prompt", "The raw answer", "The gates", "kept"):
            await user.should_see(words)

    visit(desk, steps)


def test_answers_that_were_not_evaluated_say_so(
    desk: Desk, cups: Path, opening: Callable[..., Desk], visit: Any
) -> None:
    """With other settings than those of the evaluation, pages with answers say what these are without."""
    text = cups.read_text(encoding="utf-8")
    cups.write_text(text.replace("bootstrap = 20", "bootstrap = 30"), encoding="utf-8")

    async def quiet(user: User) -> None:
        await user.open("/categories")
        await user.should_see("blue ball")
        await user.should_not_see("Answers without probabilities")

    async def told(user: User) -> None:
        await user.open("/categories")
        await user.should_see("Answers without probabilities")
        await user.should_see("evaluated with other centers, heads or settings")

    visit(desk, quiet)
    visit(opening(cups), told)


def test_many_categories_stand_on_several_pages(
    desk: Desk, visit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each category is on one page, in the chosen order, and the links keep the order."""
    monkeypatch.setattr("pipeline.ui.pages.categories.SIZE", 4)

    async def steps(user: User) -> None:
        found: list[str] = []
        for address, words in (("", "1 to 4 of 6"), ("&page=2", "5 to 6 of 6")):
            await user.open(f"/categories?order=worst{address}")
            await user.should_see(words)
            found += [link for link in _links(user) if link.startswith("/category?")]
        assert len(found) == len(set(found)) == 6
        assert "/categories?order=worst" in _links(user)
        await user.open("/categories?page=3")
        await user.should_see("There is no category here")

    visit(desk, steps)


def test_a_text_is_struck_out_and_another_added(own_desk: Desk, visit: Any) -> None:
    """Marked, previewed, and saved with its reason; the next run takes both in, and asks for nothing."""
    opened = own_desk.project(None)
    kb = opened.file.kb
    center = next(row for row in read_rows(kb / "centers.parquet") if row["category_id"] == "red-cup")[
        "row_id"
    ]
    (row,) = opened.rows("SELECT text FROM v_descriptions WHERE row_id = ?", [center])
    text = "A red cup is a small bright mug with one handle."

    async def steps(user: User) -> None:
        await user.open("/category?id=red-cup")
        await user.should_see("Preview the localization")
        user.find("Save").click()
        await user.should_see("nothing is marked yet")
        boxes = [e for e in user.client.elements.values() if isinstance(e, ui.checkbox)]  # type: ignore[union-attr]
        mine = next(e for e in boxes if str(e.props["aria-label"]).endswith(row["text"][:80]))
        mine.value = True
        user.find("Add a text about it").type(text)
        user.find("Mark to add").click()
        user.find("Preview the localization").click()
        await user.should_see("No longer centers: ")
        await user.should_see(f"− {row['text']}")
        await user.should_see("With the heads as they are")
        assert not read_struck(kb)
        user.find("Reason, if any is struck out").type("says nothing")
        user.find("Save").click()
        await user.should_see("Saved.")

    visit(own_desk, steps)
    assert read_struck(kb)[center].reason == "says nothing"
    project = load_project(opened.file.path)
    done = run_stages(project, plan(project))
    assert {each.name for each in done if not each.skipped} >= {"describe-contrasts", "encode", "localize"}
    assert {each.name for each in done if each.skipped} >= {"ingest", "describe-categories"}
    assert center not in {each["row_id"] for each in read_rows(kb / "centers.parquet")}
    rows = opened.rows(
        "SELECT status, model_resolved AS model, source FROM v_descriptions WHERE text = ?", [text]
    )
    assert rows == [{"status": "ok", "model": "a person", "source": "added"}]

    async def after(user: User) -> None:
        await user.open("/category?id=red-cup")
        await user.should_see("says nothing")
        await user.should_see("a person (added)")

    visit(own_desk, after)


def test_sql_answers_and_refuses(desk: Desk, visit: Any) -> None:
    """A query of the address is run; what writes or reads other files is refused, with the reason."""

    async def steps(user: User) -> None:
        await user.open("/sql?q=SELECT+name+FROM+v_categories+ORDER+BY+name+LIMIT+2")
        await user.should_see("2 rows")
        await user.should_see("blue ball")
        assert any(link.startswith("/sql/cups.arrow?") for link in _links(user))
        for query in (
            "COPY v_categories TO '/tmp/x.csv'",
            "SELECT * FROM read_csv('/etc/passwd')",
            "SELECT * FROM '/etc/passwd'",
            "CREATE TABLE x AS SELECT 1",
            "SET enable_external_access = true",
            "ATTACH 'x.db'",
            "SELECT 1; DROP VIEW v_samples",
            "INSTALL httpfs",
            "WITH x AS (COPY v_categories TO '/tmp/x.csv') SELECT 1",
            "SELECT * FROM v_nothing",
        ):
            await user.open("/sql?" + str(httpx.QueryParams({"q": query})))
            alerts = [e for e in user.client.elements.values() if "wrong" in e.classes]  # type: ignore[union-attr]
            assert len(alerts) == 1, query
            await user.should_not_see("rows")

    visit(desk, steps)


def test_every_documented_question_is_answered(desk: Desk) -> None:
    """The questions of docs/duckdb.md that the page offers run on the views (without a zero-shot encoder)."""
    from kb_builder.browse.query import sql_table

    kb = desk.project(None).file.kb
    assert len(documented()) >= 20
    for words, query in documented():
        assert words
        if "v_zero_shot_vectors" in query:  # this project has none, so its vectors have no dimension
            continue
        sql_table(kb, query, most=10, seconds=60)


def test_rows_are_downloaded(desk: Desk, served: Callable[..., None]) -> None:
    """As CSV and as an Arrow stream; a query that is refused is a 400."""

    async def steps(client: httpx.AsyncClient) -> None:
        ask = {"q": "SELECT name, 1 AS one FROM v_categories ORDER BY name LIMIT 2"}
        csv = await client.get("/sql/cups.csv", params=ask)
        assert csv.text.splitlines() == ["name,one", "blue ball,1", "blue cup,1"]
        assert "attachment" in csv.headers["content-disposition"]
        arrow = await client.get("/sql/cups.arrow", params=ask)
        rows = pa.ipc.open_stream(arrow.content).read_all()
        assert rows["name"].to_pylist() == ["blue ball", "blue cup"]
        for path in (
            "/sql/cups.csv?q=DROP+VIEW+v_samples",
            "/sql/cups.xlsx?q=SELECT+1",
            "/sql/other.csv?q=SELECT+1",
        ):
            assert (await client.get(path)).status_code == 400

    served(desk, steps)


def test_the_map_has_every_sample_center_and_text(
    desk: Desk, visit: Any, served: Callable[..., None]
) -> None:
    """A click on a point opens it; a lasso counts; before training there are samples of one encoder only."""
    opened = desk.project(None)
    cloud = point_cloud(opened, "after")
    kinds = [cloud.kind(number) for number in range(len(cloud.ids))]
    assert kinds.count("image") == 48 and kinds.count("text") == 12 and kinds.count("center") == 18
    assert set(kinds) <= set(KINDS) and cloud is point_cloud(opened, "after")
    assert "center" not in {point_cloud(opened, "before").kind(0)}

    async def steps(user: User) -> None:
        await user.open("/space?which=after&by=state")
        await user.should_see(PointMap)
        (made,) = user.find(kind=PointMap).elements
        assert made.props["by"] == "state" and "96" not in made.props["alt"]
        user.find(kind=PointMap).trigger("lasso", [0, 1, kinds.index("center")])
        await user.should_see("Within the lasso")
        user.find(kind=PointMap).trigger("pick", 0)
        await user.should_see("Search by this sample")
        assert user.back_history[-1].startswith("/sample?id=")

    visit(desk, steps)

    async def points(client: httpx.AsyncClient) -> None:
        answer = await client.get("/space/cups?which=after")
        assert answer.content == cloud.body
        assert (await client.get("/space/cups?which=nothing")).status_code == 404

    served(desk, points)


def test_results_have_tables_a_matrix_and_the_report(
    desk: Desk, visit: Any, served: Callable[..., None]
) -> None:
    """Cells of the matrix open the samples behind them; the report is sandboxed."""

    async def steps(user: User) -> None:
        await user.open("/results?split=test")
        await user.should_see("Confusions")
        await user.should_see("samples are recognised among all categories")
        cells = [link for link in _links(user) if link.startswith("/samples?category=") and "named=" in link]
        assert cells
        await user.open(cells[0])
        await user.should_see("1 to ")

    visit(desk, steps)

    async def report(client: httpx.AsyncClient) -> None:
        answer = await client.get("/report/cups")
        assert answer.status_code == 200 and "sandbox" in answer.headers["content-security-policy"]
        assert "script" not in answer.headers["content-security-policy"]
        assert "media-src data:" in answer.headers["content-security-policy"]  # its sounds can be played

    served(desk, report)


def test_two_runs_are_compared(
    finished_cups: Path, cups: Path, opening: Callable[..., Desk], visit: Any
) -> None:
    """Projects of one name have their own addresses, and stand beside each other."""
    desk = opening(finished_cups, cups)
    assert list(desk.projects) == ["cups", "cups-2"]

    async def steps(user: User) -> None:
        await user.open("/results?project=cups-2&beside=cups")
        await user.should_see("no difference that these samples can show")
        assert any("project=cups-2" in link for link in _links(user))

    visit(desk, steps)


def test_a_hostile_name_stays_a_name(
    cups: Path, opening: Callable[..., Desk], visit: Any, served: Callable[..., None]
) -> None:
    """A category named as a script is text on every page, and in no page's source a tag."""
    project = load_project(cups)
    rows = read_rows(project.kb / "categories.parquet")
    for row in rows:
        row["name"] = f"{HOSTILE} {row['category_id']}" + "\u202e"
    write_table(project.kb / "categories.parquet", rows, CATEGORIES)
    discard(project.kb)
    desk = opening(project.path)

    async def steps(user: User) -> None:
        await user.open("/categories")
        await user.should_see(HOSTILE)
        for element in user.client.elements.values():  # type: ignore[union-attr]
            assert not isinstance(element, ui.html)

    visit(desk, steps)

    async def pages(client: httpx.AsyncClient) -> None:
        for path in (
            "/",
            "/samples",
            "/categories",
            "/category?id=red-cup",
            "/results",
            "/space",
            "/sql",
            "/run",
        ):
            text = (await client.get(path)).text
            assert "<script>alert" not in text and "\u202e" not in text, path

    served(desk, pages)


def test_a_project_without_a_run_says_so(tmp_path: Path, opening: Callable[..., Desk], visit: Any) -> None:
    """Before the first run, every page says what is missing."""
    (tmp_path / "m.csv").write_text("sample_id,uri,modality\n", encoding="utf-8")
    (tmp_path / "unibind.toml").write_text('name = "new"\n[data]\nmanifest = "m.csv"\n', encoding="utf-8")
    desk = opening(tmp_path / "unibind.toml")

    async def steps(user: User) -> None:
        for path, words in (
            ("/", "no knowledge base yet"),
            ("/samples", "no knowledge base yet"),
            ("/categories", "no knowledge base yet"),
            ("/results", "not evaluated yet"),
            ("/space", "no knowledge base yet"),
            ("/sql?q=SELECT+1", "no knowledge base yet"),
            ("/run", "waiting"),
        ):
            await user.open(path)
            await user.should_see(words)

    visit(desk, steps)
