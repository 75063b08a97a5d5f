"""The page of `recsys serve inspector=true`, in a browser without a window."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest
from selenium.webdriver import Chrome, Keys

from recsys.cli.main import invoke
from recsys.service import inspector
from recsys.service.app import make_app
from recsys.service.config import ServeConfig
from recsys.serving.funnel.value import parse_value
from tests.service.browser import LOOK, K, Page, needs_chromium, started
from tests.service.small_service import Running

#: A region that a browser would run, were it read as HTML.
HTML = "<img src=x onerror=\"document.title='run'\"><b>west"


@pytest.fixture(scope="module")
def service(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One worker, on a log with a region whose name is HTML."""
    folder = tmp_path_factory.mktemp("inspected")
    shutil.copytree(prepared.parent / "log", folder / "log")
    for name, column in (("items", "item_region"), ("users", "user_region")):
        file = folder / "log" / f"{name}.parquet"
        pl.read_parquet(file).with_columns(pl.col(column).replace("west", HTML)).write_parquet(file)
    asked = ["data=simulated", f"path={folder / 'log'}", f"out={folder / 'prepared'}"]
    assert invoke(["data", "prepare", *asked]) == 0
    state = folder / "state"
    running = Running(folder / "prepared", state, "inspector=true", "workers=1")
    yield running
    running.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    driver = started()
    yield driver
    driver.quit()


@pytest.fixture
def user(service: Running) -> int:
    """Somebody with a history."""
    found: int = service.client.get("/users").json()["users"][0]
    return found


@pytest.fixture
def page(browser: Chrome, service: Running, user: int) -> Page:
    """The page of a user, which shows a list."""
    found = Page(browser, service, user=user)
    found.until(found.items)
    return found


def recommended(service: Running, user: int | str, **changes: Any) -> dict[str, Any]:
    """What the page asks for."""
    moment = service.client.get("/funnel").json()["now"]
    return service.recommend(user, k=K, moment=moment, draws=1, explain=True, changes=changes)


def texts(items: list[Any]) -> list[str]:
    return [str(item) for item in items]


def by_value(service: Running, **weights: float) -> dict[str, Any]:
    """Changes: other weights of the value model that is served."""
    expression = service.client.get("/funnel").json()["value"]
    for term, weight in weights.items():
        served = {"save": "1.5 * p(save)", "see_less": "- 8.0 * p(see_less)"}[term]
        sign = "- " if weight < 0 else ""
        expression = expression.replace(served, f"{sign}{abs(weight)} * p({term})")
    return {"value.expression": expression}


@needs_chromium
def test_a_user_that_is_chosen_has_a_history_and_a_list(page: Page, service: Running) -> None:
    other = service.client.get("/users").json()["users"][1]
    field = page.find("#user")
    field.clear()
    field.send_keys(f"{other}\n")
    expected = recommended(service, other)
    page.until(lambda: page.items() == texts(expected["items"]))
    history = service.client.get(f"/users/{other}").json()["history"]
    assert page.texts("#history li strong")[0] == str(history[0]["item"])
    first = page.find("#list .list > li").text
    facts = expected["explanation"]["candidates"][0]["facts"]
    assert f"author {facts['author_id']}" in first and facts["item_region"] in first
    assert f"{expected['scores'][0]:.3g}" in first
    assert f"user={other}" in page.browser.current_url


@needs_chromium
def test_the_funnel_says_how_many_ended_where_and_which(page: Page, user: int) -> None:
    rows = recommended(page.service, user)["explanation"]["candidates"]
    assert page.find("#candidates [role=status]").text == f"{len(rows)} candidates"
    ended = [row for row in rows if row["ended"] == "first"]
    of_source = [row for row in rows if "trending" in row["sources"]]
    bars = {one.text.split("\n")[0]: one for one in page.all("#funnel button")}
    assert f"{len(ended)} ended: not among the best 100" in bars["first"].text
    assert bars["trending"].text.split("\n")[-1].startswith(f"{len(of_source)} items, ")
    status = "#candidates [role=status]"
    bars["first"].send_keys(Keys.ENTER)
    page.until(lambda: page.find(status).text == f"{len(ended)} candidates")
    bars["trending"].send_keys(Keys.ENTER)
    page.until(lambda: page.find(status).text == f"{len(of_source)} candidates")
    highest = sorted((row["liked"] for row in of_source if row["liked"] is not None), reverse=True)
    column = page.texts("#candidates th").index("liked")
    page.find("#candidates th[data-name=liked] button").send_keys(Keys.ENTER)
    shown = page.texts(f"#candidates tbody tr td:nth-child({column + 1})")
    assert shown[:3] == [f"{one:.3f}" for one in highest[:3]]
    assert page.find("#candidates th[data-name=liked]").get_attribute("aria-sort") == "descending"


