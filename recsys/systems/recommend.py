"""Recommending by a run folder, or by an artifact and an index."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from recsys.data.contract.moments import to_text
from recsys.data.contract.schema import Column
from recsys.reports.recommendations import RecommendationPage, check_users, write_recommendations
from recsys.serving.recommend import Recommender
from recsys.serving.recommend_users import (
    RecommendConfig,
    RecommendReport,
    Request,
    answer,
    check_out,
    opened,
    read_request,
)
from recsys.systems.choice import system_of_run
from recsys.systems.runs import load_run

#: Events of each user that a page shows.
_NEWEST_SHOWN = 12


def recommend(config: RecommendConfig) -> tuple[RecommendReport, pl.DataFrame]:
    """Recommend items; the rows come back where they are not written as a table.

    Raises:
        RecsysError: run, artifact, index, data set or users cannot be used together.
    """
    check_out(config)
    recommender, request = _opened(config)
    if config.is_page:
        check_users(len(request.users))
    report, rows = answer(config, request, recommender)
    if config.is_page:
        _write_page(config, recommender, request, rows)
    return report, rows


def _opened(config: RecommendConfig) -> tuple[Recommender, Request]:
    if config.run_dir is None:
        recommender = opened(config)
        return recommender, read_request(config, recommender.dataset)
    run = load_run(config.run_dir, config.checkpoint, config.dataset)
    request = read_request(config, run.dataset)
    system = system_of_run(config.run_dir)
    system.check_request(run, request.only is not None, config.task)
    return system.recommender(run, request.rules.as_of, config.task), request


def _write_page(
    config: RecommendConfig, recommender: Recommender, request: Request, rows: pl.DataFrame
) -> None:
    moment = request.rules.as_of
    histories = recommender.histories(request.users, moment, _NEWEST_SHOWN, request.events)
    facts = recommender.facts
    page = RecommendationPage(
        subtitle=(
            f"{config.run_dir or config.artifact or config.index} · "
            f"{recommender.dataset.manifest.name} · as of "
            f"{to_text(moment)}"
        ),
        users=request.users.cast(pl.String).to_list(),
        histories=histories.with_columns(facts.images(histories[Column.ITEM])),
        recommendations=rows.with_columns(facts.images(rows[Column.ITEM])),
        has_times=recommender.dataset.manifest.has_times,
    )
    assert config.out is not None
    write_recommendations(page, Path(config.out))
