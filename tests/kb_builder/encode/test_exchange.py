"""Vectors out of the store in other tools' formats, bit for bit, and matrices made elsewhere into it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from data.errors import InputError, KnowledgeBaseError
from data.files import hash_text
from kb_builder.encode.embed import embed_samples, embed_texts
from kb_builder.encode.exchange import _read_lines, _read_matrix, _scale_to_unit, export_table, import_vectors
from kb_builder.encoders import load_encoder
from kb_builder.settings import Encode
from kb_builder.store.table import read_vectors, write_vectors
from kb_builder.tables.schemas import CONTROLS, DESCRIPTIONS, REJECTS, SAMPLES, read_rows, write_table

DRAW = np.random.default_rng(0)


def unit(*shape: int) -> Any:
    x_ND = DRAW.normal(size=shape)
    return (x_ND / np.linalg.norm(x_ND, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture
def kb(tmp_path: Path) -> Path:
    """Two pictures and a sound, three descriptions, and vectors of the descriptions by an encoder `e`."""
    kb = tmp_path / "kb"
    samples = [
        {
            "sample_id": name,
            "object_id": None,
            "modality": modality,
            "uri": f"{name}.{ending}",
            "category_id": "cat",
            "split": "train",
            "sha256": hash_text(name),
            "bytes": 7,
        }
        for name, modality, ending in (("a", "image", "png"), ("b", "image", "png"), ("c", "audio", "wav"))
    ]
    write_table(kb / "samples.parquet", samples, SAMPLES)
    empty = {field.name: None if field.nullable else "" for field in DESCRIPTIONS}
    zeros = dict.fromkeys(("n_chars", "n_tokens", "attempts", "latency_ms", "created_at"), 0)
    rows = [
        empty
        | zeros
        | {"row_id": name, "text": f"The {name}.", "kind": "category", "status": "ok", "category_id": "cat"}
        for name in ("r1", "r2", "r3")
    ]
    write_table(kb / "descriptions/category/part-00000.parquet", rows, DESCRIPTIONS)
    write_table(kb / "controls.parquet", [], CONTROLS)
    folder = kb / "embeddings" / "e-0-float16"
    folder.mkdir(parents=True)
    card = {
        "name": "e",
        "identity": "0",
        "dim": 8,
        "dtype": "float16",
        "licence": "MIT",
        "modalities": ["text"],
    }
    (folder / "encoder.json").write_text(json.dumps(card))
    (kb / "embeddings/encoders.json").write_text(json.dumps({"text": folder.name, "zero_shot": None}))
    groups = ["cat", "cat", "dog"]
    write_vectors(
        folder / "category_texts", ids=["r1", "r2", "r3"], groups=groups, vectors_ND=unit(3, 8), encoder="0"
    )
    return kb


@pytest.mark.parametrize("form", ["npy", "safetensors", "datasets"])
def test_what_is_exported_is_the_stored_bits_with_names_and_card(kb: Path, tmp_path: Path, form: str) -> None:
    """Every format holds the float16 values of the store, their ids and groups, and the encoder's card."""
    out = tmp_path / "out"
    assert export_table(kb, "category_texts", out, form=form) == 3
    stored = read_vectors(kb / "embeddings/e-0-float16/category_texts")
    if form == "datasets":
        table = pq.read_table(out / "data")
        x_ND = np.array(table["vector"].to_pylist())
        ids, groups = table["id"].to_pylist(), table["group"].to_pylist()
        assert "data_files: data/*.parquet" in (out / "README.md").read_text()
    else:
        x_ND = (
            np.load(out / "vectors.npy")
            if form == "npy"
            else load_file(out / "vectors.safetensors")["vectors"]
        )
        assert x_ND.dtype == np.float16
        ids, groups = (path.read_text().split() for path in (out / "ids.txt", out / "groups.txt"))
    np.testing.assert_array_equal(x_ND.astype(np.float32), stored.vectors_ND)
    assert (ids, groups) == (stored.ids, stored.groups)
    assert json.loads((out / "encoder.json").read_text())["name"] == "e"


