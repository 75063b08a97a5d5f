"""What the verbs of `recsys index` print."""

from __future__ import annotations

from recsys.core.console import message_console
from recsys.index.catalogue import Added
from recsys.index.config import IndexChange
from recsys.index.faiss.item_index import ItemIndex
from recsys.index.folder import REJECTED_FILE
from recsys.index.usable_items import REASON


def print_change(changed: IndexChange) -> None:
    """Say on standard error what was added, replaced, left out or removed, and what is there."""
    console = message_console()
    change, index = changed.change, changed.index
    if isinstance(change, Added):
        console.print(f"Items added: {change.added:,}; replaced: {change.replaced:,}.")
        for reason, count in change.rejected[REASON].value_counts(sort=True).iter_rows():
            console.print(f"Left out ({reason}): {count:,}; they are in {REJECTED_FILE}.")
        if changed.not_in_log:
            console.print(
                f"Items that the log of dataset= does not have: {changed.not_in_log:,}; nobody has "
                "seen them, and nothing but posts= says of when they are."
            )
    else:
        console.print(f"Items removed: {change.removed:,}; not in the index: {change.unknown:,}.")
    kind = index.manifest.config.kind if isinstance(index, ItemIndex) else index.manifest.metric
    console.print(f"Items in the {kind} index: {len(index):,}; width: {index.manifest.width}.")
    for remark in changed.remarks:
        console.print(remark)
    if isinstance(index, ItemIndex) and index.rebuild_advised:
        console.print(
            f"{index.tombstone_share:.0%} of what its graph holds are removed items, which "
            "searches still pass through: build it again with `recsys index build`."
        )
