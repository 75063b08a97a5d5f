"""Embeddings aligned to a log's items: by hand, what is left out, and files that cannot be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.core.errors import DataError
from recsys.data.content.item_embeddings import (
    ITEM_EMBEDDINGS_FILE,
    EmbeddingReport,
    ItemEmbeddings,
    read_embeddings,
    write_item_embeddings,
)
from recsys.data.stores.vocabulary import IdMode, Vocabulary


def vocabulary_of(*ids: int | str, mode: IdMode = IdMode.DICTIONARY, buckets: int = 0):
    seen = pl.DataFrame({"raw": list(ids), "first_seen": range(len(ids))})
    return Vocabulary.build(seen, mode, buckets)


def test_rows_are_aligned_normalised_and_counted(tmp_path: Path):
    path = tmp_path / "article_embeddings.npz"
    rows = {
        30: [3.0, 4.0],
        99: [1.0, 1.0],  # not in the log
        10: [np.nan, 1.0],
        20: [0.0, 0.0],
        40: [0.0, -2.0],
    }
    ids = np.array([*rows, 30], np.int32)  # 30 once more, otherwise
    embeddings = np.array([*rows.values(), [5.0, 5.0]], np.float16)
    np.savez(path, article_id=ids, embedding=embeddings)
    items = ItemEmbeddings.load(path, vocabulary_of(10, 20, 30, 40, 50, 60), width=2)
    np.testing.assert_allclose(
        items.matrix, [[0, 0], [0, 0], [0, 0], [0.6, 0.8], [0, -1], [0, 0], [0, 0]], rtol=1e-6
    )
    assert items.matrix.dtype == np.float32 and items.width == 2
    assert items.known.tolist() == [False, False, False, True, True, False, False]
    assert items.report == EmbeddingReport(
        items=6,
        known=2,
        without_embedding=2,
        not_finite=1,
        zero_norm=1,
        duplicates=1,
        not_in_log=1,
    )


def test_the_first_row_of_an_item_that_can_be_used_counts(tmp_path: Path):
    path = tmp_path / ITEM_EMBEDDINGS_FILE
    rows = np.array([[np.nan, 1], [0, 0], [3, 4], [0, 1], [1, np.inf]])
    write_item_embeddings(path, np.array([1, 2, 1, 1, 2]), rows)
    items = ItemEmbeddings.load(path, vocabulary_of(1, 2))
    np.testing.assert_allclose(items.matrix[1:], [[0.6, 0.8], [0, 0]], rtol=1e-6)
    assert items.report == EmbeddingReport(
        items=2,
        known=1,
        without_embedding=0,
        not_finite=0,
        zero_norm=1,
        duplicates=3,
        not_in_log=0,
    )


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=20),
    st.sets(st.integers(1, 30), min_size=1),
    st.sampled_from(["npz", "fixed", "list", "folder"]),
    st.booleans(),
)
def test_every_layout_gives_the_same(tmp_path_factory, ids, log, layout, text_ids):
    folder = tmp_path_factory.mktemp("embeddings")
    vectors = np.random.default_rng(1).normal(size=(len(ids), 3)).astype(np.float32)
    raw = [f"p{i}" for i in ids] if text_ids else ids
    path = folder / ("x.npz" if layout == "npz" else ITEM_EMBEDDINGS_FILE)
    if layout == "npz":
        np.savez(path, post_id=np.array(raw), embedding=vectors)
    elif layout == "list":
        pl.DataFrame({"item_id": raw, "embedding": vectors.tolist()}).write_parquet(path)
    else:
        write_item_embeddings(path, pl.Series(raw), vectors)
    in_log = sorted(log)
    vocabulary = vocabulary_of(*(f"p{i}" if text_ids else i for i in in_log))
    path = folder if layout == "folder" else path
    if not set(ids) & log:
        with pytest.raises(DataError, match="is an item of the log"):
            ItemEmbeddings.load(path, vocabulary)
        return
    items = ItemEmbeddings.load(path, vocabulary)
    for index, item in enumerate(in_log, start=1):
        assert items.known[index] == (item in ids)
        if item in ids:
            vector = vectors[ids.index(item)]
            np.testing.assert_allclose(
                items.matrix[index], vector / np.linalg.norm(vector), rtol=1e-5
            )
    report = items.report
    assert report.known == len(set(ids) & log)
    assert report.known + report.without_embedding == report.items == len(log)
    assert report.duplicates == len(ids) - len(set(ids))
    assert report.not_in_log == len(set(ids) - log)


def test_huge_and_tiny_embeddings_have_a_direction(tmp_path: Path):
    path = tmp_path / ITEM_EMBEDDINGS_FILE
    write_item_embeddings(path, np.array([1, 2]), np.array([[3e30, 4e30], [3e-30, 4e-30]]))
    items = ItemEmbeddings.load(path, vocabulary_of(1, 2))
    np.testing.assert_allclose(items.matrix[1:], [[0.6, 0.8], [0.6, 0.8]], rtol=1e-6)


def test_ids_may_be_numbers_in_the_log_and_text_in_the_file(tmp_path: Path):
    path = tmp_path / ITEM_EMBEDDINGS_FILE
    write_item_embeddings(path, pl.Series(["1", "x", "2"]), np.eye(3, dtype=np.float32))
    items = ItemEmbeddings.load(path, vocabulary_of(1, 2))
    assert items.matrix.tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, 1]]


def test_ids_of_a_file_are_matched_as_they_are_written(tmp_path: Path):
    path = tmp_path / ITEM_EMBEDDINGS_FILE
    write_item_embeddings(path, pl.Series(["7", "007", "8"]), np.eye(3, dtype=np.float32))
    items = ItemEmbeddings.load(path, vocabulary_of(7, 8))
    assert items.matrix.tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, 1]]
    assert (items.report.duplicates, items.report.not_in_log) == (0, 1)
    write_item_embeddings(path, pl.Series(["007", "8.0"]), np.eye(2, dtype=np.float32))
    with pytest.raises(DataError, match=r"none of the 2 ids .* '007'.* written as there"):
        ItemEmbeddings.load(path, vocabulary_of(7, 8))
    large = pl.Series([2**63, 2**64 - 1, 7], dtype=pl.UInt64)
    write_item_embeddings(path, large, np.eye(3, dtype=np.float32))
    assert read_embeddings(path)[0].to_list() == large.to_list()
    assert ItemEmbeddings.load(path, vocabulary_of(7, 8)).report.known == 1


def test_an_embedding_too_large_for_its_type_is_left_out(tmp_path: Path):
    path = tmp_path / "p.npz"
    np.savez(path, post_id=np.arange(1, 4), embedding=np.array([[1e300, 0], [3, 4], [np.nan, 1]]))
    items = ItemEmbeddings.load(path, vocabulary_of(1, 2, 3))
    assert items.known.tolist() == [False, False, True, False]
    assert items.report.not_finite == 2


@settings(max_examples=80, deadline=None)
@given(st.data(), st.sampled_from(["p.npz", ITEM_EMBEDDINGS_FILE]))
def test_flipped_bytes_are_a_sentence_or_without_effect(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, name: str
):
    path = tmp_path_factory.mktemp("damaged") / name
    ids, embeddings = np.arange(20), np.arange(40, dtype=np.float32).reshape(20, 2)
    if path.suffix == ".npz":
        np.savez_compressed(path, post_id=ids, embedding=embeddings)
    else:
        write_item_embeddings(path, ids, embeddings)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        found, rows = read_embeddings(path)
    except DataError as error:
        assert name in str(error)
    else:
        assert found.to_list() == ids.tolist()
        np.testing.assert_array_equal(rows, embeddings)


def test_repeated_columns_are_a_sentence(tmp_path: Path):
    path = tmp_path / ITEM_EMBEDDINGS_FILE
    write_item_embeddings(path, np.arange(3), np.eye(3, dtype=np.float32))
    table = pq.read_table(path)
    for name in table.column_names:
        pq.write_table(table.append_column(name, table[name]), path)
        with pytest.raises(DataError, match=f"has 2 columns named {name}"):
            read_embeddings(path)


def test_hashed_ids_share_rows(tmp_path: Path):
    vocabulary = vocabulary_of(*range(1, 9), mode=IdMode.HASHED, buckets=4)
    path = tmp_path / ITEM_EMBEDDINGS_FILE
    write_item_embeddings(path, np.arange(1, 9), np.eye(8, dtype=np.float32))
    items = ItemEmbeddings.load(path, vocabulary)
    assert items.matrix.shape == (4, 8) and not items.known[0]
    np.testing.assert_allclose(np.linalg.norm(items.matrix[items.known], axis=1), 1)


def test_a_null_embedding_is_none(tmp_path: Path):
    path = tmp_path / ITEM_EMBEDDINGS_FILE
    pl.DataFrame(
        {"item_id": [1, 2, 3], "embedding": [[1.0, 0.0], None, [None, 1.0]]}
    ).write_parquet(path)
    report = ItemEmbeddings.load(path, vocabulary_of(1, 2, 3)).report
    assert (report.known, report.without_embedding, report.not_finite) == (1, 1, 1)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, r"p\.npz is missing"),
        (b"PK\x03\x04cut off", r"p\.npz is no readable"),
        ({"embedding": np.eye(2)}, r"has embedding; expected one id column"),
        ({"post_id": np.arange(2)}, r"has post_id; expected one id column"),
        ({"a_id": np.arange(2), "b_id": np.arange(2), "embedding": np.eye(2)}, "one id column"),
        ({"post_id": np.arange(3), "embedding": np.eye(2)}, r"3 ids and .* shape \(2, 2\)"),
        ({"post_id": np.arange(2), "embedding": np.array(["a", "b"])}, "one row of numbers"),
        ({"post_id": np.arange(2), "embedding": np.array([["a"], ["b"]])}, "expected numbers"),
        ({"post_id": np.array([7, 8]), "embedding": np.eye(2)}, r"none of the 2 ids .* 7.* 1"),
        ({"post_id": np.arange(2), "embedding": np.eye(2) * 1j}, "expected numbers"),
        (
            {"post_id": np.arange(2), "embedding": np.array([{}, {}])},
            "no readable .* allow_pickle=False",
        ),
        ({"post_id": np.eye(2), "embedding": np.eye(2)}, "ids are whole numbers or text"),
        (
            {"post_id": np.array([1.0, 2.5]), "embedding": np.eye(2)},
            "column post_id: ids are whole numbers or text",
        ),
    ],
)
def test_files_that_cannot_be_used_are_sentences(tmp_path: Path, content, sentence):
    path = tmp_path / "p.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.savez(path, **content)
    with pytest.raises(DataError, match=sentence):
        ItemEmbeddings.load(path, vocabulary_of(1, 2))


def test_parquet_that_cannot_be_used_is_a_sentence(tmp_path: Path):
    path = tmp_path / ITEM_EMBEDDINGS_FILE
    with pytest.raises(DataError, match=r"post_embeddings\.parquet is missing"):
        ItemEmbeddings.load(tmp_path, vocabulary_of(1))
    path.write_bytes(b"PAR1")
    with pytest.raises(DataError, match="no readable"):
        ItemEmbeddings.load(tmp_path, vocabulary_of(1))
    pl.DataFrame({"item_id": [1, 2], "embedding": [[1.0], [1.0, 2.0]]}).write_parquet(path)
    with pytest.raises(DataError, match="row 1: an embedding of width 2 among those of width 1"):
        ItemEmbeddings.load(path, vocabulary_of(1))
    pl.DataFrame({"item_id": [1, 2], "embedding": [1.0, 2.0]}).write_parquet(path)
    with pytest.raises(DataError, match="expected lists of numbers, found double"):
        ItemEmbeddings.load(path, vocabulary_of(1))
    pq.write_table(
        pa.table({"item_id": [1], "embedding": pa.array([None], pa.list_(pa.float32()))}), path
    )
    with pytest.raises(DataError, match="holds no embedding"):
        ItemEmbeddings.load(path, vocabulary_of(1))
    pl.DataFrame({"item_id": [1, None], "embedding": [[1.0], [2.0]]}).write_parquet(path)
    with pytest.raises(DataError, match="has 1 rows without an id"):
        ItemEmbeddings.load(path, vocabulary_of(1))


def test_text_ids_may_be_categories(tmp_path: Path):
    path = tmp_path / ITEM_EMBEDDINGS_FILE
    ids = pl.Series(["a", "b"], dtype=pl.Categorical)
    pl.DataFrame({"item_id": ids, "embedding": [[1.0, 0.0], [0.0, 1.0]]}).write_parquet(path)
    items = ItemEmbeddings.load(path, vocabulary_of("b"))
    assert items.matrix.tolist() == [[0, 0], [0, 1]]


def test_another_width_is_a_sentence(tmp_path: Path):
    path = tmp_path / ITEM_EMBEDDINGS_FILE
    write_item_embeddings(path, np.array([1]), np.ones((1, 3), np.float16))
    with pytest.raises(DataError, match="width 3, expected 4"):
        ItemEmbeddings.load(path, vocabulary_of(1), width=4)


def test_the_real_embeddings(data_dir: Path):
    path = data_dir / "globo" / "article_embeddings.npz"
    if not path.is_file():
        pytest.skip(f"{path} is not there: embeddings of Globo's articles")
    with np.load(path) as arrays:
        ids, vectors = arrays["article_id"], arrays["embedding"].astype(np.float64)
    items = ItemEmbeddings.load(path, vocabulary_of(*reversed(ids.tolist())), width=250)
    assert items.report.known == len(ids) and items.known[1:].all()
    expected = vectors[::-1] / np.linalg.norm(vectors[::-1], axis=1, keepdims=True)
    np.testing.assert_allclose(items.matrix[1:], expected, atol=1e-6)
