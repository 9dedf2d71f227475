"""A browser for tests of pages: Playwright on the machine's own Chromium, without a network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def chromium() -> Iterator[object]:
    """A running browser; the test is skipped, with the reason, where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on the PATH")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """A page opened from a file, offline; what goes wrong there is gathered and raised at the end."""

    def __init__(self, browser, path: Path, hash_part: str = "", **context) -> None:
        self.context = browser.new_context(offline=True, **context)
        self.page = self.context.new_page()
        self.wrong: list[str] = []
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on(
            "console", lambda message: message.type == "error" and self.wrong.append(f"console: {message.text}")
        )
        self.page.on("request", lambda request: self._seen(request.url))
        self.page.goto(path.resolve().as_uri() + hash_part)

    def _seen(self, url: str) -> None:
        if not url.startswith(("file:", "blob:", "data:")):
            self.wrong.append(f"request: {url}")

    def __enter__(self):
        return self.page

    def __exit__(self, kind, value, traceback) -> None:
        self.context.close()
        if kind is None:
            assert self.wrong == []
