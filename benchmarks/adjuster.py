"""How well an adjuster predicts fresh scores from stale ones on the counters of a real log.

The logged lists of EB-NeRD, which say what was seen and what was clicked, are told in the order of
time to a service's knowledge: the first ones as a prepared data set, the later ones as live events.
At a share of the later lists the same user asks a funnel that counts, with a cache. Every cached
candidate is scored freshly too, and from these samples an adjuster is learned and measured as
`recsys funnel adjuster` does it: on the last requests, beside the stale scores.
"""

from __future__ import annotations

import tempfile
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from recsys.cli.prepare import configure as configure_preparation
from recsys.core.console import output_console, text_table
from recsys.core.progress import track
from recsys.data.contract.schema import IMPRESSION, Column
from recsys.data.prepare.prepare import find_log, prepare
from recsys.data.sources import open_source
from recsys.data.stores.dataset import PreparedDataset
from recsys.data.stores.live import LiveDataset
from recsys.data.stores.vocabulary import FIRST_SEEN, RAW
from recsys.serving.funnel.build import build_funnel
from recsys.serving.funnel.cache.config import CacheConfig
from recsys.serving.funnel.cache.distil import AdjusterConfig, Distilled, distil
from recsys.serving.funnel.config import FunnelConfig, SourceConfig, SourcesConfig, ValueConfig
from recsys.serving.funnel.ledger import Described, Ledger, LedgerConfig
from recsys.serving.funnel.live_knowledge import KnowledgeConfig, LiveKnowledge

DESCRIPTION = "error of adjusted and stale scores on a real log's counters, by gap"

CLICK = "click"
#: What trees do not look at, by the name of the adjuster.
WITHOUT = {"adjusted": [], "without deltas": ["engagements_grown", "affinity_grown"]}


@dataclass(frozen=True)
class Config:
    """Sizes of the benchmark.

    Attributes:
        data: of conf/data, a source whose lists say what was seen; of EB-NeRD, the demo.
        prepared_share: of the lists, by time, that are in the prepared data set.
        requests: at which the funnel is asked, of the users who come first.
        candidates: of a request.
        max_age_hours: T1.
        alive_hours: that an item can be shown.
    """

    data: str = "ebnerd"
    prepared_share: float = 0.5
    requests: int = 3_000
    candidates: int = 100
    max_age_hours: float = 6.0
    alive_hours: float = 72.0
    without: dict[str, list[str]] = field(default_factory=lambda: dict(WITHOUT))


def run(config: Config) -> dict[str, object]:
    """Replay the log, learn from the samples, print a table, and return the figures."""
    events = _events(config)
    moments = events[Column.TIMESTAMP].unique().sort()
    cut = int(moments[int(config.prepared_share * len(moments))])
    stored, later = (events.filter(of) for of in (_time() < cut, _time() >= cut))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        stored.write_parquet(folder / "log.parquet")
        given = ["data=log", f"path={folder}/log.parquet", f"out={folder}/prepared"]
        prepare(configure_preparation(given))
        asked = _replayed(config, folder, later)
        found = {
            name: distil(
                AdjusterConfig(str(folder / "ledger"), str(folder / f"{name}.json"), without=names)
            )
            for name, names in config.without.items()
        }
    _print(config, asked, found)
    told = {name: asdict(one) for name, one in found.items()}
    return {"config": asdict(config), "events": len(events), "requests": asked, "adjusters": told}


def _time() -> pl.Expr:
    return pl.col(Column.TIMESTAMP)


