from __future__ import annotations

import pytest

from recsys.data.infer.names import ItemRole, Role, is_exact, likeness, plain, words


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("user_id", "user_id"),
        ("userId", "user_id"),
        ("User ID", "user_id"),
        ("user_id:token", "user_id"),
        ("Größe (cm)", "grosse_cm"),
        ("ItemID", "item_id"),
        ("Unnamed: 0", "unnamed_0"),
        ("", ""),
    ],
)
def test_names_in_one_form(name: str, expected: str) -> None:
    assert plain(name) == expected


@pytest.mark.parametrize(
    ("role", "names"),
    [
        (Role.USER, "user_id userId visitorid Kundennummer id_usuario msno customer_id uid"),
        (Role.ITEM, "item_id movieId productID article_id aid parent_asin id_producto Artikel"),
        (Role.TIMESTAMP, "timestamp event_time t_dat unixReviewTime Zeitpunkt created_at ts fecha"),
        (Role.ACTION, "action_type event behavior eventType interaction Ereignis"),
        (Role.RATING, "rating stars overall rating:float"),
        (Role.DWELL_TIME, "seconds_listened listen_seconds watchSeconds play_time ms_played"),
        (ItemRole.TITLE, "title movie_title:token_seq productName headline Titel"),
        (ItemRole.TOPIC, "category genre product_category Kategorie"),
    ],
)
def test_known_names_are_exact(role: str, names: str) -> None:
    assert all(is_exact(likeness(name, role)) for name in names.split())


def test_a_word_of_the_role_is_less_than_its_name() -> None:
    named, part, none = (likeness(name, Role.USER) for name in ("user", "shop_user_key", "price"))
    assert named > part > none == 0
    assert likeness("our_user_id", Role.USER) > part
    assert likeness("user_id", Role.USER) > likeness("session_id", Role.USER)


def test_words_of_a_name() -> None:
    assert words("releaseYear:token") == {"release", "year"}
