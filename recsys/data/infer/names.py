"""What columns of logs and tables are called: in known data sets, in code, in some languages.

Names are compared as words in lower case, so ``userId``, ``User ID`` and ``user_id:token`` (of
RecBole) are one.
"""

from __future__ import annotations

import re
import unicodedata
from enum import StrEnum

#: RecBole's types of columns, which stand behind the name.
RECBOLE_TYPES = ("token", "token_seq", "float", "float_seq")


def listed(text: str) -> tuple[str, ...]:
    """The words of a text."""
    return tuple(text.split())


class Role(StrEnum):
    """What a column of a log is taken for; most are named as the contract's column."""

    USER = "user_id"
    ITEM = "item_id"
    TIMESTAMP = "timestamp"
    ACTION = "action_type"
    RATING = "rating"
    DWELL_TIME = "dwell_time"
    VIDEO_DURATION = "video_duration"
    REQUEST_TIME = "request_time"
    AUTHOR = "author_id"
    TOPIC = "topic_id"
    MEDIA_TYPE = "media_type"
    SURFACE = "surface"


class ItemRole(StrEnum):
    """What a column of a table of items is taken for, beside its kind."""

    AUTHOR = "author"
    TOPIC = "topic"
    TITLE = "title"
    IMAGE = "image"


_AUTHORS = listed(
    "author_id author creator_id creator artist_id artist artist_name brand_id brand brand_name "
    "seller_id seller vendor_id vendor merchant_id merchant shop_id shop store_id publisher_id "
    "publisher channel_id channel owner_id uploader_id uploader provider manufacturer supplier "
    "maker label marke hersteller marca marque autor auteur autore kuenstler verlag"
)
_TOPICS = listed(
    "topic_id topic category_id category category_name category_code categoryid cat_id cat genre "
    "genre_id main_category item_category product_category product_type subcategory sub_category "
    "section department subject theme class product_group_name product_type_name kategorie rubrik "
    "categoria categorie tema genero thema"
)

#: Names of each role, the likelier first.
NAMES: dict[str, tuple[str, ...]] = {
    Role.USER: listed(
        "user_id user userid uid visitor_id visitorid visitor customer_id customerid customer "
        "client_id clientid client member_id memberid member account_id account profile_id "
        "person_id person viewer_id viewer reader_id reader listener_id reviewer_id reviewerid "
        "reviewer buyer_id buyer shopper_id shopper subscriber_id subscriber player_id patient_id "
        "student_id learner_id msno user_name username user_idx user_index user_no benutzer_id "
        "benutzer nutzer_id nutzer kunden_id kunde kundennummer kundennr usuario_id id_usuario "
        "usuario cliente_id id_cliente cliente utilisateur_id id_utilisateur utilisateur utente "
        "id_utente gebruiker klant device_id deviceid device cookie_id cookie anonymous_id "
        "session_id sessionid session user_session"
    ),
    Role.ITEM: listed(
        "item_id item itemid product_id productid product prod_id article_id articleid article "
        "news_id newsid news movie_id movieid movie film_id film video_id videoid video photo_id "
        "post_id postid post content_id contentid content song_id songid song track_id trackid "
        "track traid music_id book_id bookid book isbn parent_asin asin sku_id sku goods_id "
        "listing_id listing offer_id ad_id adid business_id venue_id poi_id poi location_id "
        "restaurant_id hotel_id game_id gameid game app_id appid app recipe_id course_id job_id "
        "document_id docid doc_id page_id click_article_id aid pid iid vid feed_id feedid note_id "
        "thing_id thing item_idx item_index show_id episode_id podcast_id playlist_id answer_id "
        "artikel_id artikel produkt_id produkt ware produit_id id_produit produit producto_id "
        "id_producto producto articulo prodotto_id id_prodotto prodotto pelicula livre buch_id "
        "buch artist_id url"
    ),
    Role.TIMESTAMP: listed(
        "timestamp event_timestamp event_time eventtime time ts datetime date_time time_stamp "
        "unix_time unixtime epoch timestamp_ms time_ms created_at created creation_time "
        "occurred_at click_timestamp click_time unix_review_time unixreviewtime review_time "
        "rated_at rating_time rating_timestamp visited_at watched_at played_at listened_at read_at "
        "purchased_at ordered_at started_at start_time impression_time moment when at t_dat "
        "event_date eventdate order_date purchase_date transaction_date review_date date day "
        "zeitpunkt zeitstempel zeit uhrzeit datum fecha_hora fecha hora horodatage heure data_ora "
        "data ora tijdstip tijd timeframe"
    ),
    Role.ACTION: listed(
        "action_type action event_type eventtype event behavior_type behavior behaviour_type "
        "behaviour behaviortype interaction_type interaction activity_type activity feedback_type "
        "feedback event_name engagement_type engagement operation verb signal type kind aktion "
        "ereignis accion evento azione evenement actie"
    ),
    Role.RATING: listed(
        "rating ratings stars star overall score rate review_score user_rating rating_value grade "
        "bewertung note puntuacion valoracion calificacion voto punteggio cijfer"
    ),
    Role.DWELL_TIME: listed(
        "dwell_time dwell dwell_seconds dwell_s dwell_ms dwell_time_ms watch_time watch_seconds "
        "watch_time_ms watched_seconds watch_duration seconds_watched read_time reading_time "
        "read_seconds seconds_read play_time playtime play_duration play_time_ms play_seconds "
        "played_seconds playing_time playback_time playback_seconds ms_played seconds_played "
        "time_spent seconds_spent view_time view_duration view_seconds seconds_viewed stay_time "
        "listen_time listening_time listen_seconds listened_seconds listen_duration "
        "seconds_listened ms_listened ms_watched duration_watched duration_listened "
        "duration_played verweildauer"
    ),
    Role.VIDEO_DURATION: listed(
        "video_duration duration video_length video_duration_ms duration_ms duration_s "
        "duration_seconds track_duration track_length length runtime song_length"
    ),
    Role.REQUEST_TIME: listed(
        "request_time request_timestamp requested_at impression_time served_at shown_at"
    ),
    Role.AUTHOR: _AUTHORS,
    Role.TOPIC: _TOPICS,
    Role.MEDIA_TYPE: listed("media_type content_type item_type media format"),
    Role.SURFACE: listed("surface tab page_type placement screen widget module feed feed_type"),
    ItemRole.AUTHOR: _AUTHORS,
    ItemRole.TOPIC: _TOPICS,
    ItemRole.TITLE: listed(
        "title item_title product_title product_name item_name movie_title movie_name name "
        "headline track_name song_name song_title book_title article_title video_title caption "
        "short_name display_name prod_name titel bezeichnung titulo nombre titre nom titolo nome "
        "naam"
    ),
    ItemRole.IMAGE: listed(
        "image image_url img img_url image_link picture picture_url photo photo_url poster "
        "poster_url thumbnail thumbnail_url cover cover_url bild foto imagen imurl images"
    ),
}

