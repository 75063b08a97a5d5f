"""Published embeddings as they were served at a moment."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from recsys.core.errors import ArtifactError, ConfigError
from recsys.data.stores.dataset import PreparedDataset
from recsys.embeddings.point_in_time import PointInTimeEmbeddings
from recsys.embeddings.rows import dequantize_rows, quantize_rows
from recsys.embeddings.stores import open_store
from tests.systems.dv365.runs import RAW_SHIFT, events, prepared_dataset

HOUR = 3_600_000
WIDTH = 16


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    return prepared_dataset(tmp_path_factory.mktemp("data") / "d", events(200, 0, 100, 0))


def publish(folder: Path, timestamp: int, users: list[int], vectors: int = 2) -> np.ndarray:
    """Rows of user indices, as they are read back."""
    rows = quantize_rows(torch.randn(len(users), vectors, WIDTH, generator=seeded(timestamp)))
    with open_store(str(folder)) as store:
        store.begin(timestamp, {})
        store.put_many([RAW_SHIFT + user for user in users], rows.numpy())
        store.commit()
    return dequantize_rows(rows).numpy()


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed % 1000)


def test_a_row_sees_the_newest_that_was_served_then(
    dataset: PreparedDataset, tmp_path: Path
) -> None:
    newer = publish(tmp_path / "b", 20 * HOUR, [3, 4])
    older = publish(tmp_path / "a", 10 * HOUR, [3, 5])
    stores = [str(tmp_path / "b"), str(tmp_path / "a")]  # in any order
    embeddings = PointInTimeEmbeddings(dataset, stores, delay_hours=1)
    assert embeddings.shape == (2, WIDTH)
    user = np.array([3, 3, 3, 5, 5, 4, 0, 3])
    hour = np.array([10, 11, 20, 15, 30, 30, 30, 21])
    values, known = embeddings.read(user, hour * HOUR)
    # who was not in the newest publication had no embedding any more
    assert known.tolist() == [False, True, True, True, False, True, False, True]
    np.testing.assert_array_equal(values[1], older[0])
    np.testing.assert_array_equal(values[2], older[0])  # the newer one is served at hour 21
    np.testing.assert_array_equal(values[3], older[1])
    np.testing.assert_array_equal(values[5], newer[1])
    np.testing.assert_array_equal(values[7], newer[0])
    assert (values[~known] == 0).all()


def test_no_row_sees_what_was_computed_later(dataset: PreparedDataset, tmp_path: Path) -> None:
    publish(tmp_path / "a", 10 * HOUR, [3])
    embeddings = PointInTimeEmbeddings(dataset, [str(tmp_path / "a")])
    moments = np.array([10 * HOUR - 1, 10 * HOUR])
    assert embeddings.read(np.array([3, 3]), moments)[1].tolist() == [False, True]


def test_it_travels_to_other_processes(dataset: PreparedDataset, tmp_path: Path) -> None:
    rows = publish(tmp_path / "a", 0, [3])
    embeddings = PointInTimeEmbeddings(dataset, [str(tmp_path / "a")], delay_hours=2)
    again = pickle.loads(pickle.dumps(embeddings))
    values, known = again.read(np.array([3, 3]), np.array([HOUR, 2 * HOUR]))
    assert known.tolist() == [False, True]
    np.testing.assert_array_equal(values[1], rows[0])


def test_a_store_that_is_published_anew_is_refused(
    dataset: PreparedDataset, tmp_path: Path
) -> None:
    publish(tmp_path / "a", 0, [3])
    embeddings = PointInTimeEmbeddings(dataset, [str(tmp_path / "a")])
    publish(tmp_path / "a", 50 * HOUR, [3])
    with pytest.raises(ArtifactError, match=r"was published anew while it was read"):
        embeddings.read(np.array([3]), np.array([HOUR]))


def test_what_cannot_be_read_is_a_sentence(dataset: PreparedDataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"stores names no store"):
        PointInTimeEmbeddings(dataset, [])
    with open_store(str(tmp_path / "empty")):
        pass
    with pytest.raises(ArtifactError, match=r"holds no publication yet"):
        PointInTimeEmbeddings(dataset, [str(tmp_path / "empty")])
    publish(tmp_path / "a", 0, [3])
    publish(tmp_path / "b", 1, [3], vectors=3)
    with pytest.raises(ConfigError, match=r"different shapes \(2 x 16, 3 x 16\)"):
        PointInTimeEmbeddings(dataset, [str(tmp_path / "a"), str(tmp_path / "b")])
