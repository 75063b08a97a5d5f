"""Whether the items of a data set can be told apart by what a post tower looks at.

Legend: P items, F features.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from recsys.core.errors import DataError
from recsys.data.batches.item_features import ItemFeatures
from recsys.data.contract.schema import Feature
from recsys.systems.post_tower.net import metadata_columns


def refuse_equal_items(
    items: ItemFeatures, categorical: Sequence[Feature], post_id: bool, name: str
) -> None:
    """Refuse items that all look the same: no loss could move.

    Args:
        items: of the fit period.
        categorical: their categorical features, in column order.
        post_id: whether each has an embedding of its own beside what is known of it.
        name: of the data set, for the sentence.

    Raises:
        DataError: nothing is known of them, or the same of all.
    """
    if post_id:
        return
    channels = {
        "texts": _has_two(items.text) or _has_two(items.text_lengths),
        "images": len(items.images) > 1,
        "categories": _has_two(items.categorical[:, metadata_columns(categorical)]),
        "numbers": _has_two(items.dense * items.has_dense[:, None]),
        "embeddings": _has_two(items.given),
    }
    if not any(channels.values()):
        raise DataError(
            f"The {len(items.text_lengths):,} items of {name} that were engaged with in the fit "
            "period cannot be told apart: no text, category, number, image or embedding differs, "
            "so a post tower has nothing to learn from. Name columns of theirs in "
            "data.options.items (texts, categorical, dense, …), or set model.tower.post_id=true "
            "for an embedding of its own for each."
        )


def _has_two(rows: Tensor) -> bool:
    """Whether a tensor has two different rows."""
    return len(rows) > 1 and bool((rows != rows[:1]).any())
