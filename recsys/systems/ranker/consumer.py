"""What a ranker loses on the newest day when another version of the user embeddings is served."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from recsys.core.errors import ConfigError
from recsys.data.contract.schema import MILLISECONDS_PER_HOUR, Split
from recsys.data.loaders.ranking import RankingDataModule
from recsys.embeddings.point_in_time import PointInTimeEmbeddings
from recsys.evaluation.comparisons import compare
from recsys.evaluation.paired import Bootstrap, Interval
from recsys.evaluation.together import MEAN, NE_DELTA
from recsys.systems.ranker.skew import load_reader
from recsys.systems.ranker.system import RankerSystem


class Consumer:
    """A trained ranker that reads published user embeddings, and the newest rows it has not seen.

    Args:
        run_dir: a run of `system=ranker` that reads user embeddings.

    Raises:
        RecsysError: it is none, or has seen the newest day of its data set.
    """

    def __init__(self, run_dir: Path | str) -> None:
        self._run = load_reader(str(run_dir), "best", None, Split.REPORT)
        self._delay = self._run.config.loader.user_embeddings.delay_hours
        rows = self._run.dataset.requests(Split.REPORT).request_time
        if not len(rows):
            raise ConfigError(f"{self._run.dataset.path} has no rows in the report split.")
        #: The latest moment (ms) of embeddings that are served before the rows.
        self.as_of = int(rows.min()) - round(self._delay * MILLISECONDS_PER_HOUR)

    def change(self, served: str, new: str, bootstrap: Bootstrap) -> Interval:
        """Change of the mean NE, in percent, above 0 where the new version is worse.

        Args:
            served: the store of the version that is served.
            new: of the one that is to be; both as of ``as_of``.
            bootstrap: how the interval is made.

        Raises:
            RecsysError: a store cannot be read, or is of another model's shape.
        """
        control, frame = self._predicted(served), self._predicted(new)
        return compare(frame, control, self._run.manifest.tasks, bootstrap)[f"{NE_DELTA}/{MEAN}"]

    def _predicted(self, store: str) -> pl.DataFrame:
        run = self._run
        vectors = PointInTimeEmbeddings(run.dataset, [store], self._delay)
        data = RankingDataModule(run.config.loader, run.dataset, vectors)
        return RankerSystem().predicted(run, data, Split.REPORT)
