"""Which untrained or cheap scorers are measured beside systems that predict tasks."""

from __future__ import annotations

from dataclasses import dataclass

from recsys.core.bounds import Count, Few, Positive, Seed, Settings

#: Trees on counts, by the name in metrics; needs LightGBM.
BOOSTED_COUNTS = "boosted_counts"

#: Scorers of task systems by the name they have in metrics, and what they are called in sentences.
TASK_BASELINES = {
    "fit_mean": "the fit mean",
    "user_mean": "the smoothed user mean",
    "item_mean": "the smoothed item mean",
    "user_author_mean": "the smoothed mean of user and author",
    "user_topic_mean": "the smoothed mean of user and topic",
    BOOSTED_COUNTS: "LightGBM on counts",
}

#: Those that take seconds.
TASK_MEANS = tuple(name for name in TASK_BASELINES if name != BOOSTED_COUNTS)


@dataclass(frozen=True)
class BoostingConfig(Settings):
    """How LightGBM is trained on counts.

    Attributes:
        rows: fit rows to train on at most, and as many choose rows to stop on; of more so many are
            drawn evenly over time.
        trees: most trees of a task.
        patience: trees without a better loss on the choose rows after which a task is done.
        leaves: of a tree.
        learning_rate: weight of a tree.
        seed: of the features that a tree looks at.
    """

    rows: Count = 1_000_000
    trees: Few = 500
    patience: Count = 30
    leaves: Few = 15
    learning_rate: Positive = 0.1
    seed: Seed = 0
