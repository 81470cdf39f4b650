"""A real Chromium without a screen, that notes whatever goes wrong on a page.

    with Browser() as browser, browser.visit(url) as visit:
        visit.page.get_by_label("Search").fill("192.0.2.1")

Leaving a visit fails when the page wrote an error to the console, raised one, or asked for anything from
elsewhere. `visit.faults()` is what axe-core finds on the page as it is.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from playwright.sync_api import ConsoleMessage, Page, sync_playwright

from parts.base import PartError

ROOT = Path(__file__).parents[2]
AXE = ROOT / ".work/page/node_modules/axe-core/axe.min.js"
SCREENSHOTS = ROOT / ".work/screenshots"
PATIENCE = 30_000.0  # ms

# It is asked for what the tests want and nothing else: no look for updates, no sandbox where root has none.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
DESKTOP = (1280, 900)
PHONE = (390, 844)


def binary() -> str:
    """Where Chromium is, "" when nowhere."""
    names = ("chromium-headless-shell", "chromium", "google-chrome")
    return next(filter(None, map(shutil.which, names)), "")


def missing() -> str:
    """Why there can be no tests with a browser; "" when there can."""
    if not binary():
        return "no Chromium (Debian: chromium-headless-shell)"
    return "" if AXE.exists() else "no axe-core (contrib/setup/page test)"


@dataclass
class Visit:
    """One page, in a browser profile of its own."""

    page: Page
    origin: str
    errors: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)

    def note(self, message: ConsoleMessage) -> None:
        """Keep what the page complains of; that its canvas is read often is the tests' doing."""
        if message.type in ("error", "warning") and not message.text.startswith("Canvas2D: "):
            self.errors.append(message.text)

    def shown(self, state: str = "") -> None:
        """Wait until the page has shown all it asked for; `state`: its time span and host."""
        selector = f'body[data-shown="{state}"]' if state else "body[data-shown]"
        self.page.wait_for_selector(selector, timeout=PATIENCE)

    def text(self, selector: str) -> str:
        """What an element says, its white space folded."""
        return " ".join(self.page.locator(selector).inner_text().split())

    def screenshot(self, name: str) -> Path:
        """The whole page as a picture that is kept."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        path = SCREENSHOTS / f"{name}.png"
        self.page.screenshot(path=path, full_page=True)
        return path

    def faults(self) -> list[str]:
        """What axe-core finds: rule, weight, and where."""
        self.page.evaluate(AXE.read_text())  # not as a script of the page's, which its policy forbids
        found: Any = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{one['id']} ({one['impact']}): {node['html'][:200]} {node['failureSummary']}"
            for one in found["violations"]
            for node in one["nodes"]
        ]


class Browser:
    """Chromium; `visit` opens pages."""

    def __enter__(self) -> Self:
        self._playwright = sync_playwright().start()
        try:
            self._browser = self._playwright.chromium.launch(executable_path=binary(), args=FLAGS)
        except BaseException:
            self._playwright.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._browser.close()
        self._playwright.stop()

    @contextmanager
    def visit(
        self,
        url: str,
        *,
        size: tuple[int, int] = DESKTOP,
        scheme: Literal["light", "dark"] = "light",
        expected: Sequence[str] = (),
        **context: Any,
    ) -> Iterator[Visit]:
        """Open a page; `expected` are beginnings of errors that are no fault here."""
        parts = urlsplit(url)
        profile: dict[str, Any] = {"timezone_id": "Europe/Berlin", "locale": "en-GB", **context}
        with self._browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, **profile
        ) as opened:
            page = opened.new_page()
            page.set_default_timeout(PATIENCE)
            visit = Visit(page, f"{parts.scheme}://{parts.netloc}")
            page.on("console", visit.note)
            page.on("pageerror", lambda error: visit.errors.append(str(error)))
            page.on("request", lambda one: visit.strangers.append(one.url))
            page.goto(url)
            yield visit
            errors = [one for one in visit.errors if not one.startswith(tuple(expected) or ("\0",))]
            strangers = [one for one in visit.strangers if not one.startswith((visit.origin + "/", "data:"))]
            if errors or strangers:
                raise PartError(f"errors: {errors}; asked elsewhere: {strangers}")