def test_an_export_is_whole_or_absent_and_never_over_another(kb: Path, tmp_path: Path) -> None:
    """A damaged shard leaves nothing behind, and a folder that holds something is refused."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("precious")
    with pytest.raises(InputError, match="full already exists"):
        export_table(kb, "category_texts", tmp_path / "full", form="npy")
    (shard,) = (kb / "embeddings/e-0-float16/category_texts").glob("*.parquet")
    raw = bytearray(shard.read_bytes())
    raw[raw.index(read_vectors(shard.parent).vectors_ND.astype(np.float16)[0].tobytes()) + 3] ^= 1
    shard.write_bytes(raw)
    before = sorted(path.name for path in tmp_path.iterdir())
    for form in ("npy", "safetensors", "datasets"):
        with pytest.raises(KnowledgeBaseError, match=r"part-.*\.parquet"):
            export_table(kb, "category_texts", tmp_path / "out", form=form)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("table", "form", "role", "said"),
    [
        ("texts", "npy", None, "unknown table 'texts'"),
        ("samples", "csv", None, "unknown format 'csv'"),
        ("samples", "npy", "zero_shot", "no encoder has the role 'zero_shot'; the roles in use are text"),
    ],
)
def test_what_cannot_be_exported_is_said(
    kb: Path, tmp_path: Path, table: str, form: str, role: str | None, said: str
) -> None:
    """An unknown table, format or role is named with the known ones."""
    with pytest.raises(InputError, match=said):
        export_table(kb, table, tmp_path / "out", form=form, role=role)


def given(folder: Path, x_ND: Any, ids: list[str]) -> tuple[Path, Path]:
    np.save(folder / "x.npy", x_ND)
    (folder / "x.txt").write_text("\n".join(ids) + "\n")
    return folder / "x.npy", folder / "x.txt"


def test_imported_vectors_serve_as_the_samples_encoder(kb: Path, tmp_path: Path) -> None:
    """Named in `[encode]`, they are the samples' vectors; a sample without one is quarantined by name."""
    x_ND = 7 * unit(2, 16)
    done = import_vectors(kb, *given(tmp_path, x_ND, ["b.png", "a"]), table="samples", name="mine")
    assert (done.imported, done.rows, done.missing) == (2, 2, 0)
    more_ND = unit(1, 16)
    import_vectors(kb, *given(tmp_path, more_ND, ["c"]), table="samples", name="mine")
    settings = Encode(samples="imported:mine", zero_shot=None)
    for name in ("a.png", "b.png", "c.wav"):
        (tmp_path / name).touch()
    counts = embed_samples(kb, tmp_path, settings)
    assert (counts["encoded"], counts["carried"], counts["quarantined"]) == (0, 3, 0)
    folder = json.loads((kb / "embeddings/encoders.json").read_text())["samples"]
    stored = read_vectors(kb / "embeddings" / folder / "samples")
    assert stored.ids == ["c", "a", "b"]
    np.testing.assert_allclose(
        stored.vectors_ND, np.stack([more_ND[0], x_ND[1] / 7, x_ND[0] / 7]), atol=2**-11
    )

    rows = read_rows(kb / "samples.parquet")
    write_table(kb / "samples.parquet", [*rows, rows[0] | {"sample_id": "d", "sha256": "1"}], SAMPLES)
    assert embed_samples(kb, tmp_path, settings)["quarantined"] == 1
    (reject,) = read_rows(kb / "rejects/encode.parquet")
    assert reject["sample_id"] == "d"
    assert "no vector of it was imported as 'imported:mine'" in reject["reason"]
    assert REJECTS.names == list(reject)


def test_imported_vectors_serve_as_the_text_encoder_until_a_text_changes(kb: Path, tmp_path: Path) -> None:
    """Vectors of texts are taken by content: a changed text has none, and is not lent its predecessor's."""
    x_ND = unit(3, 8)
    import_vectors(kb, *given(tmp_path, x_ND, ["r1", "r2", "r3"]), table="category_texts", name="mine")
    settings = Encode(text="imported:mine", zero_shot=None)
    assert embed_texts(kb, settings)["quarantined"] == 0
    rows = read_rows(kb / "descriptions/category/part-00000.parquet")
    rows[1]["text"] = "Another text."
    write_table(kb / "descriptions/category/part-00000.parquet", rows, DESCRIPTIONS)
    assert embed_texts(kb, settings)["quarantined"] == 1
    folder = json.loads((kb / "embeddings/encoders.json").read_text())["text"]
    assert read_vectors(kb / "embeddings" / folder / "category_texts").ids == ["r1", "r3"]


def test_an_import_replaces_rows_of_the_same_id_and_keeps_others(kb: Path, tmp_path: Path) -> None:
    """A second import under one name changes what it brings, and nothing else."""
    first_ND, second_ND = unit(2, 16), unit(2, 16)
    import_vectors(kb, *given(tmp_path, first_ND, ["a", "b"]), table="samples", name="mine", dtype="float32")
    done = import_vectors(
        kb, *given(tmp_path, second_ND, ["b", "c"]), table="samples", name="mine", dtype="float32"
    )
    held = read_vectors(done.folder)
    assert held.ids == ["c", "a", "b"]
    np.testing.assert_allclose(held.vectors_ND, [second_ND[1], first_ND[0], second_ND[0]], atol=1e-6)


def spoiled(row: int, value: float) -> Any:
    x_ND = unit(2, 16)
    x_ND[row] = value
    return x_ND


