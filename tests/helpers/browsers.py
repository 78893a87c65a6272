"""A real browser, and the page of ``ddpm app`` in one of its tabs."""

from __future__ import annotations

import io
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from PIL import Image


def until(found: Callable[[], Any], seconds: float = 100) -> Any:
    """Wait for something to be there."""
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.1)
    return value


def settled(count: Callable[[], int], seconds: float = 20) -> int:
    """Give a count as soon as it has stayed for a second."""
    seen, deadline = -1, time.monotonic() + seconds
    while (now := count()) != seen:
        assert time.monotonic() < deadline, f"it still goes on, at {now}"
        seen = now
        time.sleep(1)
    return seen


@contextmanager
def chromium() -> Iterator[Any]:
    """Start chromium without a window; skips where it, its driver or selenium is missing."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    driver = shutil.which("chromedriver")
    if driver is None or shutil.which("chromium") is None:
        pytest.skip("chromium and its driver are not installed")
    options = webdriver.ChromeOptions()
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1300,1000"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield browser
    finally:
        browser.quit()


def asked_addresses(browser: Any) -> list[str]:
    """List the addresses of all requests that the browser began since this was last called."""
    logged = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [
        message["params"]["request"]["url"]
        for message in logged
        if message["method"] == "Network.requestWillBeSent"
    ]


class Page:
    """A tab of the browser with the page in it."""

    def __init__(self, browser: Any, address: str) -> None:
        self.browser = browser
        browser.switch_to.new_window("tab")
        browser.get(address)
        self.handle = browser.current_window_handle
        until(lambda: self.find("#draw"))

    def find(self, selector: str) -> list[Any]:
        """List what a CSS selector means on the page."""
        self.browser.switch_to.window(self.handle)
        return self.browser.find_elements("css selector", selector)

    def click(self, selector: str) -> None:
        """Click on the first of them."""
        self.find(selector)[0].click()

    def open_tab(self, name: str) -> None:
        """Show one of the page's tabs."""
        next(tab for tab in self.find('button[role="tab"]') if tab.text == name).click()

    def said(self, field: str = "#draw-said") -> str:
        """Read a field of text."""
        return self.find(f"{field} textarea, {field} input")[0].get_attribute("value")

    def picture(self, field: str = "#draw-picture") -> str:
        """Give the address of the picture in a field; "" if it has none."""
        found = self.find(f"{field} img")
        return found[0].get_attribute("src") if found else ""

    def pixels(self, field: str) -> Image.Image:
        """Fetch the picture in a field, as the server has it."""
        with urlopen(self.picture(field)) as answer:
            return Image.open(io.BytesIO(answer.read()))

    def paint(self, field: str) -> None:
        """Paint a stroke from the middle of a field."""
        from selenium.webdriver import ActionChains

        stroke = ActionChains(self.browser).move_to_element(self.shown(f"{field} canvas"))
        stroke = stroke.click_and_hold().move_by_offset(60, 30).move_by_offset(-20, 20)
        stroke.release().perform()
        time.sleep(1)  # it is read back from the canvas then

    def told(self, words: str) -> bool:
        """Tell whether the page complains with such words."""
        return any(words in toast.text for toast in self.find(".toast-body"))

    def choose(self, label: str, text: str) -> None:
        """Choose from a list that drops down, by the end of what is written there."""

        def option() -> Any:
            """Open the list again, which an answer of the page may have closed."""
            if not self.find('ul[role="listbox"] li'):
                self.shown(f'input[aria-label="{label}"]').click()
            found = self.find('ul[role="listbox"] li')
            return next((one for one in found if one.text.strip().endswith(text)), None)

        until(option).click()

    def choose_model(self, name: str, *, has_classes: bool) -> None:
        """Choose a model, and wait until the page offers its classes, or none."""
        self.choose("Model", name)
        is_seen = (
            "return [...document.querySelectorAll('input[aria-label=Class]')]"
            ".some(one => one.offsetParent !== null)"
        )
        until(lambda: self.browser.execute_script(is_seen) == has_classes)

    def shown(self, selector: str) -> Any:
        """Give the first of what a selector means that is to be seen."""
        return until(
            lambda: next((one for one in self.find(selector) if one.is_displayed()), None)
        )

    def write(self, label: str, text: str) -> None:
        """Write into a field of numbers, by the beginning of its label."""
        self.fill(f'input[aria-label^="{label}"]', text)

    def fill(self, selector: str, text: str) -> None:
        """Write into the first field that is to be seen, in place of what is there."""
        from selenium.webdriver import Keys

        field = self.shown(selector)
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(text, Keys.TAB)

    def upload(self, field: str, picture: Path) -> None:
        """Give a picture to a field."""
        until(lambda: self.find(f'{field} input[type="file"]'))[0].send_keys(str(picture))
