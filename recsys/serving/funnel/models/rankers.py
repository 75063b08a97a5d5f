"""An exported ranker as the second stage of a funnel.

Legend: B requests, n pairs, K tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.artifacts.ranker_tower import RankerArtifact
from recsys.core.errors import ArtifactError, ConfigError
from recsys.data.batches.ranking_reader import RankingReader
from recsys.data.features.config import CandidateFeatureConfig
from recsys.data.stores.live import LiveDataset
from recsys.embeddings.point_in_time import PointInTimeEmbeddings
from recsys.serving.funnel.candidates import Requests
from recsys.serving.funnel.config import ModelConfig, RetrievedConfig, SimilarConfig
from recsys.serving.funnel.knowledge import Knowledge
from recsys.serving.funnel.model import Numbering, context_of, not_similar, places_of
from recsys.serving.funnel.stages import Scorer, Source

#: What stands in a store is served.
_NO_DELAY = 0.0


class RankerModel:
    """Predicts what users would do with candidates.

    Args:
        name: of the model in the funnel.
        artifact: the exported ranker.
        dataset: that it was trained on, and what has come since.
        numbers: of the funnel's users and items.
        config: what is said of it.

    Raises:
        ConfigError: published user embeddings are given and not read, or read and not given.
    """

    def __init__(
        self,
        name: str,
        artifact: RankerArtifact,
        dataset: LiveDataset,
        numbers: Numbering,
        config: ModelConfig,
    ) -> None:
        manifest = artifact.manifest
        self.name, self.artifact, self.numbers = name, artifact, numbers
        self._config = config
        self.dataset = dataset.with_fit_vocabulary(manifest.fit_vocabulary)
        self.context = config.context
        self.reader = RankingReader(
            self.dataset,
            gap_hours=manifest.gap_hours,
            recent_events=manifest.max_length,
            features=CandidateFeatureConfig.stored(manifest.counting),
            user_embeddings=_published(name, artifact, self.dataset, config.stores),
        )
        if list(self.reader.candidates.names) != manifest.features["counted"]:
            raise ArtifactError(
                f"{dataset.path} counts other numbers of candidates than the data set that "
                f"{artifact.folder} was trained on; train again on the data set as it is."
            )

    def grown(self, dataset: LiveDataset) -> RankerModel:
        """The same over its data set with further items."""
        return RankerModel(self.name, self.artifact, dataset, Numbering.of(dataset), self._config)

    def source(self, name: str, config: RetrievedConfig, known: Knowledge) -> Source:
        """A ranker finds nothing."""
        raise ConfigError(
            f"funnel.sources.retrieved.{name}: {self.name} is a ranker, which scores candidates "
            "and finds none; name a two_tower, nxtpost, sequence or hsnn."
        )

    def similar(self, name: str, config: SimilarConfig, known: Knowledge) -> Source:
        """Nothing is like anything to it."""
        raise not_similar(name, self.name, "a ranker")

    def scorer(self, tasks: Sequence[str] | None) -> Scorer:
        """Predictions of some of its tasks."""
        own = [task["name"] for task in self.artifact.manifest.tasks]
        if tasks is None:
            raise ConfigError(
                f"funnel.first.scorer={self.name}: a ranker predicts tasks, and is for the second "
                "stage; the first takes one number, of a two_tower, nxtpost or sequence."
            )
        return _Predictions(self, places_of(f"funnel.second.scorer={self.name}", tasks, own))


@dataclass(frozen=True, eq=False)
class _Predictions:
    """Predictions of some tasks, in their order."""

    model: RankerModel
    order: NDArray[np.int64]

    @property
    def name(self) -> str:
        """That of the model."""
        return self.model.name

    def score(
        self, requests: Requests, lengths: NDArray[np.int64], item: NDArray[np.int64]
    ) -> NDArray[np.floating]:
        """[n, K]."""
        model, some = self.model, lengths > 0
        if not some.any():
            return np.empty((0, len(self.order)), np.float32)
        batch = model.reader.given(
            model.numbers.user[requests.user[some]],
            requests.moment[some],
            lengths[some],
            model.numbers.item[item],
            context_of(requests, lengths, model.dataset.manifest, model.context),
        )
        found: NDArray[np.float64] = model.artifact.score_batch(batch).numpy()
        return found[:, self.order]


def _published(
    name: str, artifact: RankerArtifact, dataset: LiveDataset, stores: Sequence[str]
) -> PointInTimeEmbeddings | None:
    shape = artifact.manifest.published
    if bool(shape) != bool(stores):
        what = "needs stores=[…], where its users' embeddings are served" if shape else "reads none"
        raise ConfigError(
            f"funnel.models.{name}: published user embeddings: {artifact.folder} {what}."
        )
    return PointInTimeEmbeddings(dataset, stores, _NO_DELAY) if stores else None