@pytest.mark.parametrize(
    ("x_ND", "ids", "said"),
    [
        (unit(2, 16), ["a"], "1 ids, but .* has 2 rows"),
        (unit(2, 16), ["a", "a"], "duplicate id 'a'"),
        (unit(2, 16), ["a", "a.png"], "named both by its id and by its uri"),
        (unit(2, 16), ["a", "zebra"], "1 of 2 ids are not in samples .* line 2, 'zebra'"),
        (spoiled(1, np.nan), ["a", "b"], r"row 1 \(b\) is zero or holds NaN"),
        (spoiled(0, np.inf), ["a", "b"], r"row 0 \(a\) is zero or holds NaN"),
        (spoiled(0, 0.0), ["a", "b"], r"row 0 \(a\) is zero"),
        (unit(16), ["a"], "expected a matrix of floats"),
        (np.ones((2, 16), np.int64), ["a", "b"], "expected a matrix of floats"),
        (np.array([{}], dtype=object), ["a"], "cannot be read as .npy"),
    ],
)
def test_an_import_that_does_not_fit_changes_nothing(
    kb: Path, tmp_path: Path, x_ND: Any, ids: list[str], said: str
) -> None:
    """What is wrong is said with its file and row, and the store is as before."""
    before = sorted(kb.rglob("*"))
    with pytest.raises(InputError, match=said):
        import_vectors(kb, *given(tmp_path, x_ND, ids), table="samples", name="mine")
    assert sorted(kb.rglob("*")) == before


def test_a_file_of_two_matrices_is_refused(kb: Path, tmp_path: Path) -> None:
    """`np.save` twice into one file keeps both arrays; the first alone would have been read."""
    vectors, ids = given(tmp_path, unit(2, 16), ["a", "b"])
    with vectors.open("ab") as file:
        np.save(file, unit(2, 16))
    with pytest.raises(InputError, match="holds more than one array"):
        import_vectors(kb, vectors, ids, table="samples", name="mine")


def test_one_name_has_one_dimension(kb: Path, tmp_path: Path) -> None:
    """Vectors of another length under a name that is taken would be another model's."""
    import_vectors(kb, *given(tmp_path, unit(1, 16), ["a"]), table="samples", name="mine")
    with pytest.raises(InputError, match="8 dimensions, but the vectors imported as 'imported:mine' have 16"):
        import_vectors(kb, *given(tmp_path, unit(1, 8), ["r1"]), table="category_texts", name="mine")


def test_nothing_new_can_be_encoded_by_imported_vectors(kb: Path, tmp_path: Path) -> None:
    """An encoder that was never imported is named with those that were; none can be loaded to encode."""
    import_vectors(kb, *given(tmp_path, unit(1, 16), ["a"]), table="samples", name="mine")
    with pytest.raises(InputError, match=r"nothing was imported under this name \(there is imported:mine\)"):
        embed_samples(kb, tmp_path, Encode(samples="imported:other"))
    with pytest.raises(InputError, match="nothing new can be encoded"):
        load_encoder("imported:mine")


def _read_or_refused(path: Path, mutations: Callable[[bytes, int], Iterator[bytes]], number: int) -> int:
    """How many of that many damaged copies of a .npy are refused; every error but ours is raised."""
    content = path.read_bytes()
    refused = 0
    for copy in mutations(content, number):
        path.write_bytes(copy)
        try:
            x_ND = _read_matrix(path)
            _scale_to_unit(x_ND, list(map(str, range(len(x_ND)))), path)
        except InputError as error:
            assert str(path) in str(error)
            refused += 1
    return refused


def test_a_damaged_matrix_is_read_or_refused(
    tmp_path: Path, mutations: Callable[[bytes, int], Iterator[bytes]]
) -> None:
    """A few hundred damaged copies of a .npy: no library's error comes through."""
    np.save(tmp_path / "x.npy", unit(3, 2))
    assert _read_or_refused(tmp_path / "x.npy", mutations, 300) > 100


@pytest.mark.slow
def test_many_damaged_matrices_are_read_or_refused(
    tmp_path: Path, mutations: Callable[[bytes, int], Iterator[bytes]]
) -> None:
    """The same, thousands of times."""
    np.save(tmp_path / "x.npy", unit(3, 2))
    assert _read_or_refused(tmp_path / "x.npy", mutations, 20_000) > 7_000


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), \0",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (999999999999, 999999), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (-3, 2), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': " + b"(" * 300 + b")" * 300 + b", }",
        b"(((((",
    ],
)
def test_a_header_that_lies_is_refused(tmp_path: Path, header: bytes) -> None:
    """A header that is no Python, or that claims more than the file has, is one line."""
    head = header.ljust(502) + b"\n"
    path = tmp_path / "x.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + bytes(24))
    with pytest.raises(InputError, match=r"x\.npy: cannot be read as \.npy"):
        _read_matrix(path)


def test_ids_of_a_windows_editor(tmp_path: Path) -> None:
    """A byte-order mark and Windows' line endings do not belong to the first id."""
    (tmp_path / "ids.txt").write_bytes("\ufeffa b\r\n\r\nc\r\n".encode("utf-16-le"))
    assert _read_lines(tmp_path / "ids.txt") == ["a b", "c"]
    (tmp_path / "ids.txt").write_bytes(b"caf\xe9")
    with pytest.raises(InputError, match="as Windows-1252"):
        _read_lines(tmp_path / "ids.txt")
