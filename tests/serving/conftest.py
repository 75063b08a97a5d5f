"""The data set, embeddings and artifact of the tests of indexes."""

from tests.index.conftest import artifact, dataset, embeddings

__all__ = ["artifact", "dataset", "embeddings"]
