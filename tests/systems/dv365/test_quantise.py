"""The exported tower: agreement with the trained one, and a process without recsys."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from recsys.artifacts.torchscript import script_tower
from recsys.core.errors import ConfigError
from recsys.systems.dv365.quantise import export_encoder, quantize_tables, table_bytes
from tests.systems.dv365.towers import SLICES, small_tower, timelines

LENGTHS_OF_REQUESTS = [0, 1, 17, 0, 40, 3]


#: What a tower may read beside its slices, and the vectors it gives.
RECENT = {"none": 20, "position_weighted": 22, "hstu": 21}


def exported(dimension: int, bits: int, recent: str = "none") -> torch.jit.ScriptModule:
    tower = small_tower(dimension, recent=recent)
    quantize_tables(tower, bits)
    return script_tower(tower)


@pytest.mark.parametrize("recent", RECENT)
def test_float_tables_agree_within_rounding(recent: str) -> None:
    inputs = timelines(LENGTHS_OF_REQUESTS)
    expected = small_tower(32, recent=recent)(*inputs)
    torch.testing.assert_close(exported(32, 32, recent)(*inputs), expected)


@pytest.mark.parametrize("recent", RECENT)
@pytest.mark.parametrize("bits", [4, 8, 32])
def test_no_requests_have_no_embeddings(bits: int, recent: str) -> None:
    assert exported(16, bits, recent)(*timelines([])).shape == (0, RECENT[recent], 16)


@pytest.mark.parametrize("dimension", [16, 32, 64, 128, 256])
@pytest.mark.parametrize("bits", [4, 8])
def test_quantised_pooling_is_within_the_tables_rounding(bits: int, dimension: int) -> None:
    """A mean of rows is off by at most half a step of the rows, plus float16 of scale and bias."""
    tower = small_tower(dimension)
    quantized = copy.deepcopy(tower)
    quantize_tables(quantized, bits)
    inputs = timelines(LENGTHS_OF_REQUESTS)
    weights = [
        weight
        for tables in (tower.pooling.plain_tables, tower.pooling.weighted_tables)
        for weight in tables.parameters()
    ]
    widest = max((w.amax(1) - w.amin(1)).max().item() for w in weights)
    largest = max(w.abs().max().item() for w in weights)
    # FBGEMM rounds scale and bias to float16 (2**-11): the scale counts up to 2**bits - 1 times.
    bound = widest / (2**bits - 1) / 2 + 2**-11 * (widest + largest)
    error = (quantized.pooling(*inputs) - tower.pooling(*inputs)).abs().max().item()
    assert 0 < error <= bound


@pytest.mark.parametrize("recent", RECENT)
def test_scripted_equals_eager_with_quantised_tables(recent: str) -> None:
    tower = small_tower(recent=recent)
    quantize_tables(tower, 4)
    inputs = timelines(LENGTHS_OF_REQUESTS)
    assert torch.equal(script_tower(tower)(*inputs), tower(*inputs))


def test_rows_take_no_more_bytes_than_their_bits() -> None:
    tower = small_tower(32)
    rows = table_bytes(tower) // (32 * 4)
    for bits in (4, 8):
        quantized = copy.deepcopy(tower)
        quantize_tables(quantized, bits)
        bytes_per_row = table_bytes(quantized) / rows
        assert 32 * bits // 8 + 4 <= bytes_per_row < 32 * bits // 8 + 5  # a table ends in padding


@pytest.mark.parametrize("recent", RECENT)
def test_any_number_of_requests_and_events_and_empty_histories(recent: str) -> None:
    tower = exported(32, 4, recent)
    reference = tower(*timelines([0]))[0]
    for lengths in ([0, 0, 0], [5], [0, 2, 300], [1] * 50):
        embeddings = tower(*timelines(lengths))
        assert embeddings.shape == (len(lengths), RECENT[recent], 32)
        assert torch.isfinite(embeddings).all()
        for embedding, length in zip(embeddings, lengths, strict=True):
            if length == 0:
                torch.testing.assert_close(embedding, reference)


@pytest.mark.parametrize("recent", RECENT)
def test_a_fresh_process_needs_torch_and_fbgemm_alone(recent: str, tmp_path: Path) -> None:
    tower, inputs = exported(64, 4, recent), timelines(LENGTHS_OF_REQUESTS)
    torch.jit.save(tower, tmp_path / "user_tower.pt")
    torch.save((inputs, tower(*inputs)), tmp_path / "expected.pt")
    program = """
import sys, torch, fbgemm_gpu
tower = torch.jit.load("user_tower.pt")
(explicit, implicit, request_time), expected = torch.load("expected.pt")
assert torch.equal(tower(explicit, implicit, request_time), expected)
loaded = {name.partition(".")[0] for name in sys.modules}
assert not loaded & {"torchrec", "recsys", "lightning", "polars"}, loaded
print("equal")
"""
    finished = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert finished.stdout == "equal\n", finished.stderr


def test_the_encoder_is_exported_for_any_batch_size(tmp_path: Path) -> None:
    tower = small_tower()
    export_encoder(tower.encoder, len(SLICES.slices), 32, tmp_path / "encoder.pt2")
    program = torch.export.load(tmp_path / "encoder.pt2").module()
    for requests in (1, 2, 7):
        pooled = torch.randn(requests, len(SLICES.slices), 32)
        torch.testing.assert_close(program(pooled), tower.encoder(pooled))


def test_other_widths_of_weights_are_refused() -> None:
    with pytest.raises(ConfigError, match="4, 8 or 32 bits per weight, not 2"):
        quantize_tables(small_tower(), 2)