@needs_chromium
def test_a_slider_changes_the_list_and_marks_what_moved(page: Page, user: int) -> None:
    served = texts(recommended(page.service, user)["items"])
    assert page.items() == served and not page.all("#list .move")
    slider = page.find(LOOK + 'input[type=range][aria-label="save"]')
    slider.send_keys(Keys.END)
    changed = recommended(page.service, user, **by_value(page.service, save=4.5))
    now = texts(changed["items"])
    assert now != served
    page.until(lambda: page.items() == now)
    marks = page.texts("#list .move")
    for place, (item, mark) in enumerate(zip(now, marks, strict=True)):
        up = served.index(item) - place if item in served else None
        assert mark == ("new" if up is None else f"▲ {up}" if up > 0 else f"▼ {-up}" if up else "=")
    left = [item for item in served if item not in now]
    assert f"{len(left)} left" in page.find("#list [role=status]").text
    assert all(f"{item} (was" in page.find("#list .gone").text for item in left)
    page.find("#settings .part:last-child > button").click()  # as it is served
    page.until(lambda: page.items() == served)
    assert not page.all("#list .move")


@needs_chromium
def test_a_source_that_is_left_out_finds_nothing(page: Page, user: int) -> None:
    page.find(LOOK + 'input[type=checkbox][aria-label="trending is asked"]').send_keys(" ")
    changed = recommended(page.service, user, **{"sources.trending": None})
    page.until(lambda: page.items() == texts(changed["items"]))
    assert "not asked" in page.find("#funnel").text
    page.find("#settings .part:last-child > details summary").click()
    page.find('textarea[aria-label^="Other"]').send_keys("rerank.apart = []\nlimit = 6")
    rules = {"sources.trending": None, "rerank.apart": [], "limit": 6}
    without = recommended(page.service, user, **rules)
    page.until(lambda: page.items() == texts(without["items"]))
    page.until(lambda: "beyond the best 6" in page.find("#funnel").text)


@needs_chromium
def test_two_settings_are_compared_side_by_side(page: Page, user: int) -> None:
    page.find("#views label:last-of-type").click()
    of_a, of_b = 'section[aria-label="A"]', 'section[aria-label="B"]'
    page.until(lambda: page.items(of_a) and page.items(of_b))
    said = page.find("#compare [role=status]")
    assert said.text == "From A to B: The same list."
    page.set("see less", -40, '#compare [aria-label="Settings of A"] ')
    page.set("save", 9, '#compare [aria-label="Settings of B"] ')
    first = texts(recommended(page.service, user, **by_value(page.service, see_less=-40))["items"])
    other = texts(recommended(page.service, user, **by_value(page.service, save=9))["items"])
    page.until(lambda: page.items(of_a) == first and page.items(of_b) == other)
    both = set(first) & set(other)
    moved = [item for item in both if first.index(item) != other.index(item)]
    assert 0 < len(both) < K and moved
    one = f"{len(both)} item{'s are' if len(both) > 1 else ' is'} in both"
    assert f"{one}, {len(moved)} of them at another place; {K - len(both)} came" in said.text
    assert page.texts(f"{of_b} .move").count("new") == K - len(both)
    assert page.texts(f"{of_a} .move").count("gone") == K - len(both)
    page.find("#views label").click()  # the other view is as it was
    assert page.items() == texts(recommended(page.service, user)["items"])


@needs_chromium
def test_texts_of_a_log_are_never_read_as_html(browser: Chrome, service: Running) -> None:
    users = service.client.get("/users").json()["users"]
    people = (service.client.get(f"/users/{one}").json() for one in users)
    west = next(one["user"] for one in people if one["group"] == HTML)
    page = Page(browser, service, user=west)
    page.until(page.items)
    assert HTML in page.find("#history p").text
    assert any(HTML in text for text in page.texts("#list .facts") + page.texts("td.facts"))
    typed = Page(browser, service, user="%3Cb%20id%3Downed%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E")
    typed.until(
        lambda: "no such user" in typed.find("#history").text or typed.texts("#trouble div")
    )
    assert not typed.all("img, b, script:not([src]), #owned")
    assert browser.title == "Inspector · recsys"


@needs_chromium
def test_what_goes_wrong_is_a_sentence(browser: Chrome, service: Running, user: int) -> None:
    nobody = Page(browser, service, user="nobody")
    nobody.until(nobody.items)
    assert "no such user" in nobody.find("#history").text
    assert nobody.items() == texts(recommended(service, "nobody")["items"])
    nobody.set("least integrity", 1)
    nobody.until(lambda: "at integrity" in nobody.find("#list").text)
    nobody.set("least integrity", 5)
    nobody.until(lambda: "min_integrity" in nobody.find("#list .trouble").text)
    many = Page(browser, service, user=user, k=100_000)
    many.until(lambda: "at most 1,000 items" in many.find("#list .trouble").text)
    assert not many.items() and many.texts("#history li")
    wrong = Page(browser, service, user=user)
    wrong.until(wrong.items)
    wrong.find(LOOK + "details summary").click()
    wrong.find(LOOK + "textarea").send_keys(" + p(likd)")
    wrong.until(lambda: "did you mean liked" in wrong.find("#list .trouble").text)
    wrong.find(LOOK + "textarea").send_keys(Keys.BACKSPACE * len(" + p(likd)"))
    wrong.until(lambda: not wrong.all("#list .trouble"))


