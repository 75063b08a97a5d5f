"""The user tower as TorchScript with quantised tables, and its dense part by ``torch.export``.

TorchRec's quantised collection holds FBGEMM's ``IntNBitTableBatchedEmbeddingBagsCodegen``: rows of
``bits * D / 8`` bytes behind scale and bias in float16. It cannot be compiled by TorchScript as it
stands, but its fx trace can, and the rest of the tower is written for TorchScript; a process that
loads the result needs ``torch`` and ``fbgemm_gpu`` and nothing else.
"""

from __future__ import annotations

import io
from pathlib import Path

import torch
from torch import nn
from torch.ao.quantization import PlaceholderObserver, QConfig
from torchrec import EmbeddingBagCollection
from torchrec.fx import Tracer
from torchrec.quant import EmbeddingBagCollection as QuantizedCollection
from torchrec.quant.embedding_modules import quant_prep_customize_row_alignment

from recsys.core.errors import ConfigError
from recsys.nn.encoders import UserEncoder

#: Bits per weight of an exported table; 32 leaves the tables as they are.
TABLE_DTYPES = {4: torch.quint4x2, 8: torch.qint8}
FLOAT_BITS = 32
#: On CPU rows may lie at any byte. TorchRec's own choice of 16 would make a row of 32 columns
#: at 4 bits 32 bytes long instead of 20.
ROW_ALIGNMENT = 1


def quantize_tables(module: nn.Module, bits: int) -> None:
    """Replace every ``EmbeddingBagCollection`` in ``module`` by its quantised, traced counterpart.

    Args:
        module: changed in place.
        bits: 4, 8, or 32 for no change.

    Raises:
        ConfigError: another number of bits.
    """
    if bits == FLOAT_BITS:
        return
    if bits not in TABLE_DTYPES:
        raise ConfigError(f"Tables are exported with 4, 8 or 32 bits per weight, not {bits}.")
    for name, child in list(module.named_modules()):
        if isinstance(child, EmbeddingBagCollection):
            parent, _, attribute = name.rpartition(".")
            setattr(module.get_submodule(parent), attribute, _quantized(child, bits))


def _quantized(collection: EmbeddingBagCollection, bits: int) -> nn.Module:
    collection.qconfig = QConfig(
        activation=PlaceholderObserver.with_args(dtype=torch.float32),  # pooled rows are float32
        weight=PlaceholderObserver.with_args(dtype=TABLE_DTYPES[bits]),
    )
    quant_prep_customize_row_alignment(collection, [EmbeddingBagCollection], ROW_ALIGNMENT)
    quantized = QuantizedCollection.from_float(collection)
    tracer = Tracer(leaf_modules=["IntNBitTableBatchedEmbeddingBagsCodegen"])
    return torch.fx.GraphModule(quantized, tracer.trace(quantized))


def table_bytes(module: nn.Module) -> int:
    """Bytes of all embedding tables in ``module``, quantised or not."""
    total = 0
    for child in module.modules():
        if isinstance(child, EmbeddingBagCollection):
            total += sum(weight.numel() * weight.element_size() for weight in child.parameters())
        elif isinstance(child, torch.fx.GraphModule):
            # The trace holds the rows of a quantised collection as one constant of bytes.
            total += sum(rows.numel() for rows in child.buffers() if rows.dtype == torch.uint8)
    return total


def export_encoder(encoder: UserEncoder, num_inputs: int, dimension: int, path: Path) -> None:
    """Write the encoder, any batch size, as a ``torch.export`` program.

    Args:
        encoder: pooled slices [B, N, D] → [B, N_out, D].
        num_inputs: N.
        dimension: D.
        path: the ``.pt2`` file.
    """
    encoder.eval().requires_grad_(False)
    example = torch.zeros(2, num_inputs, dimension)
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(encoder, (example,), dynamic_shapes=({0: batch},))
    content = io.BytesIO()  # as in ``save_tower``
    torch.export.save(program, content)
    path.write_bytes(content.getbuffer())
