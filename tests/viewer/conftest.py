"""The viewer in a real browser: Debian's Chromium, a real server, and a home of runs that were really carried out."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Response, expect, sync_playwright
from support.recorded_home import many_rounds, many_runs, runs_by_task, unpack

from cudaforge.store.sqlite import SqliteStore
from cudaforge_api.app import create_app
from cudaforge_api.serve import Server, bind
from cudaforge_api.settings import Settings

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
LONG = "r000longrun"
"""A run of 100 rounds, in the home of 500 runs."""

expect.set_options(timeout=10_000)


def chromium() -> str:
    """Debian's Chromium: Playwright's own browsers are downloaded, this one is a package."""
    found = shutil.which("chromium")
    if found is None and os.environ.get("CI") == "true":
        pytest.fail("chromium is not here: .ci/run installs it.")
    if found is None:
        pytest.skip("chromium is not here: apt-get install chromium")
    return found


# Not for the whole session: while Playwright is open, no other test of this process can run an event loop.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, without a window."""
    path = chromium()
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield opened
        opened.close()


# -- homes and servers ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Site:
    """A running server; `store` is the record as a worker has it, `runs` the recorded runs by their task."""

    url: str
    home: Path
    store: SqliteStore
    runs: dict[str, str]

    def run(self, task: str, *parts: object) -> str:
        """The address of a run, or of what is below it."""
        return "/".join([self.url, "runs", self.runs[task], *map(str, parts)])


class Serving:
    """The service in a thread of this process, until it is closed."""

    def __init__(self, home: Path, **settings: Any) -> None:
        values = {"home": home, "port": 0, "evaluators": ("local:cpu",), "poll_s": 0.02, **settings}
        app = create_app(Settings.model_validate(values))
        self._listening = bind("127.0.0.1", 0)
        config = uvicorn.Config(app, log_level="warning", lifespan="on", access_log=False, timeout_graceful_shutdown=2)
        self._feed = app.state.service.feed
        self._server = Server(config, self._feed.close)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._ready = threading.Event()
        self._thread.start()
        assert self._ready.wait(20), "the server did not start"
        self.store = SqliteStore(home)
        url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.site = Site(url, home, self.store, runs_by_task(self.store))

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.call_soon(self._ready.set)
        await self._server.serve(sockets=[self._listening])

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._server.handle_exit, signal.SIGTERM, None)
        self._thread.join(20)
        self._listening.close()
        self.store.close()


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recorded home; only to be copied."""
    return unpack(tmp_path_factory.mktemp("recorded"))


@pytest.fixture(scope="session")
def looked_at(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server over the recorded runs that tests only look at."""
    home = shutil.copytree(recorded, tmp_path_factory.mktemp("looked") / "home")
    serving = Serving(home)
    yield serving.site
    serving.close()


@pytest.fixture(scope="session")
def crowded(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server over 500 runs, one of which has 100 rounds; tests only look at it."""
    home = shutil.copytree(recorded, tmp_path_factory.mktemp("crowded") / "home")
    store = SqliteStore(home)
    source = runs_by_task(store)["row_softmax"]
    many_runs(store, 499)
    many_rounds(store, source, LONG, 100)
    store.close()
    serving = Serving(home)
    yield serving.site
    serving.close()


@pytest.fixture
def start(recorded: Path, tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Starts a server over a copy of the recorded runs, with these settings."""
    with ExitStack() as stack:

        def begin(**settings: Any) -> Site:
            serving = Serving(shutil.copytree(recorded, tmp_path / "served"), **settings)
            stack.callback(serving.close)
            return serving.site

        yield begin


@pytest.fixture
def own(start: Callable[..., Site]) -> Site:
    """A server over a copy of the recorded runs that the test may change."""
    return start()


def becomes_true(page: Page, condition: str, seconds: float = 10.0) -> None:
    """Waits for an expression of JavaScript. Playwright's own way is an eval(), which the pages' policy forbids."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, f"it did not become true: {condition}"
        page.wait_for_timeout(30)


ISLANDS = "cf-curve, cf-timeline, cf-diff, cf-errors, cf-stalls, cf-light, cf-roofline, cf-strip"


def all_drawn(page: Page) -> None:
    """Waits until every chart and diff that is in view or near it is drawn."""
    becomes_true(
        page,
        f"""[...document.querySelectorAll('{ISLANDS}')]
        .filter(e => e.checkVisibility() && e.getBoundingClientRect().top < innerHeight + 200)
        .every(e => 'drawn' in e.dataset)""",
    )
    assert page.locator("[data-drawn=failed]").count() == 0


# -- pages that are watched ----------------------------------------------------------------------------------------


@dataclass
class Watched:
    """What a browser was seen to do that it should not; each test ends with a look at it."""

    hosts: set[str] = field(default_factory=set)
    complaints: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)
    """Parts of complaints that the test brings about on purpose."""

    def console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"console: {message.text}")

    def answered(self, response: Response) -> None:
        if response.status >= 400:
            self.complaints.append(f"{response.status} {response.url}")

    def watch(self, context: BrowserContext) -> None:
        context.on("console", self.console)
        context.on("weberror", lambda error: self.complaints.append(f"script: {error.error}"))
        context.on("response", self.answered)
        context.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))

    def check(self) -> None:
        """No complaint, and no request to anywhere but a server of this test."""
        left = [text for text in self.complaints if not any(part in text for part in self.allowed)]
        assert not left, "\n".join(left)
        assert all(host in ("", "127.0.0.1") or host.startswith("127.0.0.1:") for host in self.hosts), self.hosts


@pytest.fixture
def watched() -> Watched:
    """What the browser of this test does wrong."""
    return Watched()


@pytest.fixture
def opened(browser: Browser, watched: Watched, start: object) -> Iterator[Callable[..., Page]]:
    """Opens an address in a browser with these options (Playwright's of a context); the browser is watched.

    It asks for `start` so that its pages are closed before their server is.
    """
    with ExitStack() as stack:

        def go(url: str, **options: Any) -> Page:
            context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
            stack.callback(context.close)
            watched.watch(context)
            page = context.new_page()
            page.goto(url)
            return page

        yield go
        watched.check()
