"""A published version answers queries where it is, as the knowledge base does, and reads nothing else."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from data.errors import InputError, KnowledgeBaseError
from data.files import write_json
from kb_builder.browse.query import connect, run_one, sql
from kb_builder.browse.views import VIEWS
from kb_builder.publish.place import FolderPlace, open_place
from kb_builder.publish.publish import publish
from kb_builder.publish.remote import _SharedFile, connect_published, sql_published
from kb_builder.publish.versions import read_version

PART = "descriptions/category/part-00001.parquet"


def test_every_view_answers_as_at_home(browsed_kb: Path, place_name: str) -> None:
    """Over tables of rows and of vectors, and over nothing; the nearest texts to one too."""
    publish(browsed_kb, open_place(place_name))
    (row_id,) = sql(browsed_kb, "SELECT row_id FROM v_descriptions WHERE text = 'A dog is number 0.'").rows[0]
    queries = [f"FROM {name} ORDER BY ALL" for name in VIEWS if "(" not in name]
    queries += [f"FROM v_nearest_to('{row_id}', k := 3)", "SELECT 1"]
    with connect(browsed_kb) as here, connect_published(open_place(place_name)) as there:
        for query in queries:
            assert run_one(there, query) == run_one(here, query), query


def test_many_threads_read_one_file(tmp_path: Path) -> None:
    """Each at its own place, however their calls interleave; beyond the end there is nothing."""
    place = FolderPlace(tmp_path)
    data = b"".join(b"%07d\n" % number for number in range(20_000))
    place.put("objects/a", [data])
    file = _SharedFile(place.open("objects/a"))
    together = threading.Barrier(8)

    def read(number: int) -> bool:
        places = [(number * 7919 + step * 104_729) % 20_000 for step in range(300)]
        together.wait()
        found = []
        for line in places:
            file.seek(8 * line)
            found.append(file.read(8))
        return found == [b"%07d\n" % line for line in places] and file.tell() == 8 * places[-1] + 8

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(8)))
    assert (file.seek(-8, 2), file.read(), file.read(5)) == (len(data) - 8, b"0019999\n", b"")
    file.close()


def test_a_version_of_one_moment_is_read(browsed_kb: Path, tmp_path: Path) -> None:
    """An earlier one where it is asked for."""
    place = FolderPlace(tmp_path / "published")
    publish(browsed_kb, place)
    (browsed_kb / PART).unlink()
    publish(browsed_kb, place)
    query = "SELECT count(*) FROM v_descriptions"
    counts = [sql_published(place, query, number).rows for number in (1, 2, None)]
    assert counts == [((8,),), ((4,),), ((4,),)]


def test_only_published_files_are_read(browsed_kb: Path, tmp_path: Path) -> None:
    """No other file, no write, no setting; a mistake in SQL has DuckDB's reason."""
    place = FolderPlace(tmp_path / "published")
    publish(browsed_kb, place)
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    for query, message in (
        (f"FROM read_csv('{secret}')", "disabled by configuration"),
        ("FROM read_text('published://embeddings/encoders.json')", "disabled by configuration"),
        (f"COPY (SELECT 1) TO '{tmp_path / 'out.csv'}'", "only reads"),
        ("SET enable_external_access = true", "only reads"),
        ("FROM v_nothing", "the views are v_categories"),
    ):
        with pytest.raises(InputError, match=message):
            sql_published(place, query)
    assert not (tmp_path / "out.csv").exists()


def test_damaged_objects_are_told(browsed_kb: Path, tmp_path: Path) -> None:
    """A table of another size, a card with other content, an object that is gone."""
    place = FolderPlace(tmp_path / "published")
    publish(browsed_kb, place)
    version = read_version(place)
    query = "SELECT text FROM v_descriptions"
    for name, data, message in (
        (PART, b"short", "part-00001.parquet.*damaged, 5 bytes in place of"),
        ("embeddings/encoders.json", b"{}", "encoders.json.*damaged; .*--check"),
    ):
        path = tmp_path / "published" / version.files[name].object
        whole = path.read_bytes()
        path.write_bytes(data)
        with pytest.raises(KnowledgeBaseError, match=message):
            sql_published(place, query)
        path.write_bytes(whole)
    assert len(sql_published(place, query).rows) == 8
    (tmp_path / "published" / version.files[PART].object).unlink()
    with pytest.raises(KnowledgeBaseError, match=r"part-00001.parquet.*missing, though a version names it"):
        sql_published(place, query)


def test_a_damaged_card_is_named_by_its_place(browsed_kb: Path, tmp_path: Path) -> None:
    """As it was published, not by where it is read."""
    (card,) = browsed_kb.glob("embeddings/*/encoder.json")
    card.write_text("{}")
    place = FolderPlace(tmp_path / "published")
    publish(browsed_kb, place)
    with pytest.raises(KnowledgeBaseError, match=r"published/embeddings/.*/encoder.json: missing or damaged"):
        sql_published(place, "SELECT 1")


def test_a_knowledge_base_without_vectors_answers(browsed_kb: Path, tmp_path: Path) -> None:
    """Its views of vectors are empty."""
    write_json(browsed_kb / "embeddings" / "encoders.json", {})
    place = FolderPlace(tmp_path / "published")
    publish(browsed_kb, place)
    assert sql_published(place, "SELECT count(*) FROM v_category_vectors").rows == ((0,),)
