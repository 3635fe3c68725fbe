"""The viewer as its reader feels it: how long a browser takes until a page's first content is on the screen.

    python benchmarks/viewer.py --out benchmarks/results/NAME

A real server (`cudaforge serve --workers 0`, a process of its own, over loopback) has a home with 500 runs, one of
which has 100 rounds; all are made of runs that were really carried out (tests/viewer/data). Debian's Chromium,
headless, opens each page again and again, each time in a new context, whose cache is empty. First contentful paint is
the browser's own `paint` entry, from the start of the navigation; drawn is when every chart in view is drawn.
Everything shares this machine's cores. `--quick` is a smoke test.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import sqlite3
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import harness  # finds our packages beside this folder

sys.path.insert(0, str(harness.ROOT / "tests"))

from playwright.sync_api import Browser, sync_playwright
from support.recorded_home import GPU, PASSED, many_rounds, many_runs, runs_by_task, unpack
from support.service import service

from cudaforge.store.sqlite import SqliteStore
from cudaforge_profiling.devices import cpu_device

GOAL_MS = 1000.0
"""First contentful paint of a run with 100 rounds."""
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
LONG = "r000longrun"
DISTRIBUTIONS = ("cudaforge", "fastapi", "starlette", "uvicorn", "jinja2", "pydantic", "sqlalchemy", "playwright")
FULL = {"runs": 500, "rounds": 100, "loads": 15}
QUICK = {"runs": 40, "rounds": 20, "loads": 2}
# Polled in the page by hand: Playwright's wait_for_function is an eval(), which the pages' policy forbids.
DRAWN = """() => new Promise(resolve => {
  const islands = 'cf-curve, cf-timeline, cf-diff, cf-stalls, cf-light, cf-roofline, cf-strip';
  const away = each => each.getBoundingClientRect().top > innerHeight;
  const look = () =>
    [...document.querySelectorAll(islands)].every(each => 'drawn' in each.dataset || away(each))
      ? resolve() : setTimeout(look, 5);
  look();
})"""
PAINTED = """() => new Promise(resolve => new PerformanceObserver((list) => {
  const entry = list.getEntriesByName('first-contentful-paint')[0];
  if (entry) resolve(entry.startTime);
}).observe({type: 'paint', buffered: true}))"""
SEEN = """() => {
  const page = performance.getEntriesByType('navigation')[0];
  const all = [page, ...performance.getEntriesByType('resource')];
  return {first_byte_ms: page.responseStart, loaded_ms: page.loadEventEnd, drawn_ms: performance.now(),
    requests: all.length, kib: all.reduce((sum, entry) => sum + entry.transferSize, 0) / 1024,
    page_kib: page.decodedBodySize / 1024};
}"""


def load(browser: Browser, url: str) -> dict[str, float]:
    """One load with a cold cache, milliseconds since the navigation began."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    answer = page.goto(url)
    if answer is None or not answer.ok:
        raise RuntimeError(f"{url}: {answer.status if answer else 'no answer'}")
    painted = page.evaluate(PAINTED)
    page.evaluate(DRAWN)
    seen: dict[str, float] = page.evaluate(SEEN)
    context.close()
    return {"painted_ms": painted, **seen}


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All pages."""
    home = unpack(folder)
    store = SqliteStore(home)
    runs = runs_by_task(store)
    many_runs(store, options.runs - 1)
    many_rounds(store, runs[PASSED], LONG, options.rounds)
    store.close()
    pages = {
        f"runs, {options.runs} of them": "/",
        "runs, a search among them": "/?text=softmax",
        f"run of {options.rounds} rounds": f"/runs/{LONG}",
        "run of 7 rounds": f"/runs/{runs[GPU]}",
        f"round of {options.rounds}, diff": f"/runs/{LONG}/rounds/{options.rounds - 1}?tab=diff",
        "round on a GPU, profile": f"/runs/{runs[GPU]}/rounds/5?tab=profile",
    }
    versions = {name: importlib.metadata.version(name) for name in DISTRIBUTIONS}
    found: dict[str, Any] = {"command": harness.command(), "pages": []}
    before = os.getloadavg()[0]
    with service(home, "--workers", "0", "--evaluator", "local:cpu") as running, sync_playwright() as playwright:
        root = running.url.removesuffix("/api/v1")
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        versions["chromium"] = browser.version
        load(browser, root)  # the first page of a browser and of a server is slower than any that follows: not counted
        for name, address in pages.items():
            loads = [load(browser, root + address) for _ in range(options.loads)]
            medians = {key: statistics.median(each[key] for each in loads) for key in loads[0]}
            found["pages"].append({"page": name, "address": address, **medians, "loads": loads})
        browser.close()
    found["machine"] = {
        "device": {"name": cpu_device().name},
        "versions": {**versions, "python": platform.python_version(), "sqlite": sqlite3.sqlite_version},
        "host": platform.platform(),
        "cores": os.cpu_count(),
        "load_before": before,
        "load": max(os.getloadavg()[0], before),
    }
    found["settings"] = {"runs": options.runs, "rounds": options.rounds, "loads": options.loads}
    return found


def write(found: dict[str, Any], folder: Path) -> str:
    """Writes viewer.json and viewer.md; returns the latter."""
    rows = []
    for page in found["pages"]:
        paints = [each["painted_ms"] for each in page["loads"]]
        times = [page["first_byte_ms"], page["painted_ms"], max(paints), page["drawn_ms"]]
        rows.append((page["page"], *times, page["page_kib"], page["kib"], int(page["requests"])))
    long = found["pages"][2]["painted_ms"]
    head = ("page", "first byte, ms", "first contentful paint, ms", "slowest paint, ms", "all in view drawn, ms")
    parts = [
        harness.described(found),
        f"Medians of {found['settings']['loads']} loads of each page, each with an empty cache, from the start of the "
        f"navigation. First contentful paint of a run with {found['settings']['rounds']} rounds: {long:.0f} ms, its "
        f"goal {GOAL_MS:g} ms ({'met' if long < GOAL_MS else 'missed'}).",
        harness.table((*head, "page, KiB", "all transferred, KiB", "requests"), rows),
    ]
    text = "\n\n".join(parts) + "\n"
    (folder / "viewer.json").write_text(json.dumps(found, indent=1) + "\n")
    (folder / "viewer.md").write_text(text)
    return text


def main() -> None:
    """Measures and writes the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="few of everything: a smoke test")
    options = parser.parse_args()
    vars(options).update(QUICK if options.quick else FULL)
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="viewer-") as folder:
        found = measure(options, Path(folder))
    print("\n" + write(found, options.out))


if __name__ == "__main__":
    main()
