"""Each encoder against an independent implementation, its interface and its refusals."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from recsys.core.errors import ConfigError
from recsys.nn.encoders import EncoderConfig, UserEncoder, build_encoder
from recsys.nn.encoders.compression import LinearCompression
from recsys.nn.encoders.funnel import FunnelSummarization, funnel_widths
from recsys.nn.encoders.transformer import EncoderLayer

NUM_INPUTS, DIMENSION = 12, 8

FUNNEL = EncoderConfig(
    "funnel",
    compression_outputs=2,
    blocks=3,
    layers=2,
    stride=2,
    heads=3,
    feed_forward_factor=2,
)
TRANSFORMER = EncoderConfig(
    "token_wise_transformer",
    num_outputs=5,
    compression_outputs=2,
    layers=2,
    heads=4,
    feed_forward_factor=2,
)
CONFIGS = [
    FUNNEL,
    EncoderConfig("pass_through"),
    EncoderConfig("linear_compression", num_outputs=5),
    EncoderConfig("dim_wise_mlp", num_outputs=5, hidden_sizes=[7]),
    EncoderConfig("token_wise_mlp", num_outputs=5, hidden_sizes=[7, 9]),
    replace(TRANSFORMER, name="dim_wise_transformer"),
    TRANSFORMER,
]


def build(config: EncoderConfig) -> UserEncoder:
    """An encoder with every weight random, also those that start at 0 or 1."""
    torch.manual_seed(0)
    encoder = build_encoder(config, NUM_INPUTS, DIMENSION).double()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return encoder


def pooled(requests: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(requests, NUM_INPUTS, DIMENSION, dtype=torch.float64, generator=generator)


# An independent implementation in NumPy, for one request at a time.


def weights(module: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in module.state_dict().items()}


def norm(rows: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    centred = rows - rows.mean(axis=1, keepdims=True)
    variance = (centred**2).mean(axis=1, keepdims=True)
    return centred / np.sqrt(variance + 1e-5) * weight + bias


def gelu(values: np.ndarray) -> np.ndarray:
    return values * 0.5 * (1 + np.vectorize(math.erf)(values / math.sqrt(2)))


def reference_mlp(rows: np.ndarray, w: dict[str, np.ndarray]) -> np.ndarray:
    """Linear layers at the even positions of a Sequential, GELU between them."""
    positions = sorted({int(name.split(".")[0]) for name in w})
    for position in positions:
        rows = rows @ w[f"{position}.weight"].T + w[f"{position}.bias"]
        if position != positions[-1]:
            rows = gelu(rows)
    return rows


def reference_layer(rows: np.ndarray, layer: EncoderLayer, heads: int) -> np.ndarray:
    """Norm(U + FF(Norm(U + Att(U)))), one head after the other."""
    attention, width = weights(layer.attention), rows.shape[1]
    queries, keys, values = np.split(
        rows @ attention["projection.weight"].T + attention["projection.bias"], 3, axis=1
    )
    outputs, size = [], width // heads
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = queries[:, part] @ keys[:, part].T / math.sqrt(size)
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        outputs.append(scores / scores.sum(axis=1, keepdims=True) @ values[:, part])
    attended = np.concatenate(outputs, axis=1) @ attention["output.weight"].T
    attended += attention["output.bias"]
    inner = norm(rows + attended, *weights(layer.attention_norm).values())
    fed = reference_mlp(inner, weights(layer.feed_forward))
    return norm(rows + fed, *weights(layer.output_norm).values())


def reference(encoder: UserEncoder, config: EncoderConfig, tokens: np.ndarray) -> np.ndarray:
    """[N, D] → [N_out, D]."""
    if config.name == "pass_through":
        return tokens
    if config.name == "linear_compression":
        return weights(encoder)["weight"] @ tokens
    if config.name == "dim_wise_mlp":
        side_by_side = tokens.reshape(1, -1)
        return reference_mlp(side_by_side, weights(encoder.mlp)).reshape(-1, DIMENSION)
    if config.name == "token_wise_mlp":
        return reference_mlp(tokens.T, weights(encoder.mlp)).T
    compressed = weights(encoder.compression)["weight"] @ tokens
    if config.name == "dim_wise_transformer":
        rows = tokens
        for layer in encoder.layers:
            rows = reference_layer(rows, layer, config.heads)
        return np.concatenate([rows[-3:], compressed])
    columns = tokens.T
    if config.name == "token_wise_transformer":
        for layer in encoder.layers:
            columns = reference_layer(columns, layer, config.heads)
        return np.concatenate([columns[:, -3:].T, compressed])
    for number, block in enumerate(encoder.blocks):
        if number > 0:
            columns = (columns[:, 0::2] + columns[:, 1::2]) / 2
        for layer in block:
            columns = reference_layer(columns, layer, config.heads)
    return np.concatenate([columns.T, compressed])


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_encoder_agrees_with_the_independent_implementation(config: EncoderConfig) -> None:
    encoder = build(config)
    inputs = pooled()
    encoded = encoder(inputs)
    assert encoded.shape == (3, encoder.num_outputs, DIMENSION)
    expected = np.stack([reference(encoder, config, tokens) for tokens in inputs.numpy()])
    np.testing.assert_allclose(encoded.detach().numpy(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_encoder_is_scripted_and_exported_without_a_change(config: EncoderConfig) -> None:
    encoder = build(config).eval()
    inputs = pooled()
    with torch.no_grad():
        expected = encoder(inputs)
        scripted = torch.jit.script(encoder)
        torch.testing.assert_close(scripted(inputs), expected)
        requests = torch.export.Dim("requests")
        exported = torch.export.export(encoder, (pooled(5),), dynamic_shapes=({0: requests},))
        torch.testing.assert_close(exported.module()(inputs), expected)


@pytest.mark.parametrize("config", CONFIGS[2:], ids=lambda config: config.name)
def test_every_weight_of_the_encoder_gets_a_gradient(config: EncoderConfig) -> None:
    encoder = build(config)
    inputs = pooled().requires_grad_()
    (encoder(inputs) * torch.randn(encoder.num_outputs, DIMENSION)).sum().backward()
    assert inputs.grad is not None
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_funnel_of_the_paper_has_58_outputs() -> None:
    config = replace(FUNNEL, compression_outputs=8, layers=1, heads=10)
    with torch.device("meta"):
        encoder = build_encoder(config, 200, 256)
        assert encoder(torch.empty(2, 200, 256)).shape == (2, 58, 256)
    assert encoder.num_outputs == 58


def count(config: EncoderConfig) -> int:
    """Weights at the paper's size: 200 slices of width 256."""
    with torch.device("meta"):
        return sum(p.numel() for p in build_encoder(config, 200, 256).parameters())


