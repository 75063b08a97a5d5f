"""Opening a prepared data set."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recsys.core.errors import DataError
from recsys.data.contract.schema import Task
from recsys.data.stores.dataset import PreparedDataset


@pytest.fixture
def copy(prepared: PreparedDataset, tmp_path: Path) -> Path:
    return shutil.copytree(prepared.path, tmp_path / "copy")


def test_pickle_opens_the_data_set_again(prepared: PreparedDataset):
    assert prepared.timelines.num_segments == 2
    pickled = pickle.dumps(prepared)
    assert len(pickled) < 1_000
    assert pickle.loads(pickled).manifest == prepared.manifest


def test_features_have_one_row_per_index(prepared: PreparedDataset):
    assert prepared.item_features.categorical[7].tolist() == [7, 0, 1]
    assert prepared.item_features.dense[7].tolist() == [7.0]
    assert prepared.user_features.dense.shape == (30, 0)


def test_missing_data_set_is_one_sentence(tmp_path: Path):
    with pytest.raises(DataError, match="is not a prepared data set"):
        PreparedDataset.open(tmp_path)


def test_features_that_do_not_match_the_manifest_are_refused(copy: Path, prepared: PreparedDataset):
    np.save(copy / "features" / "item_dense.npy", np.zeros((60, 2), np.float32))
    replace(prepared.manifest, files={}).save(copy)
    with pytest.raises(DataError, match=r"has shape \(60, 2\), the manifest asks for \(60, 1\)"):
        _ = PreparedDataset.open(copy).item_features
    (copy / "features" / "item_dense.npy").unlink()
    with pytest.raises(DataError, match="is missing"):
        _ = PreparedDataset.open(copy).item_features


def test_requests_of_other_tasks_are_refused(copy: Path, prepared: PreparedDataset):
    replace(prepared.manifest, tasks=(Task("saved"),)).save(copy)
    with pytest.raises(DataError, match="holds labels of liked, the manifest names saved"):
        PreparedDataset.open(copy).requests("fit")


@pytest.mark.parametrize("file", ["dataset.json", "features/item_dense.npy"])
def test_a_damaged_file_is_one_sentence(copy: Path, file: str):
    (copy / file).write_bytes((copy / file).read_bytes()[:50])
    with pytest.raises(DataError, match=f"{Path(file).name} (is damaged|has 50 bytes)"):
        _ = PreparedDataset.open(copy).item_features
