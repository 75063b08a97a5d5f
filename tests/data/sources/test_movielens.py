from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.core.errors import DataError
from recsys.data.batches.sequences.config import SequenceLoaderConfig
from recsys.data.contract.schema import FeatureKind, FeatureSide
from recsys.data.loaders.sequences import SequenceDataModule
from recsys.data.prepare.prepare import PrepareConfig, prepare
from recsys.data.sources.movielens import MovieLensSource
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.engagements.config import SequenceConfig
from recsys.data.stores.engagements.store import EngagementStore

MOVIES = (
    "1::Toy Story (1995)::Animation|Children's|Comedy\n"
    "2::Jumanji (1995)::Adventure\n"
    "3::Cité des enfants perdus, La (The City of Lost Children) (1995)::Adventure|Sci-Fi\n"
    "4::Metropolis (1926)::Sci-Fi\n"
)
USERS = "1::F::1::10::48067\n2::M::56::16::70072\n3::M::25::15::06810\n"
# user 1 in order of time: 3, 1, 4, 2 (1 and 4 at once); user 2 has two films, user 3 has three
RATINGS = (
    "1::2::5::978300999\n1::3::1::978300001\n1::1::3::978300500\n1::4::3::978300500\n"
    "2::4::4::978299000\n2::1::4::978298000\n"
    "3::1::4::978298001\n3::2::4::978298002\n3::3::4::978298003\n"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "ml-1m"
    path.mkdir()
    (path / "movies.dat").write_bytes(MOVIES.encode("latin-1"))
    (path / "users.dat").write_text(USERS)
    (path / "ratings.dat").write_text(RATINGS)
    return path


def prepared(folder: Path) -> PreparedDataset:
    out = folder.parent / "out"
    prepare(PrepareConfig(source="movielens", path=str(folder), out=str(out)))
    return PreparedDataset.open(out)


def raw_to_index(dataset: PreparedDataset, name: str) -> dict[int, int]:
    return dict(dataset.vocabulary(name).table.select("raw", "index").iter_rows())


def raw_sequences(dataset: PreparedDataset) -> dict[int, list[int]]:
    """Per raw user the raw films in order."""
    store = EngagementStore.open(dataset, SequenceConfig(has_times=False))
    raw = {index: item for item, index in raw_to_index(dataset, "item").items()}
    films = [raw[item] for item in store.item.tolist()]
    return {
        user: films[store.offsets[index] : store.offsets[index + 1]]
        for user, index in raw_to_index(dataset, "user").items()
    }


def test_ratings_are_in_order_of_time(folder: Path):
    dataset = prepared(folder)
    assert raw_sequences(dataset) == {1: [3, 1, 4, 2], 2: [1, 4], 3: [1, 2, 3]}
    assert dataset.manifest.counts["explicit_events"] == 9


def test_the_split_by_time_leaves_the_last_two_films_out(folder: Path):
    dataset = prepared(folder)
    store = EngagementStore.open(dataset, SequenceConfig(has_times=False))
    data = SequenceDataModule(SequenceLoaderConfig(cut="last"), dataset, store)
    items, users = raw_to_index(dataset, "item"), raw_to_index(dataset, "user")

    def queries(loader) -> dict[int, tuple[list[int], list[int]]]:
        [batch] = loader
        histories = batch.item.split(batch.lengths.tolist())
        labels = batch.label_item.split(batch.label_lengths.tolist())
        return {
            user: (history.tolist(), label.tolist())
            for user, history, label in zip(batch.user.tolist(), histories, labels, strict=True)
        }

    # user 2 has two films only, which are trained on
    assert queries(data.train_dataloader()) == {
        users[1]: ([items[3]], [items[1]]),
        users[2]: ([items[1]], [items[4]]),
    }
    assert queries(data.val_dataloader()) == {
        users[1]: ([items[3], items[1]], [items[4]]),
        users[3]: ([items[1]], [items[2]]),
    }
    assert queries(data.test_dataloader()) == {
        users[1]: ([items[3], items[1], items[4]], [items[2]]),
        users[3]: ([items[1], items[2]], [items[3]]),
    }


def test_a_sequence_file_stands_in_for_the_ratings(folder: Path):
    by_ratings = raw_sequences(prepared(folder))
    other = folder.parent / "other" / "ml-1m"
    other.mkdir(parents=True)
    for name in ("movies.dat", "users.dat"):
        (other / name).write_bytes((folder / name).read_bytes())
    (other / "ml1m_sequences_minsc0.txt").write_text("1\t3 1 4 2\n2\t1 4\n3\t1 2 3\n")
    assert raw_sequences(prepared(other)) == by_ratings


def test_titles_genres_and_features(folder: Path):
    dataset = prepared(folder)
    items = raw_to_index(dataset, "item")
    texts = {row["index"]: row for row in dataset.item_text.iter_rows(named=True)}
    assert texts[items[1]]["title"] == "Toy Story"
    assert texts[items[1]]["genres"] == "Animation|Children's|Comedy"
    assert texts[items[3]]["title"] == "Cité des enfants perdus, La (The City of Lost Children)"
    genre, *_ = [
        position
        for position, feature in enumerate(
            dataset.manifest.select(FeatureSide.ITEM, FeatureKind.CATEGORICAL)
        )
        if feature.name == "first_genre"
    ]
    genres = dataset.item_features.categorical[:, genre]
    # in fit: Adventure, Animation, Sci-Fi; 2 is in no fit event but known by its first sight
    assert genres[items[3]] != genres[items[1]] and genres[items[4]] not in (0, genres[items[1]])
    years = dataset.item_features.dense[:, 0]
    assert years[items[4]] < years[items[1]] == years[items[3]]
    names = [f.name for f in dataset.manifest.select(FeatureSide.USER, FeatureKind.CATEGORICAL)]
    assert names == ["user_id", "gender", "age", "occupation", "zip_area"]
    users = raw_to_index(dataset, "user")
    of_user = dataset.user_features.categorical
    assert of_user[users[1], 1] != of_user[users[2], 1] == of_user[users[3], 1]
    assert of_user[users[3], 4] == 1  # zip codes that begin with 0 come first


@settings(max_examples=15, deadline=None)
@given(st.dictionaries(st.integers(1, 9), st.permutations(range(1, 8)), min_size=1), st.data())
def test_any_sequences_come_back_as_they_were(tmp_path_factory, sequences, data):
    cut = {
        user: films[: data.draw(st.integers(1, len(films)))] for user, films in sequences.items()
    }
    folder = tmp_path_factory.mktemp("any") / "ml-1m"
    folder.mkdir()
    (folder / "movies.dat").write_text("".join(f"{i}::T{i} (2000)::Drama\n" for i in range(1, 8)))
    (folder / "users.dat").write_text("".join(f"{u}::F::1::1::1\n" for u in range(1, 10)))
    lines = [f"{user}\t{' '.join(map(str, films))}\n" for user, films in cut.items()]
    (folder / "sequences.txt").write_text("".join(lines))
    [events] = MovieLensSource(folder).events()
    bounds = MovieLensSource(folder).split_bounds
    found, periods = defaultdict(list), defaultdict(list)
    rows = events.sort("timestamp").select("user_id", "item_id", "timestamp").iter_rows()
    for user, item, time in rows:
        found[user].append(item)
        [period] = [name for name, (first, last) in bounds.items() if first <= time < last]
        periods[user].append(str(period))
    assert found == cut
    for user, films in cut.items():
        left_out = ["choose", "report"] if len(films) >= 3 else []
        assert periods[user] == ["fit"] * (len(films) - len(left_out)) + left_out


def test_files_that_cannot_be_used_are_sentences(folder: Path):
    (folder / "ratings.dat").write_text("1::2::5::978300999\n1::3::1\n")
    with pytest.raises(DataError, match=r"ratings\.dat, line 2: expected 4 fields.*found 3"):
        prepared(folder)
    (folder / "ratings.dat").write_text("1::two::5::978300999\n")
    with pytest.raises(DataError, match=r"ratings\.dat, item: 'two' is not a whole number"):
        prepared(folder)
    (folder / "ratings.dat").unlink()
    with pytest.raises(DataError, match=r"no ratings\.dat and no \*sequences.*grouplens"):
        prepared(folder)
    (folder / "users.dat").unlink()
    with pytest.raises(DataError, match=r"users\.dat is missing.*grouplens"):
        prepared(folder)


def test_the_real_log(data_dir: Path, tmp_path: Path):
    source = data_dir / "ml-1m"
    sequences = source / "ml1m_sequences_minsc0.txt"
    if not sequences.is_file():
        pytest.skip(f"{sequences} is not there: MovieLens-1M")
    folder = tmp_path / "ml-1m"
    folder.mkdir()
    lines = sequences.read_text().splitlines()[::30]
    (folder / "some_sequences.txt").write_text("\n".join(lines) + "\n")
    for name in ("movies.dat", "users.dat"):
        (folder / name).write_bytes((source / name).read_bytes())
    dataset = prepared(folder)
    expected = {
        int(user): list(map(int, films.split()))
        for user, films in (line.split("\t") for line in lines)
    }
    assert raw_sequences(dataset) == expected
    assert dataset.item_text.height == len(raw_to_index(dataset, "item"))
    assert dataset.item_text.null_count().row(0) == (0, 0, 0)
    assert np.isfinite(dataset.item_features.dense).all()
