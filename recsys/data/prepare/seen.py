"""Which events of a data set a model will see, and which it will not, in a sentence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.data.contract.manifest import DatasetManifest
from recsys.data.contract.schema import IMPRESSION, TimelineKind
from recsys.data.slices.slice_set import SliceSet
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.engagements.config import SequenceConfig

#: Users whose events are looked at for slices, and how many of their newest in each timeline.
_USERS = 1_000
_EVENTS = 1_000

_END_OF_TIME = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Seen:
    """What is seen.

    Attributes:
        sentence: what is, what is not, and why.
        mostly_unseen: more than half of the events are not.
        mend: how the others can be seen; empty where all are.
    """

    sentence: str
    mostly_unseen: bool
    mend: str

    def __str__(self) -> str:
        return f"{'Warning: ' * self.mostly_unseen}{self.sentence} {self.mend}".rstrip()


def engagements_seen(manifest: DatasetManifest, sequences: SequenceConfig) -> Seen:
    """What models of sequences read, before further engagements with an item are left out.

    Args:
        manifest: of the data set.
        sequences: what counts as an engagement.
    """
    actions = manifest.actions
    counts = manifest.action_counts
    counted = {actions.names[code] for code in sequences.action_codes(actions)}
    total = sum(counts.values())
    left_out = {name: count for name, count in counts.items() if name not in counted and count}
    read = total - sum(left_out.values())
    sentence = f"Sequences: {read:,} of {total:,} events are engagements"
    if left_out:
        listed = sorted(left_out.items(), key=lambda one: -one[1])
        sentence += f"; left out: {', '.join(f'{name} {count:,}' for name, count in listed)}"
    mend = ""
    if 2 * read < total and max(left_out, key=lambda name: left_out[name]) == IMPRESSION:
        shown = _names_of_impressions(manifest)
        mend = (
            "Impressions are no engagements: if they are what users chose to look at, let them "
            f"mean click (options.actions.{shown}=click) and prepare the log again."
        )
    elif 2 * read < total:
        mend = "sequences.actions says which actions are engagements."
    repeats = "" if sequences.repeats else "; of several with one item a user's first counts"
    return Seen(f"{sentence}{repeats}.", 2 * read < total, mend)


def slices_seen(dataset: PreparedDataset, slice_set: SliceSet) -> list[Seen]:
    """What slices pool of each timeline that has events, whatever the moment of the request.

    Counted over at most a thousand users and their thousand newest events.
    """
    users = np.arange(1, dataset.manifest.vocabulary_sizes["user"], dtype=np.int32)
    some = users[:: max(1, len(users) // _USERS)][:_USERS]
    looked_at = "" if len(some) == len(users) else f", counted over {len(some):,} users"
    found = []
    for kind in TimelineKind:
        moments = np.full(len(some), _END_OF_TIME)
        events = dataset.timelines.histories(some, moments, kind, _EVENTS)
        held = slice_set.reached(kind, events)
        if not len(held):
            continue
        outside = len(held) - int(held.sum())
        sentence = f"Slices: of {len(held):,} {kind} events {outside:,} enter none{looked_at}."
        mend = ""
        if outside and kind is TimelineKind.EXPLICIT:
            mend = (
                f"Their actions are in no family: {_actions(dataset, events, held)}; slices=full "
                "has all known ones."
            )
        elif outside:
            undwelled = int(np.isnan(events["dwell_time"][~held]).sum())
            mend = f"Of these {undwelled:,} have no dwell time: slices.shown pools such events."
            mend *= undwelled > 0
        found.append(Seen(sentence, 2 * outside > len(held), mend))
    return found


def _names_of_impressions(manifest: DatasetManifest) -> str:
    """The name in the log that means impression, or a stand-in for it."""
    meanings = manifest.preparation.get("options", {}).get("actions", {})
    names = [name for name, meaning in meanings.items() if meaning == IMPRESSION]
    return names[0] if len(names) == 1 else "<their name in the log>"


def _actions(dataset: PreparedDataset, events: dict[str, np.ndarray], held: np.ndarray) -> str:
    codes = np.unique(events["action_type"][~held])
    return ", ".join(dataset.manifest.action_types[code] for code in codes.tolist())
