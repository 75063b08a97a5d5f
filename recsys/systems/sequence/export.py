"""From a run of SASRec or HSTU to the artifact of its user tower and its items' embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.artifacts.sequence_export import Measure, SequenceExport, export_sequence_tower
from recsys.artifacts.sequence_tower import Embed
from recsys.core.progress import track
from recsys.data.content.item_embeddings import ITEM_EMBEDDINGS_FILE, write_item_embeddings
from recsys.data.contract.schema import Split
from recsys.data.loaders.sequences import SequenceDataModule
from recsys.data.stores.vocabulary import INDEX, RAW
from recsys.evaluation.metrics_file import replace_metrics
from recsys.evaluation.ranking import DotProductScorer
from recsys.evaluation.retrieval import ALL, RetrievalProtocol
from recsys.evaluation.retrieval_evaluation import protocol_of
from recsys.runs.files import CONFIG_FILE, EXPORT_PREFIX
from recsys.systems.base import ExportConfig
from recsys.systems.sequence.config import SequenceRun
from recsys.systems.sequence.tower import SequenceUserTower, exported_items


def export_run(
    run: SequenceRun,
    config: ExportConfig,
    protocol: RetrievalProtocol,
    learned: NDArray[np.bool_],
) -> Path:
    """Write the artifact of a run, and what it measured into the run's ``metrics.json`` too.

    Args:
        run: the trained model.
        config: where to, and whether to measure.
        protocol: queries and candidates of the choose split.
        learned: [V] items that have an embedding.

    Returns:
        The artifact folder.

    Raises:
        ArtifactError: an exported tower does not agree with the trained one.
    """
    folder = config.folder(run.folder, run.dataset.path)
    data = SequenceDataModule(run.config.loader, run.dataset, protocol.engagements)
    examples = next(iter(data.loader(Split.CHOOSE, shuffle=False)))
    items = exported_items(run.model)
    table = run.dataset.vocabulary("item").table
    index = table[INDEX].to_numpy()
    with_row = learned[index]
    of_index = torch.zeros(len(learned), items.shape[1])
    of_index[1 : len(items)] = items[1:]
    max_length = run.config.loader.max_length
    export = SequenceExport(
        post_embeddings=ITEM_EMBEDDINGS_FILE,
        training=run.training,
        dataset_path=run.dataset.path,
        sequences=asdict(run.config.sequences),
        max_length=max_length,
        gap_hours=run.config.loader.gap_hours,
        config_file=run.folder / CONFIG_FILE,
        examples=(examples, of_index[examples.item]),
        model=run.config.system,
        normalised=run.model.config.scale is not None,
        write_items=lambda path: write_item_embeddings(
            path, table[RAW].filter(with_row), of_index[index[with_row]].numpy()
        ),
        measure=_measure(run, protocol, data, of_index) if config.measure else None,
    )
    tower = SequenceUserTower(run.model, max_length)
    manifest = export_sequence_tower(tower, run.manifest, folder, export)
    if config.measure:
        replace_metrics(run.folder, f"{EXPORT_PREFIX}/", manifest.metrics)
    return folder


def _measure(
    run: SequenceRun,
    protocol: RetrievalProtocol,
    data: SequenceDataModule,
    items: torch.Tensor,
) -> Measure:
    """Metrics of the choose split among all items with an exported tower."""
    candidates = protocol.candidates([ALL])
    with torch.inference_mode():
        of_item = run.model.item_embeddings(protocol.num_items)

    def measure(embed: Embed) -> Mapping[str, Mapping[str, Any]]:
        ids, users = [], []
        for batch in track(data.loader(Split.CHOOSE, shuffle=False), "Measuring the export"):
            ids.append(batch.query_id)
            users.append(embed(batch, items[batch.item])[:, :-1])
        in_order = torch.cat(users)[torch.cat(ids).argsort()]
        ranks = protocol.rank(DotProductScorer(in_order, of_item), candidates)
        said = protocol_of(run.identity, Split.CHOOSE, ranks[ALL])
        return {name: said.measure(v).as_dict() for name, v in protocol.values(ranks).items()}

    return measure
