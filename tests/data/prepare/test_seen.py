from __future__ import annotations

from pathlib import Path

import polars as pl

from recsys.data.prepare.prepare import PrepareConfig, prepare
from recsys.data.prepare.seen import engagements_seen, slices_seen
from recsys.data.slices.families import ActionFamily, ShownFamily, SliceConfig, WatchTimeFamily
from recsys.data.slices.families import Range as Seconds
from recsys.data.slices.slice_set import SliceSet
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.engagements.config import SequenceConfig

START = 1_700_000_000_000


def prepared(tmp_path: Path, actions: list[str], dwell: list[float | None]) -> PreparedDataset:
    frame = pl.DataFrame(
        {
            "user_id": [n % 3 for n in range(len(actions))],
            "item_id": list(range(len(actions))),
            # each action over the whole time, so that every split has some
            "timestamp": [START + n * 7 % len(actions) for n in range(len(actions))],
            "action_type": actions,
            "dwell_time": pl.Series(dwell, dtype=pl.Float32),
        }
    )
    options = {"actions": {"VIEW": "impression", "abuse": "negative"}}
    options |= {"choose_fraction": 0.3, "report_fraction": 0.35}
    prepare(PrepareConfig(out=str(tmp_path / "out"), options=options), frame)
    return PreparedDataset.open(tmp_path / "out")


def test_what_is_no_engagement_is_counted_by_action(tmp_path: Path) -> None:
    actions = ["VIEW"] * 12 + ["liked"] * 5 + ["abuse"] * 3
    manifest = prepared(tmp_path, actions, [1.0] * 20).manifest
    assert manifest.action_counts == {"impression": 12, "liked": 5, "abuse": 3}
    assert str(engagements_seen(manifest, SequenceConfig())) == (
        "Warning: Sequences: 5 of 20 events are engagements; left out: impression 12, abuse 3; "
        "of several with one item a user's first counts. Impressions are no engagements: if they "
        "are what users chose to look at, let them mean click (options.actions.VIEW=click) and "
        "prepare the log again."
    )


def test_what_is_mostly_seen_is_no_warning(tmp_path: Path) -> None:
    manifest = prepared(
        tmp_path, ["VIEW"] * 3 + ["liked"] * 14 + ["abuse"] * 3, [1.0] * 20
    ).manifest
    assert str(engagements_seen(manifest, SequenceConfig())) == (
        "Sequences: 14 of 20 events are engagements; left out: impression 3, abuse 3; of several "
        "with one item a user's first counts."
    )
    again = SequenceConfig(["abuse"], repeats=True)
    assert str(engagements_seen(manifest, again)) == (
        "Warning: Sequences: 3 of 20 events are engagements; left out: liked 14, impression 3. "
        "sequences.actions says which actions are engagements."
    )


def test_slices_say_what_they_never_hold(tmp_path: Path) -> None:
    actions = ["VIEW"] * 14 + ["liked"] * 5 + ["abuse"]
    dwell = [5.0] * 4 + [0.5] + [None] * 9 + [None] * 6
    dataset = prepared(tmp_path, actions, dwell)
    # windows do not matter: an event is in its window some time after it
    config = SliceConfig(
        actions=[ActionFamily(actions=["liked"], windows=["3d"])],
        watch_time=[WatchTimeFamily(ranges=[Seconds(3)], windows=["3d"])],
    )
    explicit, implicit = slices_seen(dataset, SliceSet.of(config, dataset.manifest))
    assert str(explicit) == (
        "Slices: of 6 explicit events 1 enter none. Their actions are in no family: abuse; "
        "slices=full has all known ones."
    )
    assert str(implicit) == (
        "Warning: Slices: of 14 implicit events 10 enter none. Of these 9 have no dwell time: "
        "slices.shown pools such events."
    )
    shown = SliceConfig(shown=[ShownFamily()])
    explicit, implicit = slices_seen(dataset, SliceSet.of(shown, dataset.manifest))
    assert explicit.mostly_unseen
    assert implicit.sentence == "Slices: of 14 implicit events 5 enter none."
