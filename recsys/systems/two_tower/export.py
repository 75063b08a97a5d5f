"""From a run of the two-tower model to the artifact of its user tower and its items' embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from recsys.artifacts.sequence_export import Measure, SequenceExport, export_sequence_tower
from recsys.artifacts.sequence_tower import ITEM_TOWER_FILE, MIXTURE_FILE, Embed
from recsys.data.batches.sequences.towers import TowerReader
from recsys.data.content.item_embeddings import ITEM_EMBEDDINGS_FILE, write_item_embeddings
from recsys.data.contract.schema import Split
from recsys.data.stores.vocabulary import INDEX, RAW
from recsys.evaluation.metrics_file import replace_metrics
from recsys.evaluation.query_embedder import QueryEmbedder
from recsys.evaluation.ranking import Scorer
from recsys.evaluation.retrieval import ALL, RetrievalProtocol
from recsys.evaluation.retrieval_evaluation import protocol_of
from recsys.runs.files import CONFIG_FILE, EXPORT_PREFIX
from recsys.systems.base import ExportConfig
from recsys.systems.kinds.retrieval import gap_of
from recsys.systems.two_tower.config import TwoTowerRun
from recsys.systems.two_tower.similarity import OneUserScores

#: Queries of the choose split on which the exported towers are compared with the trained one.
_COMPARED = 1024


def export_run(
    run: TwoTowerRun,
    config: ExportConfig,
    protocol: RetrievalProtocol,
    reader: TowerReader,
    learned: NDArray[np.bool_],
    scorer: Callable[[Tensor, Tensor], Scorer],
) -> Path:
    """Write the artifact of a run, and what it measured into the run's ``metrics.json`` too.

    Args:
        run: the trained model.
        config: where to, and whether to measure.
        protocol: queries and candidates of the choose split.
        reader: of what the run reads of users.
        learned: [V] items that have an embedding.
        scorer: compares user embeddings [Q, W] with items [V, W].

    Returns:
        The artifact folder.

    Raises:
        ArtifactError: an exported tower does not agree with the trained one.
    """
    folder = config.folder(run.folder, run.dataset.path)
    queries = protocol.queries
    examples = reader.before(queries.user[:_COMPARED], queries.time[:_COMPARED], gap_of(run))
    model, items = run.model, run.model.embed_all()
    table = run.dataset.vocabulary("item").table
    index = table[INDEX].to_numpy()
    with_row = learned[index]
    adopted = model.users.adopted
    tower: nn.Module = model.users.history if adopted is None else model.users
    published: dict[str, Any] = {}
    if adopted is not None:
        published = {
            "shape": list(adopted.default.shape),
            "delay_hours": run.config.loader.user_embeddings.delay_hours,
        }
    beside: dict[str, nn.Module] = {}
    if model.mixture is not None:
        beside[MIXTURE_FILE] = OneUserScores(model.mixture)
    items_as: dict[str, Any] = {}
    if model.config.items.pretrained_text is None:
        beside[ITEM_TOWER_FILE] = model.items
        hashed = asdict(model.config.items.hashed_text)
        items_as = {"corpus": asdict(run.config.corpus), "hashed_text": hashed}
    export = SequenceExport(
        post_embeddings=ITEM_EMBEDDINGS_FILE,
        training=run.training,
        dataset_path=run.dataset.path,
        sequences=asdict(run.config.sequences),
        max_length=run.config.loader.max_length,
        gap_hours=run.config.loader.gap_hours,
        config_file=run.folder / CONFIG_FILE,
        examples=(examples, items[examples.item]),
        model=run.config.system,
        write_items=lambda path: write_item_embeddings(
            path, table[RAW].filter(with_row), items[index[with_row]].numpy()
        ),
        measure=_measure(run, protocol, reader, items, scorer) if config.measure else None,
        beside=beside,
        own={
            "published": published,
            "similarity": model.config.similarity,
            "items": items_as,
        },
    )
    manifest = export_sequence_tower(tower, run.manifest, folder, export)
    if config.measure:
        replace_metrics(run.folder, f"{EXPORT_PREFIX}/", manifest.metrics)
    return folder


def _measure(
    run: TwoTowerRun,
    protocol: RetrievalProtocol,
    reader: TowerReader,
    items: Tensor,
    scorer: Callable[[Tensor, Tensor], Scorer],
) -> Measure:
    """Metrics of the choose split among all items with an exported tower."""
    candidates = protocol.candidates([ALL])

    def measure(embed: Embed) -> Mapping[str, Mapping[str, Any]]:
        tower = QueryEmbedder(
            lambda batch: embed(batch, items[batch.item]), reader, run.config.loader.gap_hours
        )
        ranks = protocol.rank(scorer(tower.embed(protocol.queries), items), candidates)
        said = protocol_of(run.identity, Split.CHOOSE, ranks[ALL])
        return {name: said.measure(v).as_dict() for name, v in protocol.values(ranks).items()}

    return measure