@needs_chromium
def test_a_service_that_is_busy_is_asked_again(page: Page) -> None:
    """What it answers then is put in the way here: when it does is tested beside the service."""
    answer = "Response.json(given[0], {status: given[1]})"
    answering = f"window.real ??= fetch; window.fetch = async () => {answer};"
    page.run(answering, {"error": "so many ask that this one has to come again."}, 503)
    page.set("save", 3)
    page.until(lambda: "so many ask" in page.find("#list .trouble").text)
    page.run("window.fetch = window.real")
    page.find("#list .trouble button").click()
    page.until(lambda: not page.all("#list .trouble") and page.all("#list .move"))
    popular = {"items": [3, 1], "scores": [None, None], "fallback": "busy"}
    page.run(answering, popular, 200)
    page.set("save", 4)
    page.until(lambda: "popular" in page.find("#list .trouble").text)
    assert page.items() == ["3", "1"] and "popular" in page.find("#funnel").text
    page.run("window.fetch = async () => { throw new TypeError('no network') }")
    page.find("#question .main").click()
    page.until(lambda: "does not answer" in page.find("#trouble").text)


@needs_chromium
@pytest.mark.parametrize("view", ["look", "compare"])
def test_it_fits_a_narrow_screen_and_names_its_controls(page: Page, view: str) -> None:
    for node in page.all("button, input, select, textarea"):
        assert node.accessible_name or not node.is_displayed(), node.get_attribute("outerHTML")
    screen = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    try:
        page.find(f"#views input[value={view}]").send_keys(" ")
        page.until(lambda: page.items(f"#{view}"))
        width = page.run("return document.documentElement.scrollWidth")
        assert width <= 400
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@needs_chromium
@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("1.0 * p(liked) - 8 * p(see_less)", [("p(liked)", 1), ("p(see_less)", -8)]),
        ("-2*p(liked)+.5*watch_time", [("p(liked)", -2), ("watch_time", 0.5)]),
        ("0.3 * log1p(watch_time / 2)", [("log1p(watch_time / 2)", 0.3)]),
        ("p(liked) - 1e-2 * p( see_less )", [("p( see_less )", -0.01)]),
        ("max(0, -4 * p(liked)) + min(2 * p(see_less), 1)", [("p(liked)", -4), ("p(see_less)", 2)]),
        ("p(liked) + watch_time / 60 * p(see_less)", []),
        ("(1 + 2) * p(liked) - (3 * watch_time)", [("watch_time", 3)]),
        ("1 - - 3 * p(liked)", []),
    ],
)
def test_weights_are_found_and_replaced_in_the_text(
    page: Page, expression: str, found: list[tuple[str, float]]
) -> None:
    module = "const {terms, withWeights} = await import('/page/terms.js');"
    read = f"{module} return terms(given[0]).map((one) => [one.name, one.weight])"
    assert page.run(read, expression) == [list(pair) for pair in found]
    predictions = np.array([[0.3, 0.2, 40.0]])
    for weights in (
        [weight for _, weight in found],
        [-0.125 - place for place in range(len(found))],
    ):
        text = page.run(f"{module} return withWeights(given[0], given[1])", expression, weights)
        assert page.run(read, text) == [
            [name, of] for (name, _), of in zip(found, weights, strict=True)
        ]
        model = parse_value(text, ["liked", "see_less"], ["watch_time"])
        served = parse_value(expression, ["liked", "see_less"], ["watch_time"])
        if weights == [weight for _, weight in found]:
            assert model(predictions) == pytest.approx(served(predictions))


@needs_chromium
def test_nothing_is_asked_of_another_host(page: Page) -> None:
    messages = (
        json.loads(one["message"])["message"] for one in page.browser.get_log("performance")
    )
    sent = [one["params"] for one in messages if one["method"] == "Network.requestWillBeSent"]
    asked = {one["request"]["url"] for one in sent}
    own = str(page.service.client.base_url)
    assert f"{own}/page/inspector.js" in asked
    assert [url for url in asked if not url.startswith((own, "about:", "data:"))] == []


def got(*paths: str, shown: bool) -> list[httpx.Response]:
    """What a service without a worker answers."""
    transport = httpx.ASGITransport(make_app(ServeConfig(state="none", inspector=shown)))

    async def ask() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return [await client.get(path) for path in paths]

    return asyncio.run(ask())


def test_a_service_without_an_inspector_says_how_to_get_one() -> None:
    for answer in got("/", "/page/inspector.js", shown=False):
        assert answer.status_code == 404 and "inspector=true" in answer.json()["error"]


def test_the_page_loads_files_of_its_own_alone() -> None:
    (answer,) = got("/", shown=True)
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'; script-src 'self'" in answer.headers["content-security-policy"]
    for path in inspector.FOLDER.iterdir():
        text = path.read_text()
        assert got(f"/page/{path.name}", shown=True)[0].text == text
        elsewhere = text.replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert not any(one in elsewhere for one in ("http:", "https:", "innerHTML"))
    for none in got("/page/", "/page/none.js", "/page/..%2Fapp.py", "/page/app.py", shown=True):
        assert none.status_code == 404
