"""Request batches on their way between processes."""

from __future__ import annotations

import copy
import pickle
from dataclasses import fields

import numpy as np
import pytest
import torch

from recsys.data.batches.request_reader import RequestDataset, RequestReader
from recsys.data.batches.requests import RequestBatch


def tensors(batch: RequestBatch) -> dict[str, torch.Tensor]:
    flat = {}
    for field in fields(batch):
        value = getattr(batch, field.name)
        columns = value if isinstance(value, dict) else {"": value}
        flat.update({f"{field.name} {name}": tensor for name, tensor in columns.items()})
    return flat


@pytest.mark.parametrize("without_timelines", [False, True])
@pytest.mark.parametrize("travel", [copy.deepcopy, lambda b: pickle.loads(pickle.dumps(b))])
def test_pickled_batch_is_one_buffer_and_the_same(prepared, travel, without_timelines):
    reader = RequestReader(
        prepared, gap_hours=24.0, max_events=50, without_timelines=without_timelines
    )
    requests = RequestDataset(prepared, "fit", reader)
    batch = requests[np.array([3, 0, 8])]
    sent, arrived = tensors(batch), tensors(travel(batch))
    assert list(sent) == list(arrived)
    for name, tensor in sent.items():
        other = arrived[name]
        assert (other.dtype, other.shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(other.nan_to_num(-1), tensor.nan_to_num(-1))
    storages = {t.untyped_storage().data_ptr() for t in arrived.values() if t.numel()}
    assert len(storages) == 1
