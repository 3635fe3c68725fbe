"""Photographs the viewer's three pages, light and dark, as PNGs: the pictures in the README and in docs/viewer.md.

    .venv/bin/python benchmarks/screenshots.py docs/images

The runs are those that the viewer's tests look at (tests/viewer/data). Needs Debian's chromium and pngquant.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import harness  # finds our packages beside this folder
from viewer import DRAWN

sys.path.insert(0, str(harness.ROOT / "tests"))

from playwright.sync_api import Page, sync_playwright
from support.recorded_home import GPU, runs_by_task, unpack
from support.service import service

from cudaforge.store.sqlite import SqliteStore

WIDTH, HEIGHT = 1280, 860
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars")


def drawn(page: Page) -> None:
    """Waits until everything in view is drawn."""
    page.evaluate(DRAWN)
    page.wait_for_timeout(300)


def main() -> None:
    """Serves the recorded runs and writes NAME-light.png and NAME-dark.png of each page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        home = unpack(Path(folder))
        store = SqliteStore(home)
        run = runs_by_task(store)[GPU]
        store.close()
        pages = {
            "runs": ("/", 420),
            "run": (f"/runs/{run}", HEIGHT),
            "round": (f"/runs/{run}/rounds/5?tab=diff", HEIGHT),
            "profile": (f"/runs/{run}/rounds/5?tab=profile", HEIGHT),
        }
        with service(home, "--workers", "0", "--evaluator", "local:cpu") as running, sync_playwright() as playwright:
            root = running.url.removesuffix("/api/v1")
            path = shutil.which("chromium")
            browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
            for scheme in ("light", "dark"):
                context = browser.new_context(
                    viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=1.5, color_scheme=scheme
                )
                page = context.new_page()
                for name, (address, height) in pages.items():
                    page.set_viewport_size({"width": WIDTH, "height": height})
                    page.goto(root + address)
                    drawn(page)
                    file = options.output / f"viewer-{name}-{scheme}.png"
                    page.screenshot(path=file)
                    subprocess.run(["pngquant", "--force", "--output", file, "--speed", "1", "128", file], check=True)
                    print(f"{file}: {file.stat().st_size / 1024:.0f} KiB")
                context.close()
            browser.close()


if __name__ == "__main__":
    main()
