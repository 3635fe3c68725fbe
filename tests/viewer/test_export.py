"""`cudaforge show RUN --html FILE`: one file that holds a run, to be mailed to a colleague."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from support.recorded_home import GPU, PASSED, WAITING
from viewer.conftest import Site, Watched, all_drawn

Open = Callable[..., Page]


@pytest.fixture
def exported(cli: Callable[..., Any], looked_at: Site, tmp_path: Path) -> Callable[[str], Path]:
    """Writes a run into a file."""

    def write(task: str) -> Path:
        file = tmp_path / f"{task}.html"
        done = cli("show", looked_at.runs[task], "--html", file, "--home", looked_at.home)
        assert done.exit_code == 0, done.output
        return file

    return write


@pytest.mark.parametrize("task", [GPU, PASSED, WAITING])
@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_the_file_alone_shows_the_run(
    opened: Open, exported: Callable[[str], Path], looked_at: Site, watched: Watched, task: str, scripts: bool
) -> None:
    page = opened(exported(task).as_uri(), java_script_enabled=scripts)
    main = page.get_by_role("main")
    expect(main).to_contain_text(task)
    run = looked_at.store.run(looked_at.runs[task])
    assert run is not None
    if run.outcome and run.outcome.speedup:
        expect(main).to_contain_text(f"{run.outcome.speedup.eager.value:.2f}")
    for attempt in looked_at.store.attempts(run.id):
        kernel = looked_at.store.kernel(attempt.kernel) if attempt.kernel else None
        assert kernel is None or kernel.source.strip().splitlines()[0] in (main.text_content() or "")
    if scripts:
        all_drawn(page)
        expect(page.locator("cf-curve[data-drawn] svg.cf-plot")).to_be_visible()
    assert watched.hosts == {""}, "a file asks nobody for anything"


def test_links_that_lead_to_a_server_are_left_out(opened: Open, exported: Callable[[str], Path]) -> None:
    page = opened(exported(GPU).as_uri())
    links = page.locator("[href], [src], form[action]").evaluate_all(
        "all => all.map(e => e.getAttribute('href') ?? e.getAttribute('src') ?? e.getAttribute('action'))"
    )
    assert [link for link in links if not link.startswith(("#", "data:"))] == []
