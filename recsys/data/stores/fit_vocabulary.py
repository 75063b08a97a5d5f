"""Ids first seen after the fit period are unknown to a model: their rows were never trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from recsys.data.contract.manifest import FIT_VOCABULARY, DatasetManifest
from recsys.data.contract.schema import Feature

_ID_SUFFIX = "_id"


class FitVocabulary:
    """Maps indices that first appear after the fit period to 0, the unknown id.

    Indices are given in order of first appearance, so the trained ones of each vocabulary are
    those below one number, ``fit_vocabulary_<user|item|author|topic>`` of the manifest's counts.
    Of a vocabulary without that count all ids are known.
    """

    def __init__(self, sizes: dict[str, int]) -> None:
        self.sizes = sizes

    @classmethod
    def of(cls, manifest: DatasetManifest) -> Self:
        """The fit vocabulary of a prepared data set."""
        return cls(
            {
                name: manifest.counts.get(FIT_VOCABULARY + name, size)
                for name, size in manifest.vocabulary_sizes.items()
            }
        )

    def hide_unseen_events(self, timeline: dict[str, NDArray]) -> dict[str, NDArray]:
        """A jagged timeline whose item, author and topic are 0 where they were not in fit."""
        return {
            name: _below(column, self.sizes[name]) if name in self.sizes else column
            for name, column in timeline.items()
        }

    def hide_unseen_features(
        self, indices: NDArray[np.int32], features: Sequence[Feature]
    ) -> NDArray[np.int32]:
        """Categorical features whose ids are 0 where they were not in fit.

        Args:
            indices: [n, F], columns in the order of ``features``.
            features: the categorical features; those named after an id column are treated.
        """
        seen = indices.copy()
        for position, feature in enumerate(features):
            size = self.sizes.get(feature.name.removesuffix(_ID_SUFFIX))
            if size is not None:
                seen[:, position] = _below(seen[:, position], size)
        return seen


def _below(indices: NDArray, size: int) -> NDArray:
    return np.multiply(indices, indices < size, dtype=indices.dtype)
