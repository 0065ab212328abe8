"""A headless Chromium and a tab in it that tells what went wrong behind the page's back."""

import os
import re
import shutil
from collections.abc import Callable, Iterator

import pytest

from tests.services.page.served import Served, evaluated, served, write_store

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DEADLINE_MS = 30_000
WIDE, NARROW = {"width": 1200, "height": 900}, {"width": 360, "height": 740}


class Tab:
    """One page in a browser context of its own. Records console errors and every request."""

    def __init__(self, context, url: str):
        self.context, self.url = context, url
        context.set_default_timeout(DEADLINE_MS)
        self.page = context.new_page()
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.expected = "(?!)"  # a pattern of console errors that a test provokes
        self.page.on("console", lambda said: said.type in ("error", "warning") and self.errors.append(said.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        context.on("request", lambda request: self.requests.append(request.url))

    def go(self, address: str) -> None:
        """Show a view, and wait until it has a heading."""
        self.page.goto(f"{self.url}/{address}")
        self.page.locator("main h1").wait_for()

    def text(self, selector: str = "main") -> str:
        return self.page.locator(selector).first.inner_text()

    def see(self, text: str, selector: str = "main"):
        """Wait until `text` stands in `selector`."""
        found = self.page.locator(selector).filter(has_text=text).first
        found.wait_for()
        return found

    def check(self) -> None:
        """Raises unless the console is clean and every request went to the service."""
        assert [error for error in self.errors if not re.search(self.expected, error)] == []
        foreign = [url for url in self.requests if not url.startswith((f"{self.url}/", f"blob:{self.url}/"))]
        assert foreign == []


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory):
    store = tmp_path_factory.mktemp("store")
    write_store(store)
    with served(store) as running:
        yield running


@pytest.fixture(scope="module")
def evaluations(service: Served) -> dict[str, dict]:
    return evaluated(service)


@pytest.fixture(scope="package")
def browser():
    """One Chromium for all tests here."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield made
        made.close()


@pytest.fixture
def open_tab(browser) -> Iterator[Callable[..., Tab]]:
    """Opens tabs, each with storage of its own. They are checked and closed at the end."""
    tabs: list[Tab] = []

    def opened(url: str, token: str | None = None, **options) -> Tab:
        context = browser.new_context(**{"viewport": WIDE, "reduced_motion": "reduce", **options})
        if token is not None:
            context.add_init_script(f"sessionStorage.setItem('viter.token', '{token}')")
        tabs.append(Tab(context, url))
        return tabs[-1]

    yield opened
    for tab in tabs:
        tab.context.close()
    for tab in tabs:
        tab.check()
