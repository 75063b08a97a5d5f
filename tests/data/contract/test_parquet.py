"""A path is a name: no pattern, protocol or home folder."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

import recsys
from recsys.data.contract.file_names import partition_values
from recsys.data.contract.files import column_types, read_chunks
from recsys.data.contract.parquet import (
    parquet_writer,
    read_metadata,
    read_parquet,
    read_schema,
    scan_parquet,
    write_frame,
    write_parquet,
)

NAMES = [
    "i[1]",
    "a*b",
    "a?b",
    "{a,b}",
    "a:b",
    "s3:a",
    "file:a",
    "~",
    "~root",
    "a=b",
    "a b%20",
    "**",
]
#: What the names above would find as patterns.
OTHERS = ["i1", "axb", "ab", "a", "b"]

PACKAGE = Path(recsys.__file__).parent
#: What reads or writes a table by a path, in polars and Arrow.
BY_PATH = re.compile(
    r"\bpl\.(?:read|scan)_\w+\((?!io\.BytesIO\()|\.(?:write_parquet|write_ipc|sink_\w+)\("
    r"|\bpq\.\w+\(|\bcsv\.(?:open|read)_csv\(|\bglob\.i?glob\("
)
#: The module that may, and calls that are given bytes, an opened file or an absolute path.
ALLOWED = {
    ("data/contract/given_tables.py", "pl.read_ndjson("),
    ("data/contract/csv_files.py", "csv.open_csv("),
    ("data/contract/table_snapshots.py", "pl.scan_delta("),
    ("data/contract/table_snapshots.py", "pl.scan_iceberg("),
    ("data/simulator/calibration.py", "pl.read_csv("),
    ("runs/metrics_log.py", "pl.read_csv("),
    ("data/prepare/spill.py", "pl.read_ipc_stream("),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_found_by_its_very_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)  # a relative path is where `~` and `s3:` would be understood
    for other in OTHERS:
        Path(other).mkdir()
        pl.DataFrame({"other": ["wrong"]}).write_parquet(Path(other) / "x.parquet")
    path = Path(name) / "x.parquet"
    path.parent.mkdir()
    frame = pl.DataFrame({"id": [1, 2]})
    write_frame(path, frame, {"made": "here"})
    assert path.is_file()
    assert read_parquet(path).equals(frame)
    assert scan_parquet([path]).collect().equals(frame)
    assert read_metadata(path)["made"] == "here"
    assert read_schema(path) == {"id": pl.Int64}
    # a folder named a=b is one of Hive's
    of_folder = dict.fromkeys(partition_values(path), pl.String)
    assert column_types(path) == {"id": pl.Int64} | of_folder
    assert pl.concat(read_chunks(path)).equals(frame)
    write_parquet(path, pa.table({"id": [3]}))
    assert read_parquet(path)["id"].to_list() == [3]
    with parquet_writer(path, pa.schema({"id": pa.int64()})) as writer:
        writer.write_table(pa.table({"id": [4]}))
    assert read_parquet(path)["id"].to_list() == [4]
    csv = path.with_name("x.csv")
    csv.write_text("id\n5\n")
    assert pl.concat(read_chunks(csv))["id"].to_list() == ["5"]


def test_no_other_module_hands_a_path_to_the_libraries() -> None:
    found = {
        (file.relative_to(PACKAGE).as_posix(), call)
        for file in PACKAGE.rglob("*.py")
        for call in BY_PATH.findall(file.read_text())
    }
    others = {one for one in found - ALLOWED if one[0] != "data/contract/parquet.py"}
    assert not others, "recsys.data.contract.parquet reads and writes tables by their names"
