"""The item embeddings a run works with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from recsys.core.bounds import Settings, Width
from recsys.core.console import message_console
from recsys.core.errors import ConfigError
from recsys.core.location import find_path
from recsys.data.content.item_embeddings import EmbeddingReport, ItemEmbeddings, embeddings_file
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.vocabulary import Vocabulary, vocabulary_path


@dataclass(frozen=True)
class ItemsConfig(Settings):
    """Where the embeddings of items come from.

    Attributes:
        path: an .npz or Parquet file of ids and embeddings, or the folder of a trained item
            tower; below the data folder unless absolute or found as it is. None for those that
            came with the items of the data set.
        data_dir: where it is looked for, before RECSYS_DATA_DIR and ./data.
        width: what the embeddings must be wide; None accepts any.
    """

    path: str | None = None
    data_dir: str | None = None
    width: Width | None = None


def load_items(config: ItemsConfig, dataset: PreparedDataset) -> ItemEmbeddings:
    """The embeddings, a row per item index of the data set; read once as long as nothing changes.

    Raises:
        ConfigError: no path is given, and the data set has no embeddings.
        DataError: the file cannot be used.
    """
    file = embeddings_file(items_path(config, dataset))
    vocabulary = vocabulary_path(dataset.path, "item")
    written = tuple(one.stat().st_mtime_ns for one in (file, vocabulary) if one.is_file())
    return _read(file, vocabulary, config.width, written)


@lru_cache(maxsize=1)
def _read(
    file: Path, vocabulary: Path, width: int | None, written: tuple[int, ...]
) -> ItemEmbeddings:
    """The embeddings; model and protocol of a run want the same, ``written`` tells other files."""
    return ItemEmbeddings.load(file, Vocabulary.load(vocabulary), width)


@rank_zero_only
def say_what_is_left_out(report: EmbeddingReport) -> None:
    """Print how many items of the log have no embedding that can be used, and why."""
    console = message_console()
    reasons = {
        "not in the file": report.without_embedding,
        "with NaN or infinity": report.not_finite,
        "of zero norm": report.zero_norm,
    }
    if report.known < report.items:
        counts = ", ".join(f"{reason}: {count:,}" for reason, count in reasons.items() if count)
        console.print(
            f"Items without an embedding: {report.items - report.known:,} of {report.items:,} "
            f"({counts}); engagements with them are skipped."
        )
    if report.duplicates:
        console.print(
            f"Embeddings of an item that was given before: {report.duplicates:,}; the first counts."
        )


def items_path(config: ItemsConfig, dataset: PreparedDataset) -> Path:
    """The file or folder of the embeddings.

    Raises:
        ConfigError: no path is given, and the data set has no embeddings.
    """
    if config.path is not None:
        return find_path(config.data_dir, config.path)
    if dataset.item_embedding_file is not None:
        return dataset.item_embedding_file
    raise ConfigError(
        f"posts.path=… is needed, since {dataset.path} has no embeddings of its items. Give an "
        ".npz or Parquet file of item ids and embeddings; or name the column of the table of items "
        "that holds them, data.options.items.embedding; or make some of texts, categories and "
        "numbers: `recsys train system=post_tower run_dir=runs/posts` with the settings of data= "
        "that you gave here, and then posts.path=runs/posts."
    )
