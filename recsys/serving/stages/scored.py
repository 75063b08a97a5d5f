"""Scores of items by an exported model whose score is no product of two embeddings.

Legend: B users, C items, V items of the data set, W width of an embedding.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.artifacts.sequence_tower import SequenceTowerArtifact
from recsys.data.stores.vocabulary import UNKNOWN_INDEX, Vocabulary
from recsys.index.catalogue import Catalogue
from recsys.index.usable_items import POST_ID
from recsys.serving.histories import Histories
from recsys.serving.pipeline import StepUsers


class ArtifactScores:
    """What an artifact's model says of items of a catalogue, each scored for each user.

    Args:
        artifact: the model.
        histories: that end strictly before the moment.
        content: [V, W] the model's embeddings of items; zeros where an item has none.
        catalogue: of the items; those that have no embedding are not recommended.
        vocabulary: of the data set's items.
    """

    def __init__(
        self,
        artifact: SequenceTowerArtifact,
        histories: Histories,
        content: NDArray[np.float32],
        catalogue: Catalogue,
        vocabulary: Vocabulary,
    ) -> None:
        self._artifact = artifact
        self._histories = histories
        self._content = torch.from_numpy(content)
        self._catalogue = catalogue
        self._index = vocabulary.indices(catalogue.items[POST_ID]).to_numpy().astype(np.int64)
        known = (content != 0).any(axis=1)
        known[UNKNOWN_INDEX] = False
        self._known = known[self._index]

    def __call__(self, users: StepUsers, slots: NDArray[np.int64]) -> NDArray[np.float32]:
        """[B, C] scores of the items at some slots; −inf of those without an embedding."""
        place = self._catalogue.rows(slots)
        items = self._content[torch.from_numpy(self._index[place])]
        scores = np.empty((len(users), len(slots)), np.float32)
        for places, batch in self._histories.parts(users):
            embedded = self._artifact.embed(batch, self._content[batch.item])
            for row, user in zip(places.tolist(), embedded, strict=True):
                scores[row] = self._artifact.score(user, items).numpy()
        scores[:, ~self._known[place]] = -np.inf
        return scores
