"""What the names of actions in a log mean, by the words of the field and by how they come."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from recsys.data.contract.schema import ACTION_TYPES, IMPRESSION
from recsys.data.infer.names import listed, plain

POSITIVE, NEGATIVE, IGNORE = "positive", "negative", "ignore"

#: Meaning: names that have it; compared as those of columns are.
_NAMES: dict[str, tuple[str, ...]] = {
    IMPRESSION: listed(
        "impression impressions imp imps view views viewed view_item item_view product_view "
        "detail_view detail page_view pageview pv show shows shown display displayed expose "
        "exposed exposure exposures served serve delivered delivery seen see browse browsed visit "
        "visited visit_item recommended present presented anzeige angezeigt ansicht gesehen "
        "vue vues vu vista visto visualizacion visualizzazione bekeken"
    ),
    "click": listed(
        "click clicks clicked clk tap tapped open opened select select_item klick geklickt clic "
        "clique clicado"
    ),
    "liked": listed(
        "like likes liked favorite favourite favorited fav heart love loved upvote thumbs_up "
        "thumbsup gefallt_mir gefallen j_aime me_gusta"
    ),
    "comment": listed("comment comments commented reply replied kommentar commentaire"),
    "save": listed("save saved saves"),
    "reshare": listed("share shares shared reshare repost retweet forward teilen partage"),
    "external_share": listed("external_share share_external"),
    "follow": listed("follow follows followed follow_author subscribe subscribed"),
    "profile_visit": listed("profile_visit profile visit_profile profile_enter"),
    "hide": listed("hide hidden hides"),
    "long_view": listed("long_view longview long_watch"),
    "video_complete": listed("video_complete complete completed finish finished"),
    "skip": listed("skip skipped skips swipe_away next"),
    POSITIVE: listed(
        "cart carts add_to_cart addtocart add_cart cart_add basket add_to_basket purchase "
        "purchased buy bought order ordered transaction checkout conversion convert booking book "
        "booked rent rented reserve wishlist add_to_wishlist wish bookmark bookmarked collect "
        "add_to_list add_to_favorites download downloaded install installed apply applied play "
        "played listen listened stream streamed watch watched read reads rate rated rating review "
        "reviewed start started lead signup enroll enrolled borrow borrowed warenkorb kauf "
        "gekauft bestellung gemerkt panier achat acheter carrito compra compras comprar "
        "acquisto carrello koop"
    ),
    NEGATIVE: listed(
        "dislike disliked dislikes unlike not_interested notinterested block blocked report "
        "reported abuse spam complain complained complaint beschwerde thumbs_down "
        "thumbsdown downvote see_less less_of_this "
        "unfollow unsubscribe remove removed remove_from_cart removefromcart refund refunded "
        "return returned cancel canceled cancelled cancellation chargeback storno storniert "
        "retoure hate"
    ),
    IGNORE: listed(
        "heartbeat ping keepalive login logout session_start session_end start_session "
        "end_session page_load scroll search query error"
    ),
}
_SQUEEZED = {name.replace("_", ""): meaning for meaning, names in _NAMES.items() for name in names}

#: What a column that says whether something happened begins with.
_ASKS = re.compile("^(is|has|was|did|if)_")

#: Of pairs with several actions, the share that begins with an action that shows the item.
_PRECEDES = 0.6


@dataclass(frozen=True)
class Meaning:
    """What an action's name is taken for.

    Attributes:
        name: in the log.
        rows: that have it.
        meaning: a known action type, ``positive``, ``negative`` or ``ignore``.
        why: in words.
    """

    name: str
    rows: int
    meaning: str
    why: str


def is_known_action(name: str) -> bool:
    """Whether a name is one that actions have."""
    return _of_name(name) is not None


def is_done(name: str) -> bool:
    """Whether a name is that of something users do; an item is shown to them."""
    return _of_name(name) not in (None, IMPRESSION, IGNORE)


def meanings_of(counts: Mapping[str, int], first: str | None) -> list[Meaning]:
    """What the names of a log's actions mean, the commonest first.

    Args:
        counts: rows by name.
        first: the name that users' actions on an item begin with, where one is (:func:`first_of`).
    """
    ordered = sorted(counts, key=lambda name: -counts[name])
    found = {name: _of_name(name) for name in ordered}
    shown = [name for name in ordered if found[name] == IMPRESSION]
    reasons = dict.fromkeys(ordered, "by its name")
    acted = [name for name in ordered if found[name] not in (IMPRESSION, IGNORE)]
    if shown and not acted:  # nothing else could be learned
        for name in shown:
            found[name] = "click"
            reasons[name] = "there is nothing else to learn from; impression: the item was shown"
    elif not shown and first is not None and first == ordered[0] and found[first] is None:
        found[first] = IMPRESSION
        reasons[first] = "a guess: the commonest, and others on an item come after it"
    for name in ordered:
        if found[name] is None:
            found[name] = POSITIVE
            reasons[name] = "a guess; or negative, impression, a known action, ignore"
    return [Meaning(name, counts[name], str(found[name]), reasons[name]) for name in ordered]


def first_of(sample: pl.DataFrame) -> str | None:
    """The action that most users' actions on an item begin with, where they take several.

    Args:
        sample: ``user``, ``item``, ``action`` and, in the order of time, their rows.
    """
    pairs = sample.drop_nulls().group_by("user", "item", maintain_order=True).agg("action")
    several = pairs.filter(pl.col("action").list.n_unique() > 1)
    if several.height < 10:
        return None
    begin = several["action"].list.first().value_counts(sort=True)
    name, count = begin.row(0)
    return str(name) if count >= _PRECEDES * several.height else None


def means_itself(one: Meaning) -> bool:
    """Whether a name needs no line in a description: it is the known action type's own."""
    return one.name == one.meaning and one.name in ACTION_TYPES


def _of_name(name: str) -> str | None:
    if name in ACTION_TYPES:
        return name
    asked = _ASKS.sub("", plain(name))
    squeezed = asked.replace("_", "")
    for one in (squeezed, squeezed.removesuffix("s")):
        if one in _SQUEEZED:
            return _SQUEEZED[one]
    return None
