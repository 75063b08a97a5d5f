from __future__ import annotations

import gzip
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from recsys.core.errors import DataError
from recsys.data.contract import csv_files
from recsys.data.contract.file_names import data_files, partition_values
from recsys.data.contract.files import column_names, column_types, read_chunks, read_table
from recsys.data.contract.log import LogReader, split_rows
from recsys.data.contract.parquet import write_frame
from recsys.data.contract.time_columns import TimeFormat

TABLE = pl.DataFrame({"user_id": ["007", "b"], "rating": [1.5, None]})


def write(path: Path, frame: pl.DataFrame = TABLE) -> Path:
    """A frame in the form that the path ends in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        frame.write_parquet(path)
        return path
    separator = "," if ".csv" in path.name else "\t"
    content = frame.write_csv(separator=separator).encode()
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(content))
    elif path.suffix == ".zst":
        with pa.CompressedOutputStream(str(path), "zstd") as stream:
            stream.write(content)
    else:
        path.write_bytes(content)
    return path


FORMS = [f"t{kind}{packed}" for kind in (".csv", ".tsv") for packed in ("", ".gz", ".zst")]


@pytest.mark.parametrize("name", [*FORMS, "T.CSV.GZ".lower(), "t.parquet", "t.v2.csv.gz"])
def test_every_form_is_the_same_table(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name)
    assert data_files(path) == [path]
    assert data_files(tmp_path) == [path]
    assert column_names(path) == ["user_id", "rating"]
    assert list(column_types(path)) == ["user_id", "rating"]
    table = read_table(path, {"rating": pl.Float64(), "user_id": pl.String()})
    assert table.equals(TABLE.select("rating", "user_id"))


@pytest.mark.parametrize("ending", [".gz", ".zst"])
@pytest.mark.parametrize("damage", ["cut", "changed", "plain", "empty"])
def test_damage_of_a_compressed_file_is_a_sentence(
    tmp_path: Path, ending: str, damage: str
) -> None:
    whole = TABLE.sample(50_000, with_replacement=True, seed=0)
    path = write(tmp_path / f"t.csv{ending}", whole)
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "changed":
        content[len(content) // 2] ^= 255
    else:
        content = bytearray(b"user_id,rating\n1,2\n" if damage == "plain" else b"")
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"t\.csv\{ending} "):
        list(read_chunks(path))


@pytest.mark.parametrize("name", ["t.gz", "t.parquet.gz", "t.json", "t.csv.zip"])
def test_other_files_are_no_tables(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=r"is not Parquet .* or RecBole \(\.inter\)"):
        data_files(tmp_path / name)
    with pytest.raises(DataError, match="holds no file of Parquet"):
        data_files(tmp_path)


def test_atomic_files_of_recbole(tmp_path: Path) -> None:
    folder = tmp_path / "ml-100k"
    folder.mkdir()
    (folder / "ml-100k.inter").write_text(
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
        "196\t242\t3\t881250949\n186\t302\t3.5\t891717742.0\n"
    )
    (folder / "ml-100k.item").write_text(
        "item_id:token\tmovie_title:token_seq\n242\tKolya, or: the (1996)\n"
    )
    (folder / "ml-100k.user").write_text("user_id:token\tage:token\n196\t49\n")
    assert [path.suffix for path in data_files(folder)] == [".inter"]
    assert [path.suffix for path in data_files(folder, "options.items.path")] == [".item"]
    assert [path.suffix for path in data_files(folder, "users")] == [".user"]
    item = data_files(folder, "items")[0]
    assert column_names(item) == ["item_id", "movie_title"]
    [chunk] = read_chunks(item)
    assert chunk.rows() == [("242", "Kolya, or: the (1996)")]
    with pytest.raises(DataError, match=r"set options\.time_unit=s"):
        list(LogReader(folder))
    [log] = LogReader(folder, times=TimeFormat("s"))
    good, bad = split_rows(log)
    assert bad.is_empty()
    assert good["timestamp"].to_list() == [881_250_949_000, 891_717_742_000]
    assert good["item_id"].to_list() == [242, 302]


def test_folders_of_hive_are_columns(tmp_path: Path) -> None:
    days = tmp_path / "log"
    write(days / "date=2024-05-01" / "kind=a%2Fb" / "part.parquet")
    write(days / "date=2024-05-02" / "kind=__HIVE_DEFAULT_PARTITION__" / "part.csv.gz")
    first, second = data_files(days)
    assert partition_values(first) == {"date": "2024-05-01", "kind": "a/b"}
    assert partition_values(second) == {"date": "2024-05-02", "kind": None}
    assert column_names(first) == ["user_id", "rating", "date", "kind"]
    assert column_types(first)["date"] == pl.String
    wanted = ["kind", "user_id", "date"]
    rows = [row for path in (first, second) for row in read_table_rows(path, wanted)]
    assert rows == [
        ("a/b", "007", "2024-05-01"),
        ("a/b", "b", "2024-05-01"),
        (None, "007", "2024-05-02"),
        (None, "b", "2024-05-02"),
    ]
    assert read_table_rows(first, ["date"]) == [("2024-05-01",)] * 2
    assert [chunk.columns for chunk in read_chunks(first)] == [["user_id", "rating"]]
    with pytest.raises(DataError, match=r"has no column day.*user_id, rating, date, kind"):
        read_table_rows(first, ["day"])


def read_table_rows(path: Path, columns: list[str]) -> list[tuple]:
    return [row for chunk in read_chunks(path, columns) for row in chunk.iter_rows()]


def test_a_column_of_the_file_is_before_one_of_its_folder(tmp_path: Path) -> None:
    path = write(tmp_path / "rating=9" / "part.parquet")
    assert column_names(path) == ["user_id", "rating"]
    assert read_table_rows(path, ["rating"]) == [(1.5,), (None,)]


def test_a_log_may_have_its_days_and_users_in_folders(tmp_path: Path) -> None:
    items = pl.DataFrame({"item_id": [5, 6]})
    write(tmp_path / "user_id=3" / "date=2024-05-01" / "part.parquet", items)
    write(tmp_path / "user_id=12" / "date=2024-05-02" / "part.parquet", items)
    reader = LogReader(tmp_path, columns={"timestamp": "date"}, times=TimeFormat("iso"))
    log = pl.concat(list(reader)).sort("timestamp")
    assert log["user_id"].to_list() == [3, 3, 12, 12]
    assert log["timestamp"].to_list() == [1_714_521_600_000] * 2 + [1_714_608_000_000] * 2
    write(tmp_path / "user_id=x" / "date=2024-05-02" / "part.parquet", items)
    assert pl.concat(list(reader))["user_id"].dtype == pl.String


@pytest.mark.parametrize(
    ("text", "names", "first"),
    [
        (",a,b\n0,x,1\n", ["a", "b"], ("x", "1")),
        ('"",a,b\n0,x,1\n', ["a", "b"], ("x", "1")),
        ("a,b,\nx,1,\n", ["a", "b"], ("x", "1")),
        (",a,,b\n0,x,9,1\n", ["a", "b"], ("x", "1")),
        ("\n \na,b\nx,1\n", ["a", "b"], ("x", "1")),
        ('"a;b;c",d\nx,1\n', ["a;b;c", "d"], ("x", "1")),
        ('a;"b,c,d"\nx;1\n', ["a", "b,c,d"], ("x", "1")),
        ("user|id\n7\n", ["user|id"], ("7",)),
        ('"user|id"\n7|8\n', ["user|id"], ("7|8",)),
        ('a;b\n"x\ny";1\n', ["a", "b"], ("x\ny", "1")),
    ],
)
def test_headers_as_programs_write_them(
    tmp_path: Path, text: str, names: list[str], first: tuple[str, ...]
) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    assert column_names(path) == names == list(column_types(path))
    (chunk,) = read_chunks(path)
    assert (chunk.columns, chunk.row(0)) == (names, first)


def test_columns_without_a_name_in_parquet_and_recbole(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_frame(path, pl.DataFrame({"": [0], "a": ["x"]}))
    assert column_names(path) == ["a"] == list(column_types(path))
    assert next(read_chunks(path)).rows() == [("x",)]
    atomic = tmp_path / "t.inter"
    atomic.write_text("\ta:token\n0\tx\n")
    assert next(read_chunks(atomic)).rows() == [("x",)]
    for nameless in (path, csv := tmp_path / "t.csv"):
        write_frame(path, pl.DataFrame({"": [0]}))
        csv.write_text(",\n1,2\n")
        with pytest.raises(DataError, match="names none of its columns"):
            column_names(nameless)


def test_line_breaks_between_quotes_where_a_block_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_files, "_CSV_BLOCK_BYTES", 64)
    table = pl.DataFrame({"a": [f"{n}\n\nx" for n in range(200)], "b": ["y\n"] * 200})
    table.write_csv(tmp_path / "t.csv")
    assert pl.concat(read_chunks(tmp_path / "t.csv")).equals(table)
