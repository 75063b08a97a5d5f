"""What quantisation costs: the same rows, scored with the trained and with the exported tower."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from recsys.core.progress import track
from recsys.data.batches.requests import JaggedTimeline, RequestBatch
from recsys.data.contract.schema import Split
from recsys.data.loaders.requests import RequestDataModule
from recsys.embeddings.rows import dequantize_rows, quantize_rows
from recsys.evaluation.metrics_file import Metrics, without_nan
from recsys.evaluation.protocol import Protocol
from recsys.evaluation.task_metrics import TaskMetrics
from recsys.evaluation.with_protocol import with_protocol
from recsys.runs.files import EXPORT_PREFIX
from recsys.systems.dv365.config import DV365Run

#: Timelines and request time → user embedding [B, N_out, D].
Embed = Callable[[JaggedTimeline, JaggedTimeline, Tensor], Tensor]


def quantized_metrics(run: DV365Run, embed: Embed) -> Metrics:
    """Metrics of the choose split with published embeddings, and how far they moved.

    The backbone scores every row twice: with the embedding of the trained tower, and with the
    exported tower's after it went through 4-bit rows, which is what a downstream model reads.

    Args:
        run: the trained model.
        embed: the exported tower (``Artifact.embed``).

    Returns:
        ``export/val/<metric>`` with, and ``export/val/trained/<metric>`` without quantisation;
        ``export/val/ne_delta/<task>`` is (NE with − NE without) / NE without.
    """
    tasks = run.manifest.tasks
    trained, quantized = TaskMetrics(tasks), TaskMetrics(tasks)
    loader = RequestDataModule(run.config.loader, run.dataset).val_dataloader()
    tower = run.model.tower
    assert tower is not None
    with torch.inference_mode():
        for batch in track(loader, "Measuring the export"):
            arguments = (batch.explicit, batch.implicit, batch.request_time)
            published = dequantize_rows(quantize_rows(embed(*arguments)))
            trained.update(_predictions(run, batch, tower(*arguments)), batch.labels)
            quantized.update(_predictions(run, batch, published), batch.labels)
    before, after = trained.compute(), quantized.compute()
    deltas = {
        name.replace("ne/", "ne_delta/", 1): after[name] / before[name] - 1
        for name in after
        if name.startswith("ne/")
    }
    protocol = _protocol(run)
    measured: Metrics = without_nan(
        {
            **with_protocol(after | deltas, EXPORT_PREFIX, protocol),
            **with_protocol(before, f"{EXPORT_PREFIX}/trained", protocol),
        }
    )
    return measured


def _predictions(run: DV365Run, batch: RequestBatch, user_embedding: Tensor) -> Tensor:
    """[R, K] of the backbone, given the embeddings of the batch's requests."""
    outputs = run.model.backbone(
        user_embedding,
        batch.user_categorical,
        batch.user_dense,
        batch.item_categorical,
        batch.item_dense,
        batch.request_index,
    )
    return run.model.predictions(outputs)


def _protocol(run: DV365Run) -> Protocol:
    requests = run.dataset.requests(Split.CHOOSE)
    return Protocol(
        dataset=run.identity.dataset,
        split=Split.CHOOSE.value,
        rows=requests.num_rows,
        users=len(np.unique(requests.user)),
        seed=run.config.seed,
        checkpoint=f"{run.checkpoint.name} of step {run.checkpoint.step}",
        chosen_by=run.checkpoint.chosen_by,
    )
