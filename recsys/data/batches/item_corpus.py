"""What is known of every item of a prepared data set, as tensors.

Legend: V item indices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from recsys.core.bounds import Length, Settings
from recsys.core.location import find_path
from recsys.data.batches.item_features import ItemFeatures
from recsys.data.content.item_embeddings import (
    ItemEmbeddings,
    indices_in_log,
    read_embeddings,
)
from recsys.data.content.text import HashedTextConfig, hashed_ngrams, pretrained_tokens
from recsys.data.contract.schema import FeatureKind, FeatureSide
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.encoding import list_feature
from recsys.data.stores.fit_vocabulary import FitVocabulary
from recsys.data.stores.vocabulary import INDEX


@dataclass(frozen=True)
class ItemCorpusConfig(Settings):
    """What of an item is looked at beside its features in the data set.

    Attributes:
        max_tokens: of a title, where a pretrained model's tokeniser splits it.
        images: .npz or Parquet file of image embeddings, one row per image under the id of its
            item; None where there are none.
        data_dir: where ``images`` is looked for, before RECSYS_DATA_DIR and ./data.
    """

    max_tokens: Length = 128
    images: str | None = None
    data_dir: str | None = None


def read_item_corpus(
    dataset: PreparedDataset,
    config: ItemCorpusConfig,
    hashed_text: HashedTextConfig,
    pretrained_text: str | None = None,
) -> ItemFeatures:
    """The features of every item, a row per item index.

    Authors and topics first seen after the fit period are unknown, as they are to a model.

    Args:
        dataset: the prepared data set.
        config: what is looked at beside it.
        hashed_text: how texts become n-grams.
        pretrained_text: folder of a Hugging Face model whose tokeniser splits the texts instead.

    Raises:
        DataError: the file of image embeddings, or one of the data set, cannot be used.
    """
    features = dataset.item_features
    fit_vocabulary = FitVocabulary.of(dataset.manifest)
    columns = dataset.manifest.select(FeatureSide.ITEM, FeatureKind.CATEGORICAL)
    categorical = fit_vocabulary.hide_unseen_features(np.asarray(features.categorical), columns)
    texts = _texts(dataset)
    if texts is None:
        text, text_lengths = np.zeros(0, np.int64), np.zeros(len(categorical), np.int64)
    elif pretrained_text is not None:
        text, text_lengths = pretrained_tokens(texts, pretrained_text, config.max_tokens)
    else:
        text, text_lengths = hashed_ngrams(texts, hashed_text)
    images, image_lengths = _images(dataset, config)
    given, has_given = _given(dataset, len(categorical))
    return ItemFeatures(
        text=torch.from_numpy(text),
        text_lengths=torch.from_numpy(text_lengths),
        images=torch.from_numpy(images),
        image_lengths=torch.from_numpy(image_lengths),
        categorical=torch.from_numpy(categorical.astype(np.int64)),
        dense=torch.from_numpy(np.array(features.dense)),
        has_dense=torch.from_numpy(_has_dense(dataset)),
        given=torch.from_numpy(given),
        has_given=torch.from_numpy(has_given),
    )


def _texts(dataset: PreparedDataset) -> list[str | None] | None:
    """All texts of an item as one, by item index; None where the data set has no texts."""
    num_items = dataset.manifest.vocabulary_sizes[FeatureSide.ITEM]
    stored = dataset.item_text
    names = [name for name in stored.columns if name != INDEX]
    if not names:
        return None
    joined = stored.select(INDEX, pl.concat_str(names, separator=" ", ignore_nulls=True))
    every = pl.DataFrame({INDEX: np.arange(num_items)}).with_columns(
        pl.col(INDEX).cast(joined.schema[INDEX])
    )
    return every.join(joined, on=INDEX, how="left", maintain_order="left")[names[0]].to_list()


def _has_dense(dataset: PreparedDataset) -> NDArray[np.bool_]:
    """[V] whether any number is known of an item."""
    num_items = dataset.manifest.vocabulary_sizes[FeatureSide.ITEM]
    dense = [f.name for f in dataset.manifest.select(FeatureSide.ITEM, FeatureKind.DENSE)]
    # a feature made of a list is named `<column>=<value>`
    columns = [
        column
        for column in dataset.item_columns
        if any(name == column or name.startswith(list_feature(column, "")) for name in dense)
    ]
    if not columns:
        return np.arange(num_items) > 0
    stated = dataset.item_table(columns)
    known = stated.filter(pl.any_horizontal(pl.col(columns).is_not_null()))[INDEX]
    has_dense = np.zeros(num_items, bool)
    has_dense[known.to_numpy()] = True
    return has_dense


def _given(
    dataset: PreparedDataset, num_items: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The embeddings that came with the items [V, W_g], and who has one [V]."""
    file = dataset.item_embedding_file
    if file is None:
        return np.zeros((num_items, 0), np.float32), np.zeros(num_items, bool)
    embeddings = ItemEmbeddings.load(file, dataset.vocabulary("item"))
    return embeddings.matrix, embeddings.known


def _images(
    dataset: PreparedDataset, config: ItemCorpusConfig
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Image embeddings in order of their items' indices, and how many each item has [V]."""
    num_items = dataset.manifest.vocabulary_sizes[FeatureSide.ITEM]
    if config.images is None:
        return np.zeros((0, 0), np.float32), np.zeros(num_items, np.int64)
    path = find_path(config.data_dir, config.images)
    ids, embeddings = read_embeddings(path)
    index = indices_in_log(path, ids, dataset.vocabulary("item")).to_numpy()
    order = np.argsort(index, kind="stable")
    order = order[index[order] > 0]
    counts = np.bincount(index[order], minlength=num_items).astype(np.int64)
    return embeddings[order].astype(np.float32), counts