def _events(config: Config) -> pl.DataFrame:
    """An impression for each item of a logged list, and a click where it was clicked."""
    of = configure_preparation([f"data={config.data}", "out=unused"])
    source = open_source(of.source, find_log(of.source, of.path, of.data_dir), of.options)
    columns = (Column.USER, Column.ITEM, Column.REQUEST_TIME, f"label_{CLICK}")
    rows = pl.concat(part.select(columns) for part in source.requests())
    rows = rows.rename({Column.REQUEST_TIME: Column.TIMESTAMP})
    clicked = rows.filter(pl.col(f"label_{CLICK}") == 1)
    kinds = ((rows, IMPRESSION), (clicked, CLICK))
    named = (one.with_columns(pl.lit(name).alias(Column.ACTION_TYPE)) for one, name in kinds)
    return pl.concat(named).drop(f"label_{CLICK}").sort(Column.TIMESTAMP, maintain_order=True)


def _replayed(config: Config, folder: Path, later: pl.DataFrame) -> int:
    """Tell what comes later, and ask; the number of requests that the ledger has."""
    stored = PreparedDataset.open(folder / "prepared").vocabulary("item").table
    known_ids = stored[RAW].cast(pl.String).implode()
    new = later.filter(~pl.col(Column.ITEM).cast(pl.String).is_in(known_ids))
    born = new.group_by(Column.ITEM).agg(_time().min().alias(FIRST_SEEN))
    live = LiveDataset.open(folder / "prepared", items=born)
    known = LiveKnowledge(live, None, KnowledgeConfig(config.alive_hours))
    funnel = build_funnel(_funnel(config), known, known.tasks)
    user = live.vocabulary("user").indices_of(later[Column.USER].to_list())
    columns = {
        "user": user,
        "item": live.vocabulary("item").indices_of(later[Column.ITEM].to_list()),
        "timestamp": later[Column.TIMESTAMP].to_numpy(),
        "action_type": _codes(live, later),
    }
    lists = pl.DataFrame({"user": user, "moment": columns["timestamp"]}).filter(pl.col("user") > 0)
    lists = lists.unique().sort("user", "moment").head(config.requests).sort("moment")
    ends = np.searchsorted(columns["timestamp"], lists["moment"].to_numpy())
    ledger = Ledger(folder / "ledger", Described.of(funnel), LedgerConfig(patient=True))
    told = 0
    with closing(ledger):
        asked = zip(*lists.to_dict(as_series=False).values(), ends.tolist(), strict=True)
        for number, (of_user, moment, end) in enumerate(track(asked, "Replaying", len(lists))):
            if end > told:
                live.live.append({name: of[told:end] for name, of in columns.items()})
                told = end
            own = (np.array([one]) for one in (number, of_user, moment))
            requests = known.ask(*own)
            ledger.note(requests, funnel.run(requests, 20))
    return len(lists)


def _codes(live: LiveDataset, events: pl.DataFrame) -> np.ndarray:
    names = live.manifest.action_types
    return (
        events[Column.ACTION_TYPE]
        .replace_strict(
            {name: names.index(name) for name in (IMPRESSION, CLICK)}, return_dtype=pl.Int64
        )
        .to_numpy()
    )


def _funnel(config: Config) -> FunnelConfig:
    return FunnelConfig(
        sources=SourcesConfig(trending=SourceConfig(quota=config.candidates)),
        cache=CacheConfig("stale", config.max_age_hours, sample_share=1.0),
        value=ValueConfig(f"p({CLICK})"),
        group=None,
    )


def _print(config: Config, asked: int, found: dict[str, Distilled]) -> None:
    names = list(found)
    gaps = zip(*(one.gaps for one in found.values()), strict=True)
    rows = [["gap", "samples", "stale", *names]]
    for of_gap in gaps:
        first, hours = of_gap[0], of_gap[0].hours
        told = f"up to {hours:g} hours" if hours else "all"
        errors = [f"{100 * one.adjusted:.2f}" for one in of_gap]
        rows.append([told, f"{first.samples:,}", f"{100 * first.stale:.2f}", *errors])
    samples = found[names[0]].samples
    title = f"{config.data}: {asked:,} requests, {samples:,} samples; errors in % of the mean score"
    output_console().print(text_table(title, rows))
