from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchrec.fx import Tracer
from torchrec.quant.embedding_modules import EmbeddingBagCollection as QuantisedCollection

from recsys.core.errors import ConfigError
from recsys.data.contract.schema import TimelineKind
from recsys.data.slices.families import ActionFamily, Range, SliceConfig, WatchTimeFamily
from recsys.data.slices.rules import attribute_values
from recsys.data.slices.slice_set import SliceSet
from recsys.nn.pooling.cell_pooling import CellPooling, segment_sums
from recsys.nn.pooling.slice_pooling import SlicePooling
from recsys.optim.fused import FusedOptimizerConfig, fuse_tables
from tests.nn.pooling.slice_samples import NOW, ROWS, SMALL, configs, expand, timelines

WIDTH = 8
LENGTHS = [0, 1, 40, 0, 90, 7]


def both(
    slice_set: SliceSet, fused: bool = False, counted: bool = False
) -> tuple[CellPooling, SlicePooling]:
    cell = CellPooling(slice_set, ROWS, WIDTH, counted=counted)
    reference = SlicePooling(slice_set, ROWS, WIDTH, counted=counted)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.normal_()
    if fused:
        for module in (cell, reference):
            fuse_tables(module, FusedOptimizerConfig(learning_rate=0.1))
    reference.load_state_dict(cell.state_dict())
    return cell, reference


def expected_means(
    slice_set: SliceSet,
    tables: dict[str, np.ndarray],
    explicit: dict[str, Tensor],
    implicit: dict[str, Tensor],
    request_time: Tensor,
) -> np.ndarray:
    """[B, S, D] in float64 from the membership reference and plain embedding matrices."""
    requests = len(request_time)
    result = np.zeros((requests, len(slice_set.slices), WIDTH))
    for timeline, events in (
        (TimelineKind.EXPLICIT, explicit),
        (TimelineKind.IMPLICIT, implicit),
    ):
        columns = {name: column.numpy() for name, column in events.items()}
        moments = np.repeat(request_time.numpy(), columns["lengths"])
        request = np.repeat(np.arange(requests), columns["lengths"])
        member = slice_set.membership(timeline, columns, moments)
        for position, one in enumerate(slice_set.slices):
            if one.timeline is not timeline:
                continue
            weight = np.ones(len(request))
            if one.weight is not None:
                weight = attribute_values(one.weight, columns, moments).astype(np.float64)
            rows = tables[one.table][columns[one.id_type] % ROWS[one.id_type]]
            for b in range(requests):
                held = member[position] & (request == b)
                if held.any():
                    result[b, position] = np.average(rows[held], axis=0, weights=weight[held])
    return result


@given(configs(), st.integers(0, 2**31))
@settings(max_examples=15, deadline=None)
def test_both_poolings_equal_the_float64_reference(config: SliceConfig, seed: int):
    slice_set = expand(config)
    cell, reference = both(slice_set)
    batch = timelines([3, 0, 50, 1], seed)
    tables = {
        name.split(".")[2]: weight.double().numpy() for name, weight in cell.state_dict().items()
    }
    expected = expected_means(slice_set, tables, *batch)
    for pooling in (cell, reference):
        np.testing.assert_allclose(pooling(*batch).detach().numpy(), expected, atol=3e-6)


