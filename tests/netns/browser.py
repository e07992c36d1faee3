"""Headless Chromium, Debian's, that looks at the status page of a gateway in the lab."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from nat_table.endpoint import Endpoint
from tests.lab.agents import wait_until
from tests.lab.closable import Closable
from tests.lab.forward import Forward
from tests.lab.namespace import Namespace

LISTEN = "127.0.0.1:9570"
PAGE = Endpoint("127.0.0.1", 9570)


class Browser(Closable):
    """A browser at the page; `complaints` are what its console has said."""

    def __init__(self, namespace: Namespace, *, size: tuple[int, int] = (1280, 800)) -> None:
        """Opens the page in the namespace; skips where there is no Chromium."""
        chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
        if chromium is None or driver is None:
            pytest.skip("needs Debian's chromium and chromium-driver")
        self._forward = Forward(namespace, PAGE)
        self.origin = f"http://127.0.0.1:{self._forward.port}"
        self._profile = tempfile.TemporaryDirectory(prefix="sipnat-chromium-")
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        for argument in (
            *("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"),
            *("no-first-run", "disable-background-networking", "disable-component-update"),
            *(f"user-data-dir={self._profile.name}", "window-size={},{}".format(*size)),
        ):
            options.add_argument(f"--{argument}")
        try:
            self._driver = webdriver.Chrome(options, webdriver.ChromeService(driver))
        except BaseException:
            self._forward.close()
            self._profile.cleanup()
            raise
        self._driver.set_page_load_timeout(20)

    def close(self) -> None:
        """Ends the browser."""
        self._driver.quit()
        self._forward.close()
        self._profile.cleanup()

    def open(self, path: str) -> None:
        """Goes to a path of the page."""
        self._driver.get(self.origin + path)

    def use_scheme(self, scheme: str) -> None:
        """Prefers "dark" or "light"."""
        self._command(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )

    def narrow(self, width: int, height: int) -> None:
        """Looks at the page as on a screen of this size."""
        self._command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=True,
        )

    def text(self, selector: str = "body") -> str:
        """Returns what a reader sees, "" where there is no such element."""
        text: str = self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")
        return text

    def click(self, selector: str) -> None:
        """Presses a button."""
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def find(self, selector: str) -> WebElement:
        """Returns an element."""
        return self._driver.find_element(By.CSS_SELECTOR, selector)

    def count(self, selector: str) -> int:
        """Returns how many there are."""
        return len(self._driver.find_elements(By.CSS_SELECTOR, selector))

    def run(self, script: str) -> Any:
        """Returns what a script returns."""
        return self._driver.execute_script(f"return {script}")

    def wait(self, condition: Callable[[], bool]) -> None:
        """Waits until the page shows something; fails with what it shows."""
        assert wait_until(condition, 15.0), self.text()

    def complaints(self) -> list[str]:
        """Returns what the console has said since the last call."""
        entries: list[dict[str, str]] = self._driver.execute("getLog", {"type": "browser"})["value"]
        return [entry["message"] for entry in entries]

    def screenshot(self, path: str) -> None:
        """Writes a PNG."""
        self._driver.save_screenshot(path)

    def _command(self, name: str, **parameters: object) -> None:
        self._driver.execute_cdp_cmd(name, dict(parameters))