#: Words that make a longer name one of a role: ``shop_visitor_no``.
WORDS: dict[str, frozenset[str]] = {
    Role.USER: frozenset(
        listed(
            "user users uid visitor customer client member account viewer reader listener reviewer "
            "buyer shopper subscriber benutzer nutzer kunde kunden usuario cliente utilisateur "
            "utente"
        )
    ),
    Role.ITEM: frozenset(
        listed(
            "item items product article news movie film video post song track book sku goods "
            "listing artikel produkt produit producto prodotto"
        )
    ),
    Role.TIMESTAMP: frozenset(
        listed("timestamp time datetime date ts zeit datum fecha tijd horodatage created")
    ),
    Role.ACTION: frozenset(listed("action event behavior behaviour interaction aktion ereignis")),
    Role.RATING: frozenset(listed("rating stars bewertung")),
    Role.DWELL_TIME: frozenset(listed("dwell")),
    ItemRole.TITLE: frozenset(listed("title name headline titel titre titolo titulo")),
    ItemRole.IMAGE: frozenset(listed("image img picture poster thumbnail cover photo")),
}

#: Words of numbers that say how much, not which.
AMOUNTS = frozenset(
    listed(
        "price preis prix precio prezzo prijs cost amount count num number size age year length "
        "duration weight height width views score rating rank popularity likes stars quantity "
        "stock discount sales revenue minutes seconds pages words salary distance calories value "
        "total average mean avg ratio percent share"
    )
)
#: Words of numbers that say which.
LABELS = frozenset(listed("id code zip postal postcode type class group kind gender sex level"))

#: Names of columns that number the rows.
ROW_NUMBERS = frozenset(["", "unnamed_0", "index", "row", "row_id", "rowid", "c0", "id", "idx"])


def bare_name(name: str) -> str:
    """A name without RecBole's type.

    >>> bare_name("user_id:token")
    'user_id'
    """
    before, _, kind = name.rpartition(":")
    return before if kind in RECBOLE_TYPES else name


def plain(name: str) -> str:
    """A name in lower case, its words joined by ``_``.

    >>> plain("userId"), plain("Catégorie de produit"), plain("item_id:token")
    ('user_id', 'categorie_de_produit', 'item_id')
    """
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", bare_name(name))
    text = unicodedata.normalize("NFKD", text.replace("ß", "ss"))
    text = "".join(one for one in text if not unicodedata.combining(one))
    return re.sub(r"[\W_]+", "_", text.lower()).strip("_")


def words(name: str) -> frozenset[str]:
    """The words of a name."""
    return frozenset(plain(name).split("_"))


def likeness(name: str, role: str) -> int:
    """How much a name says that a column has a role; 0 where it says nothing.

    A name of the list is above one that has a word of the role in it.
    """
    listed = NAMES[role]
    if plain(name) in listed:
        return 1000 - listed.index(plain(name))
    squeezed = plain(name).replace("_", "")
    if squeezed in listed:
        return 1000 - listed.index(squeezed)
    shared = words(name) & WORDS.get(role, frozenset())
    return 300 + 50 * ("id" in words(name)) if shared else 0


def is_exact(score: int) -> bool:
    """Whether a likeness is that of a name that is listed."""
    return score > 500