@given(configs(), st.integers(0, 2**31))
@settings(max_examples=10, deadline=None)
def test_gradients_are_equal(config: SliceConfig, seed: int):
    cell, reference = both(expand(config), counted=True)
    batch = timelines([3, 0, 50, 1], seed)
    gradient = torch.randn(4, len(reference.slices), WIDTH)
    for pooling in (cell, reference):
        pooling(*batch).backward(gradient)
    for ours, theirs in zip(cell.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("lengths", [LENGTHS, [1], [0, 0, 0]])
def test_fused_poolings_stay_equal_over_updates(lengths: list[int]):
    cell, reference = both(expand(SMALL), fused=True)
    before = copy.deepcopy(cell.state_dict())
    for step in range(3):
        batch = timelines(lengths, seed=step)
        gradient = torch.randn(len(lengths), len(reference.slices), WIDTH)
        pooled, expected = cell(*batch), reference(*batch)
        torch.testing.assert_close(pooled, expected, atol=1e-5, rtol=1e-5)
        pooled.backward(gradient)
        expected.backward(gradient)
    for name, weight in cell.state_dict().items():
        torch.testing.assert_close(weight, reference.state_dict()[name], atol=2e-5, rtol=1e-4)
        if sum(lengths) > 100:
            assert not torch.equal(weight, before[name])


def test_no_history_and_empty_slices_are_zero():
    cell, _ = both(expand(SMALL))
    explicit, implicit, request_time = timelines([0, 0], seed=1)
    assert (cell(explicit, implicit, request_time) == 0).all()
    # All events long ago: windows are empty, the whole history is not.
    family = WatchTimeFamily(ranges=[Range(0)], ids=["item"])
    cell, _ = both(expand(SliceConfig(watch_time=[family])))
    _, implicit, _ = timelines([5], seed=1)
    implicit["dwell_time"] = torch.ones(5)
    implicit["timestamp"] = torch.full((5,), NOW - 300 * 86_400_000)
    window3, window7, everything = cell(timelines([0], 0)[0], implicit, request_time[:1])[0]
    assert (window3 == 0).all()
    assert (window7 == 0).all()
    assert (everything != 0).all()


def test_one_event_history_is_its_row():
    family = ActionFamily(actions=["liked"], ids=["author"], windows=["all"])
    cell, _ = both(expand(SliceConfig(actions=[family])))
    explicit, implicit, request_time = timelines([1], seed=2)
    explicit["action_type"] = torch.tensor([2], dtype=torch.int8)  # liked
    explicit["author"] = torch.tensor([37], dtype=torch.int32)  # row 17 of 20
    table = cell.state_dict()[
        "plain_tables.embedding_bags.explicit_positive_author_plain_any.weight"
    ]
    torch.testing.assert_close(cell(explicit, implicit, request_time)[0, 0], table[17])


@given(configs(), st.integers(0, 2**31))
@settings(max_examples=10, deadline=None)
def test_slice_weights_are_the_members_weights_summed(config: SliceConfig, seed: int):
    slice_set = expand(config)
    explicit, implicit, request_time = timelines([3, 0, 50, 1], seed)
    expected = np.zeros((len(request_time), len(slice_set.slices)))
    for timeline, events in (
        (TimelineKind.EXPLICIT, explicit),
        (TimelineKind.IMPLICIT, implicit),
    ):
        columns = {name: column.numpy() for name, column in events.items()}
        moments = np.repeat(request_time.numpy(), columns["lengths"])
        request = np.repeat(np.arange(len(request_time)), columns["lengths"])
        member = slice_set.membership(timeline, columns, moments)
        for position, one in enumerate(slice_set.slices):
            if one.timeline is timeline:
                weight = np.ones(len(request))
                if one.weight is not None:
                    weight = attribute_values(one.weight, columns, moments)
                np.add.at(expected[:, position], request, weight * member[position])
    for pooling in both(slice_set):
        weights = pooling.slice_weights(explicit, implicit, request_time)
        np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-5, atol=1e-5)


def test_events_are_counted_exactly_under_bfloat16():
    """257 is no number of bfloat16."""
    slice_set = expand(SMALL)
    batch = timelines([257, 0, 513], seed=0)
    for pooling in both(slice_set):
        expected = pooling.slice_weights(*batch)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            _, _, counted = pooling.lookups(*batch)
        assert expected.max() > 256
        assert torch.equal(counted, expected)


def test_segment_sums_by_hand():
    values = torch.tensor([1.0, 2.0, 3.0, 4.0])
    lengths = torch.tensor([[2, 0], [1, 1]], dtype=torch.int32)
    assert segment_sums(values, lengths).tolist() == [[3.0, 0.0], [3.0, 4.0]]


def test_missing_rows_are_a_sentence():
    with pytest.raises(ConfigError, match="'author' have 0 rows"):
        CellPooling(expand(SMALL), {"item": 10}, WIDTH)


def test_scripted_with_quantised_tables(tmp_path):
    """What the export does: int8 tables, traced, inside a scripted pooling, saved and loaded."""
    cell, _ = both(expand(SMALL))
    batch = timelines(LENGTHS, seed=3)
    expected = cell(*batch)
    spread = max(float((w.amax(1) - w.amin(1)).max()) for w in cell.parameters())
    for name in ("plain_tables", "weighted_tables"):
        tables = copy.deepcopy(getattr(cell, name))
        observer = torch.ao.quantization.PlaceholderObserver.with_args
        tables.qconfig = torch.ao.quantization.QConfig(
            activation=observer(dtype=torch.float32), weight=observer(dtype=torch.qint8)
        )
        quantised = QuantisedCollection.from_float(tables)
        traced = torch.fx.GraphModule(quantised, Tracer().trace(quantised))
        setattr(cell, name, torch.jit.script(traced))
    torch.jit.script(cell).save(tmp_path / "pooling.pt")
    loaded = torch.jit.load(tmp_path / "pooling.pt")
    torch.testing.assert_close(loaded(*batch), cell(*batch))
    # A step of an int8 row is its (max - min) / 255, and rounding is off by half a step.
    assert 0 < (loaded(*batch) - expected).abs().max() <= spread / 255


def test_plain_slices_alone_can_be_pooled():
    family = ActionFamily(actions=["liked"])
    cell, reference = both(expand(SliceConfig(actions=[family])))
    assert cell.weighted_tables is None
    batch = timelines(LENGTHS, seed=4)
    torch.testing.assert_close(cell(*batch), reference(*batch), atol=1e-5, rtol=1e-5)


def test_weighted_slices_alone_can_be_pooled():
    cell, reference = both(expand(SliceConfig(debiased_score=SMALL.debiased_score)))
    assert cell.plain_tables is None
    batch = timelines(LENGTHS, seed=5)
    torch.testing.assert_close(cell(*batch), reference(*batch), atol=1e-5, rtol=1e-5)
