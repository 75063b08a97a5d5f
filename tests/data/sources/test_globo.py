from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from recsys.core.errors import ConfigError, DataError
from recsys.data.batches.sequences.config import SequenceLoaderConfig
from recsys.data.contract.schema import FeatureKind, FeatureSide, TimelineKind
from recsys.data.loaders.sequences import SequenceDataModule
from recsys.data.prepare.describe import describe
from recsys.data.prepare.prepare import PrepareConfig, prepare
from recsys.data.sources.globo import GloboOptions, GloboSource
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.engagements.config import SequenceConfig
from recsys.data.stores.engagements.store import EngagementStore

HOUR = 3_600_000
# midnight of 1 October 2017 in Brasília, when the owners' log begins
OCTOBER_1 = 1_506_826_800_000
HEADER = (
    "user_id,session_id,session_start,session_size,click_article_id,click_timestamp,"
    "click_environment,click_deviceGroup,click_os,click_country,click_region,click_referrer_type"
)
# the first hours of the log, in the owners' layout; user 7 comes back with another device
HOURS = {
    "clicks_hour_000.csv": [
        f"7,1506826329267796,1506826329000,2,157541,{OCTOBER_1},4,3,20,1,20,2",
        f"7,1506826329267796,1506826329000,2,68866,{OCTOBER_1 + 1_000},4,3,20,1,20,2",
        f"9,1506826329267797,1506826329000,2,235840,{OCTOBER_1 + 2_000},4,1,17,1,16,1",
    ],
    "clicks_hour_001.csv": [
        f"9,1506826329267798,1506826329000,2,157541,{OCTOBER_1 + HOUR},4,1,17,1,16,5",
        f"7,1506826329267799,1506826329000,2,235840,{OCTOBER_1 + 48 * HOUR},2,1,17,11,28,1",
        f"8,1506826329267799,1506826329000,2,235840,{OCTOBER_1 + 80 * HOUR},4,1,17,1,25,1",
    ],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "globo"
    (path / "clicks").mkdir(parents=True)
    # users' clicks are in no order of time across files
    for name, lines in HOURS.items():
        (path / "clicks" / name).write_text("\n".join([HEADER, *lines]) + "\n")
    return path


def prepared(folder: Path, **options: str) -> PreparedDataset:
    out = folder.parent / "out"
    prepare(PrepareConfig(source="globo", path=str(folder), out=str(out), options=options))
    return PreparedDataset.open(out)


def raw_to_index(dataset: PreparedDataset, name: str) -> dict[int, int]:
    return dict(dataset.vocabulary(name).table.select("raw", "index").iter_rows())


def test_every_click_is_an_explicit_event(folder: Path):
    dataset = prepared(folder)
    users, items = raw_to_index(dataset, "user"), raw_to_index(dataset, "item")
    history = dataset.timelines.history(users[7], OCTOBER_1 + 100 * HOUR, TimelineKind.EXPLICIT)
    assert history["item"].tolist() == [items[157541], items[68866], items[235840]]
    assert history["timestamp"].tolist() == [
        OCTOBER_1,
        OCTOBER_1 + 1_000,
        OCTOBER_1 + 48 * HOUR,
    ]
    surfaces = [dataset.manifest.surfaces[code] for code in history["surface"]]
    assert surfaces == ["2", "2", "1"]  # referrer types
    assert dataset.manifest.counts["explicit_events"] == 6
    assert dataset.manifest.counts["implicit_events"] == 0


def test_a_user_is_described_by_the_first_click(folder: Path):
    dataset = prepared(folder)
    users = raw_to_index(dataset, "user")
    features = dataset.manifest.select(FeatureSide.USER, FeatureKind.CATEGORICAL)
    assert [feature.name for feature in features] == [
        "user_id",
        "environment",
        "device_group",
        "os",
        "country",
        "region",
    ]
    categorical = dataset.user_features.categorical
    # indices of what the fit period has: devices 1 and 3, systems 17 and 20, regions 16 and 20
    assert categorical[users[7], 1:].tolist() == [1, 2, 2, 1, 2]
    assert categorical[users[9], 1:].tolist() == [1, 1, 1, 1, 1]
    # user 8 comes after the fit period, from a region that the period does not have
    assert categorical[users[8], 1:].tolist() == [1, 1, 1, 1, 0]


def test_days_are_days_in_brasilia(folder: Path):
    day = 24 * HOUR
    assert prepared(folder).manifest.split_bounds == {
        "fit": (OCTOBER_1, OCTOBER_1 + 2 * day),
        "choose": (OCTOBER_1 + 2 * day, OCTOBER_1 + 3 * day),
        "report": (OCTOBER_1 + 3 * day, OCTOBER_1 + 4 * day),
    }
    with pytest.raises(ConfigError, match="must rise"):
        GloboSource(folder, GloboOptions(choose_from="2017-09-03"))


def test_without_request_rows_ranking_models_are_told(folder: Path):
    dataset = prepared(folder)
    assert dataset.manifest.tasks == ()
    with pytest.raises(DataError, match=r"has no request rows.*DV365.*sequence model"):
        dataset.requests("fit")
    assert "No request rows" in str(describe(dataset).renderables[1])


def test_categories_and_publishers_where_there_is_an_article_file(folder: Path):
    (folder / "articles_metadata.csv").write_text(
        "article_id,category_id,created_at_ts,publisher_id,words_count\n"
        "157541,281,1506826000000,0,200\n68866,136,1506826000000,3,150\n"
    )
    dataset = prepared(folder)
    items = raw_to_index(dataset, "item")
    topics, authors = raw_to_index(dataset, "topic"), raw_to_index(dataset, "author")
    of_item = dataset.item_features.categorical
    assert of_item[items[157541], 1:].tolist() == [authors[0], topics[281]]
    assert of_item[items[235840], 1:].tolist() == [0, 0]
    user = raw_to_index(dataset, "user")[7]
    history = dataset.timelines.history(user, OCTOBER_1 + HOUR, TimelineKind.EXPLICIT)
    assert history["topic"].tolist() == [topics[281], topics[136]]


def test_rows_that_do_not_fit_are_set_aside_and_describe_nobody(folder: Path):
    path = folder / "clicks" / "clicks_hour_001.csv"
    text = path.read_text()
    path.write_text(text + "10,1,1,2,oops,1506826800000,4,1,17,1,25,1\n11,1,1,2,5,,4,1,17,1,25,1\n")
    dataset = prepared(folder)
    assert dataset.manifest.rejected == {
        "click_article_id is not a whole number": 1,
        "timestamp is null": 1,
    }
    assert set(raw_to_index(dataset, "user")) == {7, 8, 9}


def test_missing_files_and_columns_are_sentences(tmp_path: Path, folder: Path):
    with pytest.raises(DataError, match=r"no clicks_hour_\*\.csv.*kaggle\.com"):
        prepared(tmp_path / "nowhere")
    path = folder / "clicks" / "clicks_hour_000.csv"
    path.write_text(path.read_text().replace("click_article_id", "article"))
    with pytest.raises(DataError, match="no column click_article_id or article_id"):
        prepared(folder)


def test_the_parquet_file_is_the_same_log(folder: Path):
    lines = [line for part in HOURS.values() for line in part]
    table = pl.read_csv("\n".join([HEADER, *lines]).encode())
    other = folder.parent / "parquet" / "globo"
    other.mkdir(parents=True)
    table.drop("session_start", "session_size").rename(
        {"click_article_id": "article_id", "click_timestamp": "timestamp_ms"}
    ).write_parquet(other / "clicks_with_embeddings.parquet")
    csv, parquet = prepared(folder), prepared(other)
    assert csv.manifest.counts == parquet.manifest.counts
    for side in ("user_features", "item_features"):
        one, two = getattr(csv, side).categorical, getattr(parquet, side).categorical
        assert one.tolist() == two.tolist()


def test_a_slice_of_the_real_log(data_dir: Path, tmp_path: Path):
    path = data_dir / "globo" / "clicks_with_embeddings.parquet"
    if not path.is_file():
        pytest.skip(f"{path} is not there: Globo's clicks")
    table = pl.read_parquet(path).filter(pl.col("user_id") % 97 == 0)
    folder = tmp_path / "globo"
    folder.mkdir()
    table.write_parquet(folder / path.name)
    dataset = prepared(folder)
    assert dataset.manifest.rejected == {}
    users = raw_to_index(dataset, "user")
    assert len(users) == table["user_id"].n_unique() > 500
    for (user,), clicks in table.sort("timestamp_ms").head(2_000).group_by("user_id"):
        all_clicks = table.filter(user_id=user).sort("timestamp_ms")
        history = dataset.timelines.history(users[user], 1 << 60, TimelineKind.EXPLICIT)
        assert history["timestamp"].tolist() == all_clicks["timestamp_ms"].to_list()
        assert clicks.height <= all_clicks.height
    first, last = dataset.manifest.split_bounds["fit"]
    assert table["timestamp_ms"].min() - first < HOUR  # the log begins at Brasília's midnight
    assert (table["timestamp_ms"].is_between(first, last)).mean() > 0.5
    # what a model is asked on the reported day, and what it may see
    store = EngagementStore.open(dataset, SequenceConfig())
    data = SequenceDataModule(SequenceLoaderConfig(max_length=20), dataset, store)
    items = {index: raw for raw, index in raw_to_index(dataset, "item").items()}
    raw_users = {index: raw for raw, index in users.items()}
    first_clicks = table.sort("timestamp_ms").unique(["user_id", "article_id"], keep="first")
    queries = 0
    for batch in data.test_dataloader():
        histories = batch.item.split(batch.lengths.tolist())
        for user, time, history, label in zip(
            batch.user.tolist(),
            batch.request_time.tolist(),
            histories,
            batch.label_item,
            strict=True,
        ):
            mine = first_clicks.filter(user_id=raw_users[user]).sort("timestamp_ms")
            before = mine.filter(pl.col("timestamp_ms") < time)["article_id"].to_list()
            assert [items[item] for item in history.tolist()] == before[-20:]
            now = mine.filter(timestamp_ms=time)["article_id"].to_list()
            assert items[label.item()] in now
            queries += 1
    first, last = dataset.manifest.split_bounds["report"]
    assert queries == first_clicks["timestamp_ms"].is_between(first, last, closed="left").sum()
