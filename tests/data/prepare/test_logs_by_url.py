"""Logs that lie in an object store: the same data sets as from the disk, by the same commands."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import polars as pl
import pytest

from recsys.cli import append, infer, prepare
from recsys.core import location
from recsys.core.errors import ConfigError, DataError
from recsys.data.contract.input_files import load_input_files
from recsys.data.contract.log import LogReader
from recsys.data.stores.dataset import PreparedDataset
from tests.object_store import KEY, SECRET, ObjectStore

_DAY = 86_400_000
_START = 1_714_521_600_000


def _log(first_day: int, days: int) -> pl.DataFrame:
    moments = range(_START + first_day * _DAY, _START + (first_day + days) * _DAY, _DAY // 40)
    rows = list(enumerate(moments))
    return pl.DataFrame(
        {
            "member": [f"u{number % 7}" for number, _ in rows],
            "article": [number * 5 % 23 for number, _ in rows],
            "at": [moment for _, moment in rows],
            "what": ["click" if number % 3 else "impression" for number, _ in rows],
        }
    )


def _write(folder: Path) -> None:
    """A log of two files of different forms in Hive's folders, and a table of items."""
    for day, name in ((0, "day=1"), (4, "day=2")):
        (folder / "events" / name).mkdir(parents=True)
        log = _log(day, 4)
        if day:
            log.write_csv(folder / "events" / name / "part.csv")
        else:
            log.write_parquet(folder / "events" / name / "part.parquet", row_group_size=50)
    items = pl.DataFrame({"article": range(23), "brand": [f"b{n % 4}" for n in range(23)]})
    items.write_csv(folder / "items.tsv", separator="\t")


def _description(place: str) -> str:
    columns = "{user_id: member, item_id: article, timestamp: at, action_type: what}"
    return f"""path: {place}/events
options:
  columns: {columns}
  items: {{path: {place}/items.tsv, categorical: [brand]}}
"""


