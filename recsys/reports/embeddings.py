"""Tables and page of `recsys embeddings compare`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from recsys.core.console import UNDEFINED
from recsys.data.contract.moments import to_text
from recsys.embeddings.comparison import ALIKE, QUANTILES, Comparison, Group, Version
from recsys.reports.figures import by_history, histogram
from recsys.reports.page import Section, write_own_page

MADE_BY = "recsys embeddings compare"


def tables(found: Comparison) -> dict[str, list[list[str]]]:
    """By title, headings and rows, for the terminal and the page."""
    return {
        "Publications": _publications(found),
        "Cosine of a user's two embeddings, and neighbours": _groups(found),
        "Quantiles over users": _quantiles(found),
    }


def sentences(found: Comparison) -> list[str]:
    """What the numbers come to."""
    everyone = found.everyone
    said = [
        f"Users of both: {found.in_both:,}; only in A: {found.only_in_a:,}; only in B: "
        f"{found.only_in_b:,}; left out because an embedding is all zeros: "
        f"{found.without_direction:,}.",
        f"{_percent(everyone.alike)} of the users have a cosine above {ALIKE:g}; two different "
        f"users have {_number(found.a.cosine_of_others)} in A and "
        f"{_number(found.b.cosine_of_others)} in B on average.",
    ]
    if found.sampled > found.neighbours + 1:
        said.append(
            f"The {found.neighbours} nearest of {found.sampled:,} sampled users: Jaccard index "
            f"{_number(everyone.overlap)} on average, {_number(found.by_chance)} by chance."
        )
    else:
        said.append(
            f"Users of both are too few ({found.sampled:,}) to compare their {found.neighbours} "
            "nearest."
        )
    if not math.isnan(found.aligned_cosine):
        said.append(
            "After the rotation that brings A nearest to B (orthogonal Procrustes, fitted on other "
            f"users): mean cosine {_number(found.aligned_cosine)} instead of "
            f"{_number(found.unaligned_cosine)}."
        )
    if found.same_tower is False:
        said.append("The two were made by different towers (trained anew, or trained on).")
    return said


def as_json(found: Comparison) -> dict[str, object]:
    """The whole comparison but the cosines one by one; what is not defined is null."""
    plain = {name: _plain(value) for name, value in vars(found).items() if name != "cosines"}
    return plain | {"quantiles_at": list(QUANTILES), "alike_above": ALIKE}


def write_page(found: Comparison, path: Path) -> None:
    """Write the page, which needs nothing beside itself."""
    everyone = found.everyone
    tiles = [
        {"name": "mean cosine", "value": _number(everyone.cosine), "accent": True},
        {"name": f"users above {ALIKE:g}", "value": _percent(everyone.alike), "accent": False},
        {"name": "neighbours in common", "value": _number(everyone.overlap), "accent": False},
        {"name": "users of both", "value": f"{found.in_both:,}", "accent": False},
    ]
    shown = tables(found)
    titles = list(shown)
    sections = [
        Section(titles[1], rows=shown[titles[1]], note="Jaccard index of the nearest users."),
        *_figures(found),
        Section(titles[2], rows=shown[titles[2]]),
        Section(
            titles[0],
            rows=shown[titles[0]],
            note="Effective rank: exp of the entropy of the singular values; where it is small, or "
            "one component has most of the variance, or different users are alike, the embeddings "
            "have collapsed.",
        ),
    ]
    write_own_page(
        path,
        MADE_BY,
        title="Two versions of user embeddings",
        subtitle=f"A: {found.a.store} · B: {found.b.store}",
        headline=sentences(found),
        tiles=tiles,
        sections=sections,
    )


def _figures(found: Comparison) -> list[Section]:
    figures = []
    if len(found.cosines):
        drawn = histogram(found.cosines, "cosine of a user's two embeddings", ALIKE)
        figures.append(Section("Distribution of the cosine", figure=drawn))
    groups = [group for group in found.groups if group.users]
    if groups:
        lines = {
            "mean cosine": [group.cosine for group in groups],
            "cosine, lowest 5 %": [group.low_cosine for group in groups],
            "neighbours in common": [group.overlap for group in groups],
        }
        labels = [group.name.replace(" events", "\nevents") for group in groups]
        drawn = by_history(labels, lines, "users", "")
        figures.append(Section("By activity", figure=drawn))
    return figures


def _publications(found: Comparison) -> list[list[str]]:
    heading = ["", "store", "version", "as of", "users", "vectors", "norm", "effective rank"]
    rows = [[*heading, "first component", "cosine of others"]]
    for name, one in (("A", found.a), ("B", found.b)):
        place = [name, one.store, str(one.version), to_text(one.timestamp), f"{one.users:,}"]
        rows.append([*place, f"{found.vectors} x {found.width}", *_shape(one)])
    return rows


def _shape(one: Version) -> list[str]:
    rank = UNDEFINED if math.isnan(one.effective_rank) else f"{one.effective_rank:,.1f}"
    return [
        _number(one.norm),
        rank,
        _percent(one.first_component),
        _number(one.cosine_of_others),
    ]


def _groups(found: Comparison) -> list[list[str]]:
    heading = ["users", "number", "mean cosine", "lowest 5 %", f"above {ALIKE:g}"]
    rows = [[*heading, "neighbours in common", "of sampled"]]
    for group in (found.everyone, *found.groups):
        rows.append(_row(group))
    return rows


def _row(group: Group) -> list[str]:
    return [
        group.name,
        f"{group.users:,}",
        _number(group.cosine),
        _number(group.low_cosine),
        _percent(group.alike),
        _number(group.overlap),
        f"{group.sampled:,}",
    ]


def _quantiles(found: Comparison) -> list[list[str]]:
    heading = ["", *(f"{100 * one:g} %" for one in QUANTILES)]
    return [
        heading,
        ["cosine", *map(_number, found.quantiles)],
        ["norm in B / norm in A", *map(_number, found.norm_ratios)],
    ]


def _number(value: float) -> str:
    return UNDEFINED if math.isnan(value) else f"{value:z.4f}"


def _percent(value: float) -> str:
    return UNDEFINED if math.isnan(value) else f"{100 * value:.1f} %"


def _plain(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (Version, Group)):
        return {name: _plain(one) for name, one in vars(value).items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(one) for one in value]
    return value