def layer_weights(width: int, factor: int) -> int:
    attention = 4 * width * (width + 1)
    feed_forward = 2 * factor * width * width + factor * width + width
    return attention + feed_forward + 2 * 2 * width


def test_weights_at_the_size_of_the_paper() -> None:
    mlp = EncoderConfig("dim_wise_mlp", num_outputs=58)
    assert count(mlp) == 200 * 256 * 58 * 256 + 58 * 256  # 760 million
    assert count(EncoderConfig("linear_compression", num_outputs=58)) == 200 * 58
    sizes = {"compression_outputs": 8, "layers": 1, "heads": 10, "feed_forward_factor": 4}
    funnel = EncoderConfig("funnel", blocks=3, stride=2, **sizes)
    assert count(funnel) == sum(layer_weights(width, 4) for width in (200, 100, 50)) + 8 * 200
    token_wise = EncoderConfig("token_wise_transformer", num_outputs=58, **(sizes | {"layers": 3}))
    assert count(token_wise) == 3 * layer_weights(200, 4) + 8 * 200
    assert count(funnel) < count(token_wise)


def test_widths_that_the_stride_does_not_divide_are_rounded_up() -> None:
    assert funnel_widths(200, 3, 2) == [200, 100, 50]
    assert funnel_widths(11, 3, 2) == [11, 6, 3]
    encoder = FunnelSummarization(5, 1, 2, 1, 2, 1, 1, 0.0).double()
    seen: list[torch.Tensor] = []
    encoder.blocks[0] = torch.nn.Identity()
    encoder.blocks[1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    assert encoder(torch.arange(5.0).double().reshape(1, 5, 1)).shape == (1, 4, 1)
    # the last window holds one token: its mean is the token, not half of it
    torch.testing.assert_close(seen[0].flatten(), torch.tensor([0.5, 2.5, 4.0]).double())


def test_linear_compression_starts_as_the_mean_of_neighbouring_slices() -> None:
    encoder = LinearCompression(6, 2)
    tokens = torch.arange(6.0).reshape(1, 6, 1)
    torch.testing.assert_close(encoder(tokens).flatten(), torch.tensor([1.0, 4.0]))
    assert encoder(torch.zeros(1, 6, 3)).abs().sum() == 0


def test_dropout_is_active_in_training_only() -> None:
    encoder = build(replace(FUNNEL, dropout=0.5))
    inputs = pooled()
    assert not torch.equal(encoder(inputs), encoder(inputs))
    encoder.eval()
    assert torch.equal(encoder(inputs), encoder(inputs))


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (replace(FUNNEL, heads=4), r"heads=4 .* \[12, 6, 3\] .* choose one of \[1, 3\]"),
        (replace(TRANSFORMER, heads=5), r"heads=5 .* width of 12; choose one of \[1, 2, 3, 4, 6"),
        (replace(TRANSFORMER, num_outputs=15), "leaves 13 outputs"),
        (replace(TRANSFORMER, num_outputs=2), "leaves 0 outputs"),
        (replace(FUNNEL, num_outputs=5), "num_outputs is no option of the funnel"),
        (replace(FUNNEL, blocks=None), "blocks must be a positive number"),
        (EncoderConfig("token_wise_mlp", num_outputs=5), "hidden_sizes .* is empty"),
        (EncoderConfig("none"), "no user tower"),
        (EncoderConfig("fnnel"), "fnnel is unknown; choose one of"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_what_cannot_be_built_is_refused_with_a_sentence(
    config: EncoderConfig, sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        build_encoder(config, NUM_INPUTS, DIMENSION)


@pytest.mark.parametrize(("slices", "heads"), [(48, 2), (200, 2), (69, 1), (50, 1)])
def test_the_funnel_chooses_heads_that_fit(slices, heads):
    encoder = build_encoder(replace(FUNNEL, heads=None), slices, 4)
    layers = [one for one in encoder.modules() if isinstance(one, EncoderLayer)]
    assert {layer.attention.heads for layer in layers} == {heads}
