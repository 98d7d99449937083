"""A headless Chromium for tests of pages: every request and every message of the page is kept."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
needs_browser = pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("CI"),
    reason="no Chromium on this machine: apt-get install chromium",
)


@dataclass
class Opened:
    """A page, what it asked the network for, and what it wrote to the console."""

    page: Any
    requests: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)


@contextmanager
def opened(path: Path, width: int = 1366, scheme: str = "light") -> Iterator[Opened]:
    """Open a file, and wait until its script has run."""
    from playwright.sync_api import sync_playwright

    options: dict[str, Any] = {
        "executable_path": CHROMIUM,
        "headless": True,
        "args": FLAGS,
        "color_scheme": scheme,
    }
    with sync_playwright() as tools, tempfile.TemporaryDirectory() as profile:
        context = tools.chromium.launch_persistent_context(
            profile, viewport={"width": width, "height": 900}, **options
        )
        seen = Opened(context.new_page())
        seen.page.on("request", lambda request: seen.requests.append(request.url))
        seen.page.on("console", lambda message: seen.messages.append(message.text))
        seen.page.on("pageerror", lambda error: seen.messages.append(str(error)))
        seen.page.goto(path.as_uri())
        seen.page.wait_for_selector("html[data-ready]", timeout=60_000)
        yield seen
        context.close()