def _contents(folder: Path) -> dict[str, bytes]:
    names = ("inputs.json", "dataset.json")
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name not in names)
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_a_log_at_a_url_is_prepared_as_one_on_the_disk(
    object_store: ObjectStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(tmp_path / "files")
    object_store.put(tmp_path / "files", object_store.bucket)
    for name, place in (("disk", str(tmp_path / "files")), ("store", object_store.bucket)):
        (tmp_path / f"{name}.yaml").write_text(_description(place))
        prepare.run([str(tmp_path / f"{name}.yaml"), f"out={tmp_path / name}"])
    assert _contents(tmp_path / "store") == _contents(tmp_path / "disk")
    assert PreparedDataset.open(tmp_path / "store").manifest.counts["events"] == 320
    files = load_input_files(tmp_path / "store")
    assert [file.name for file in files] == [
        "day=1/part.parquet",
        "day=2/part.csv",
        "items/items.tsv",
    ]
    assert all(file.digest.startswith("etag:") and file.size for file in files)
    prepare.run([str(tmp_path / "store.yaml"), f"out={tmp_path / 'store'}"])
    assert "is prepared already" in capsys.readouterr().err
    recorded = (tmp_path / "store" / "dataset.json").read_text() + str(files)
    assert SECRET not in recorded
    assert KEY not in recorded


def test_a_log_at_a_url_is_read_in_pieces_by_other_processes(
    object_store: ObjectStore, tmp_path: Path
) -> None:
    _write(tmp_path / "files")
    object_store.put(tmp_path / "files", object_store.bucket)
    columns = {"user_id": "member", "item_id": "article", "timestamp": "at", "action_type": "what"}
    reader = LogReader(location.located(f"{object_store.bucket}/events"), columns, chunk_rows=30)
    blocks = pickle.loads(pickle.dumps(reader.blocks(60)))
    assert len(blocks) == 4  # 160 rows of Parquet in three, a file of CSV in one
    assert pl.concat(chunk for one in blocks for chunk in reader.read(one)).equals(
        pl.concat(reader)
    )


def test_days_at_a_url_are_appended(object_store: ObjectStore, tmp_path: Path) -> None:
    _write(tmp_path / "files")
    object_store.put(tmp_path / "files", object_store.bucket)
    description = tmp_path / "mine.yaml"
    description.write_text(_description(object_store.bucket))
    out = f"out={tmp_path / 'mine'}"
    prepare.run([str(description), out])
    _log(8, 1).write_parquet(tmp_path / "day.parquet")
    object_store.put(tmp_path / "day.parquet", f"{object_store.bucket}/events/day=3/part.parquet")
    append.run([str(description), out])
    manifest = PreparedDataset.open(tmp_path / "mine").manifest
    assert (manifest.generation, manifest.counts["events"]) == (1, 360)
    generations = [file.generation for file in load_input_files(tmp_path / "mine")]
    assert sorted(generations) == [0, 0, 0, 1]


def test_a_description_of_a_log_at_a_url_is_drafted(
    object_store: ObjectStore, tmp_path: Path
) -> None:
    _write(tmp_path / "files")
    object_store.put(tmp_path / "files", object_store.bucket)
    bucket, draft = object_store.bucket, tmp_path / "drafts" / "mine.yaml"
    infer.run([f"path={bucket}/events", f"items={bucket}/items.tsv", f"out={draft}"])
    assert f"path: {bucket}/events" in draft.read_text()
    prepare.run([str(draft), f"out={tmp_path / 'mine'}"])
    assert PreparedDataset.open(tmp_path / "mine").manifest.counts["events"] == 320


@pytest.mark.parametrize("password", ["s3://AKIA12:hidden@logs/day", "s3://logs/day?Sign=hidden"])
def test_a_url_with_a_secret_is_refused_and_not_shown(password: str) -> None:
    with pytest.raises(ConfigError, match="neither a password nor a query") as caught:
        prepare.configure([f"path='{password}'", "out=x"])
    assert "hidden" not in str(caught.value)
    assert "AKIA12" not in str(caught.value)


def test_what_is_wrong_with_a_store_is_one_sentence(
    object_store: ObjectStore, tmp_path: Path
) -> None:
    def refused(path: str) -> str:
        with pytest.raises(DataError) as caught:
            prepare.run([f"path={path}", f"out={tmp_path / 'out'}"])
        assert SECRET not in str(caught.value)
        assert not (tmp_path / "out").exists()
        return str(caught.value)

    assert "does not exist" in refused(f"{object_store.bucket}/nothing")
    assert "does not exist" in refused("s3://no-such-bucket/day.parquet")
    _log(0, 4).write_parquet(tmp_path / "day.parquet")
    cut = tmp_path / "cut.parquet"
    cut.write_bytes((tmp_path / "day.parquet").read_bytes()[:-40])
    object_store.put(cut, f"{object_store.bucket}/cut.parquet")
    assert "is not a complete Parquet file" in refused(f"{object_store.bucket}/cut.parquet")
    _log(0, 4).write_csv(tmp_path / "day.csv.gz", compression="gzip", check_extension=False)
    cut.write_bytes((tmp_path / "day.csv.gz").read_bytes()[:-40])
    object_store.put(cut, f"{object_store.bucket}/cut.csv.gz")
    assert "it was cut off" in refused(f"{object_store.bucket}/cut.csv.gz")


def test_a_file_url_is_a_path(tmp_path: Path) -> None:
    folder = tmp_path / "my files"
    _write(folder)
    description = tmp_path / "mine.yaml"
    description.write_text(_description(folder.as_uri()))
    prepare.run([str(description), f"out={tmp_path / 'mine'}"])
    inputs = json.loads((tmp_path / "mine" / "inputs.json").read_text())["files"]
    assert not any(one["digest"].startswith("etag:") for one in inputs)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cut.parquet", "the connection to its store failed"),
        ("late.csv", "its clock is right"),
        ("secret.csv", "whether this machine has credentials"),
    ],
)
def test_a_store_that_refuses_is_no_damaged_file(
    name: str, said: str, refusing_store: None, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=said) as caught:
        prepare.run([f"path=s3://logs/{name}", f"out={tmp_path / 'out'}"])
    assert SECRET not in str(caught.value)
    assert KEY not in str(caught.value)
    assert not (tmp_path / "out").exists()
