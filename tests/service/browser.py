"""A page in a Chromium without a window."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from tests.service.small_service import Running

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="no chromium with its chromedriver"
)
#: Items that the page asks for.
K = 12
#: Where the controls of one list are.
LOOK = "#look "


def started() -> Chrome:
    """A browser that notes what it asks of whom."""
    options = ChromeOptions()
    assert CHROMIUM is not None
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = Chrome(options, Service(DRIVER))
    driver.set_window_size(1280, 1000)
    return driver


class Page:
    """The page, opened for a user.

    Args:
        browser: that shows it.
        service: it is of.
        asked: what its address says.
    """

    def __init__(self, browser: Chrome, service: Running, **asked: Any) -> None:
        self.browser, self.service = browser, service
        browser.get("about:blank")
        given = "&".join(f"{name}={value}" for name, value in {"k": K, **asked}.items())
        browser.get(f"{service.client.base_url}/#{given}")

    def find(self, selector: str) -> WebElement:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        return [one.text for one in self.all(selector)]

    def items(self, place: str = "#list") -> list[str]:
        found = self.all(f"{place} .list > li")
        return [str(one.get_attribute("data-item")) for one in found]

    def until(self, holds: Callable[[], Any]) -> Any:
        """Wait until something holds; returns it."""
        waiting = WebDriverWait(self.browser, 10, 0.02, [StaleElementReferenceException])
        return waiting.until(lambda _: holds())

    def set(self, label: str, value: object, within: str = LOOK) -> None:
        """Type a number."""
        field = self.find(f'{within}input[type=number][aria-label="{label}, as a number"]')
        field.clear()
        field.send_keys(str(value))

    def run(self, script: str, *arguments: Any) -> Any:
        """What the body of an asynchronous function, which has them as `given`, returns."""
        given = "const [...given] = arguments; const done = given.pop();"
        body = f"{given} (async () => {{{script}}})().then(done)"
        return self.browser.execute_async_script(body, *arguments)
