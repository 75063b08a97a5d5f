"""4-bit rows: the byte layout, the error bound, FBGEMM's semantics, the numpy reader."""

from __future__ import annotations

import struct

import fbgemm_gpu  # noqa: F401  registers torch.ops.fbgemm
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from recsys.core.errors import ArtifactError, ConfigError
from recsys.embeddings.reader import read_rows
from recsys.embeddings.rows import dequantize_rows, quantize_rows, row_integers

FLOAT32_EPS = float(np.finfo(np.float32).eps)

rows_of_floats = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 3), st.sampled_from([16, 32, 48])),
    elements=st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False),
)


def test_the_paper_s_size_is_58_by_17_integers_of_8_bytes() -> None:
    rows = quantize_rows(torch.randn(3, 58, 256))
    assert rows.shape == (3, 58, 17)
    assert rows.dtype == torch.int64
    assert rows[0].numel() * rows.element_size() == 7_888


def test_bytes_of_a_hand_computed_row() -> None:
    # min 1, max 4: scale 0.2, bias 1. Column c holds nibble c, so byte k is (2k) | (2k + 1) << 4.
    values = torch.arange(16, dtype=torch.float32) * 0.2 + 1.0
    values[15] = 4.0
    expected = bytes([0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0xFE])
    expected += struct.pack("<ff", np.float32(3.0) / np.float32(15.0), 1.0)
    assert quantize_rows(values).numpy().tobytes() == expected


def test_halves_are_rounded_to_even() -> None:
    values = torch.zeros(16)
    values[:5] = torch.tensor([15.0, 0.5, 1.5, 2.5, 13.5])  # scale 1, bias 0
    assert dequantize_rows(quantize_rows(values))[:5].tolist() == [15.0, 0.0, 2.0, 2.0, 14.0]


def test_a_constant_row_is_exact_and_has_scale_zero() -> None:
    rows = quantize_rows(torch.full((2, 32), -0.1))
    assert torch.equal(dequantize_rows(rows), torch.full((2, 32), -0.1))
    assert rows.view(torch.float32)[:, -2].tolist() == [0.0, 0.0]


@settings(max_examples=60, deadline=None)
@given(rows_of_floats)
def test_error_is_at_most_half_a_step(values: np.ndarray) -> None:
    read = dequantize_rows(quantize_rows(torch.from_numpy(values))).numpy().astype(np.float64)
    exact = values.astype(np.float64)
    scale = (exact.max(-1, keepdims=True) - exact.min(-1, keepdims=True)) / 15
    largest = np.abs(exact).max(-1, keepdims=True)
    rounding = 8 * FLOAT32_EPS * (largest + 15 * scale) + 1e-36
    assert (np.abs(read - exact) <= scale / 2 + rounding).all()


@settings(max_examples=30, deadline=None)
@given(rows_of_floats)
def test_numpy_reader_equals_torch_reader_bit_for_bit(values: np.ndarray) -> None:
    rows = quantize_rows(torch.from_numpy(values))
    assert np.array_equal(read_rows(rows.numpy()), dequantize_rows(rows).numpy())


def test_quantising_what_was_read_gives_the_same_nibbles() -> None:
    rows = quantize_rows(torch.randn(20, 64))
    again = quantize_rows(dequantize_rows(rows))
    assert torch.equal(rows.view(torch.uint8)[:, :32], again.view(torch.uint8)[:, :32])


def test_semantics_are_fbgemm_s_up_to_float16_of_scale_and_bias() -> None:
    torch.manual_seed(0)
    # Bias and scale that float16 holds exactly, so that both quantise the same numbers.
    values = torch.randint(0, 121, (50, 64)) / 8.0 - 4.0
    values[:, 0], values[:, 1] = -4.0, 11.0  # scale 1, bias -4
    ours = quantize_rows(values).view(torch.uint8)
    theirs = torch.ops.fbgemm.FloatToFusedNBitRowwiseQuantizedSBHalf(values, 4)
    assert torch.equal(ours[:, :32], theirs[:, :32])
    assert torch.equal(
        ours[:, 32:].contiguous().view(torch.float32),
        theirs[:, 32:].contiguous().view(torch.float16).float(),
    )


def test_values_are_as_close_as_fbgemm_s_on_gaussian_rows() -> None:
    torch.manual_seed(0)
    values = torch.randn(200, 256)
    theirs = torch.ops.fbgemm.FusedNBitRowwiseQuantizedSBHalfToFloat(
        torch.ops.fbgemm.FloatToFusedNBitRowwiseQuantizedSBHalf(values, 4), 4
    )
    ours = dequantize_rows(quantize_rows(values))
    errors = [float((read - values).square().mean()) for read in (ours, theirs)]
    # in 51,200 values float16 of scale and bias, and with it the processor's rounding, decides
    # which of the two is ahead, by a ten-thousandth at most
    assert errors[0] == pytest.approx(errors[1], rel=1e-3)
    # float16 moves scale and bias by 2**-11 of themselves: values up to 5, 15 steps of up to 0.7.
    assert (ours - theirs).abs().median() < 5e-3


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_are_refused_with_a_sentence(bad: float) -> None:
    values = torch.randn(2, 16)
    values[1, 3] = bad
    with pytest.raises(ArtifactError, match="NaN or infinity"):
        quantize_rows(values)


@pytest.mark.parametrize("width", [0, 8, 24, 100])
def test_a_width_that_is_no_multiple_of_16_is_refused(width: int) -> None:
    with pytest.raises(ConfigError, match=f"multiple of 16, not {width}"):
        row_integers(width)


def test_empty_batches_pass_through() -> None:
    rows = quantize_rows(torch.empty(0, 58, 256))
    assert rows.shape == (0, 58, 17)
    assert dequantize_rows(rows).shape == (0, 58, 256)
