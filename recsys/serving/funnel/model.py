"""What a funnel asks of a trained model, and what a model is told of requests.

Legend: B requests, n pairs, U users and V items as a funnel numbers them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.core.errors import ConfigError
from recsys.data.batches.context import Context
from recsys.data.batches.given_rows import GivenRows
from recsys.data.batches.hour_of_day import with_hour
from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import FeatureSide
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.live import LiveDataset
from recsys.serving.funnel.candidates import Requests
from recsys.serving.funnel.config import RetrievedConfig, SimilarConfig
from recsys.serving.funnel.knowledge import Knowledge
from recsys.serving.funnel.stages import Scorer, Source


@dataclass(frozen=True, eq=False)
class Numbering:
    """Whom the numbers of a funnel's users and items mean in a data set.

    Attributes:
        user: [U] indices, 0 for one that the data set does not have.
        item: [V] likewise.
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]

    @classmethod
    def of(cls, dataset: PreparedDataset) -> Self:
        """The data set's own."""
        sizes = dataset.manifest.vocabulary_sizes
        return cls(np.arange(sizes["user"]), np.arange(sizes["item"]))


class Model(Protocol):
    """A trained model; most are a source or a scorer, not both."""

    def grown(self, dataset: LiveDataset) -> Model:
        """The same over its data set with items that were announced since, by its own numbers."""
        ...

    def source(self, name: str, config: RetrievedConfig, known: Knowledge) -> Source:
        """Finds items for users.

        Raises:
            ConfigError: it is no such model.
        """
        ...

    def similar(self, name: str, config: SimilarConfig, known: Knowledge) -> Source:
        """Finds items like those of users' histories.

        Raises:
            ConfigError: it does not embed items.
        """
        ...

    def scorer(self, tasks: Sequence[str] | None) -> Scorer:
        """Scores pairs: by one number, or by what it predicts of some tasks, in their order.

        Raises:
            ConfigError: it does not predict them, or gives no one number.
        """
        ...


def places_of(where: str, tasks: Sequence[str], own: Sequence[str]) -> NDArray[np.int64]:
    """[K] places of tasks among those that a model predicts.

    Raises:
        ConfigError: it does not predict one.
    """
    for task in tasks:
        if task not in own:
            raise ConfigError(f"{where}: it does not predict {task}; it predicts {', '.join(own)}.")
    return np.array([own.index(task) for task in tasks], np.int64)


def not_similar(source: str, model: str, kind: str) -> ConfigError:
    """What is said where items are to be compared by a model that does not embed them."""
    return ConfigError(
        f"funnel.sources.similar.{source}: {model} is {kind}, whose scores are of pairs; items are "
        "compared by a two_tower, nxtpost or sequence."
    )


def context_of(
    requests: Requests,
    lengths: NDArray[np.int64],
    manifest: DatasetManifest,
    always: Mapping[str, object],
) -> Context:
    """What is known of the context of pairs [n]: columns of the requests, and what always holds.

    Args:
        requests: B.
        lengths: [B] pairs of each.
        manifest: whose context features are looked for among the columns of the requests; an hour
            of the day that is not there follows from the moment where the log has it so.
        always: values by feature, for all pairs.

    Raises:
        ConfigError: ``always`` names no context feature.
    """
    rows = int(lengths.sum())
    features = [one.name for one in manifest.features if one.side is FeatureSide.CONTEXT]
    said = {name: column for name, column in requests.columns.items() if name in features}
    columns = {name: pl.Series(np.repeat(column, lengths)) for name, column in said.items()}
    columns |= {name: pl.Series([of]).new_from_index(0, rows) for name, of in always.items()}
    moment = np.repeat(requests.moment, lengths)
    nobody = np.zeros(rows, np.int64)
    return with_hour(GivenRows(nobody, nobody, moment, pl.DataFrame(columns)), manifest).context
