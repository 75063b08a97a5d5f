"""The grouping benchmark compares the same rows, and would see other histories."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks._demo import prepare_demo
from recsys.cli import bench
from recsys.data.batches.request_reader import RequestDataset, RequestReader
from recsys.data.contract.schema import Split
from recsys.data.stores.dataset import PreparedDataset

grouping = bench._load("grouping")
TINY = grouping.Config(users=40, requests=8, steps=2)


def test_the_same_rows_cost_the_same(tmp_path: Path) -> None:
    config = prepare_demo(TINY.users, tmp_path)
    dataset = PreparedDataset.open(config.data.out_folder)
    figures = grouping._measure(TINY, config, dataset)
    assert figures["loss_difference"] < grouping.TOLERANCE
    assert figures["ratio"] > 0 and figures["rows_per_request"] > 1

    settings = {"gap_hours": config.loader.gap_hours, "max_events": config.loader.max_events}
    whole = RequestDataset(dataset, Split.FIT, RequestReader(dataset, **settings))
    empty = RequestReader(dataset, **settings, without_timelines=True)
    without = RequestDataset(dataset, Split.FIT, empty)
    requests = np.argsort(whole.num_events())[-8:]
    training = grouping.Training(grouping.build_model(config, dataset))
    for _ in range(3):
        training.step(whole[requests])
    batches = [whole[requests], without[requests]]
    assert grouping._loss_difference(training.model, batches) > grouping.TOLERANCE
