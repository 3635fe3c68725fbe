"""The page of a run: verdict, headline numbers, charts, rounds, and all of it live."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Page, expect
from support.recorded_home import GPU, NO_WIN, PASSED, WAITING, Copy
from viewer.conftest import LONG, Site, becomes_true

from cudaforge.evaluation import Baseline, Verification
from cudaforge.trace import Plan, Run

Open = Callable[..., Page]


def stored(site: Site, task: str) -> Run:
    run = site.store.run(site.runs[task])
    assert run is not None
    return run


def test_a_verified_win_is_told_with_its_intervals(opened: Open, looked_at: Site) -> None:
    run = stored(looked_at, GPU)
    assert run.outcome is not None and run.outcome.verification is not None
    verification = looked_at.store.result(run.outcome.verification)
    assert isinstance(verification, Verification)
    found = verification.evaluation
    assert found.speedup is not None and found.speedup.compile is not None and found.share_of_floor is not None
    page = opened(looked_at.run(GPU))
    expect(page.get_by_role("heading", level=1)).to_contain_text(GPU)
    main = page.get_by_role("main")
    for each in (found.speedup.eager, found.speedup.compile):
        expect(main).to_contain_text(f"{each.value:.2f}")
        expect(main).to_contain_text(re.compile(rf"\[{each.low:.2f},\s*{each.high:.2f}\]"))
    expect(main).to_contain_text(re.compile("verified", re.I))
    expect(main).to_contain_text(f"{100 * found.share_of_floor:.0f}")
    expect(main).to_contain_text("H100")


def test_the_curve_shows_every_round_and_the_lines_that_it_is_measured_against(opened: Open, looked_at: Site) -> None:
    attempts = looked_at.store.attempts(looked_at.runs[GPU])
    baseline = next(r for r in looked_at.store.results(looked_at.runs[GPU]).values() if isinstance(r, Baseline))
    assert baseline.eager_us is not None and baseline.compile_us is not None
    page = opened(looked_at.run(GPU))
    svg = page.locator("cf-curve[data-drawn] svg.cf-plot")
    marks = svg.locator("a.cf-column")
    expect(marks).to_have_count(len(attempts))
    for attempt, label in zip(
        attempts, marks.evaluate_all("all => all.map(a => a.getAttribute('aria-label'))"), strict=True
    ):
        assert label.startswith(f"round {attempt.round}: {attempt.verdict}")
        if attempt.speedup:
            assert f"{attempt.speedup.eager.value:.2f}x" in label or f"{attempt.speedup.eager.value:.3f}x" in label
    expect(svg).to_contain_text("eager")
    expect(svg).to_contain_text("torch.compile")
    expect(svg).to_contain_text(re.compile("speed of light"))
    expect(svg).to_contain_text(re.compile(r"verified \d+\.\d\dx \[\d+\.\d\d, \d+\.\d\d\]"))
    # Faster is higher: the marks of the rounds that passed stand in the order of their speedups.
    passed = [a for a in attempts if a.speedup]
    heights = svg.locator("a.cf-column [data-anchor]").evaluate_all("all => all.map(c => Number(c.getAttribute('cy')))")
    by_height = sorted(passed, key=lambda a: -heights[a.round])
    assert by_height == sorted(passed, key=lambda a: a.speedup.eager.value if a.speedup else 0)
    marks.nth(3).press("Enter")
    expect(page).to_have_url(re.compile(r"/rounds/3$"))


def test_the_time_line_has_a_lane_for_each_stage(opened: Open, looked_at: Site) -> None:
    page = opened(looked_at.run(GPU))
    svg = page.locator("cf-timeline[data-drawn] svg.cf-plot")
    for lane in ("build", "check", "profile", "verify"):
        expect(svg).to_contain_text(re.compile(lane, re.I))
    spans = svg.locator("[data-tip]").evaluate_all("all => all.map(a => a.getAttribute('aria-label'))")
    for number in range(7):
        assert any(f"round {number}" in label for label in spans)
    built = [label for label in spans if label.startswith("build, round")]
    assert len(built) == 7
    x, width = svg.locator("[data-tip]").first.evaluate(
        "rect => [rect.getBoundingClientRect().x, rect.getBoundingClientRect().width]"
    )
    assert x > 0 and width > 0


def test_each_round_tells_its_plan_and_what_was_predicted_and_measured(opened: Open, looked_at: Site) -> None:
    page = opened(looked_at.run(GPU))
    rows = page.locator("table.rounds tbody tr")
    attempts = looked_at.store.attempts(looked_at.runs[GPU])
    expect(rows).to_have_count(len(attempts))
    for row, attempt in zip(rows.all(), attempts, strict=True):
        text = row.inner_text().replace("\n", " ")
        assert str(attempt.round) in text and attempt.verdict is not None
        assert attempt.verdict.value.replace("_", " ").lower() in text.replace("_", " ").lower()
        if isinstance(attempt.advice, Plan):
            assert attempt.advice.method[:30] in text
            assert attempt.advice.predicted_gain is None or f"{attempt.advice.predicted_gain:.2f}" in text
            assert attempt.measured_gain is None or f"{attempt.measured_gain:.2f}" in text
        elif attempt.reason:
            assert attempt.reason[:20] in text or (attempt.advice and attempt.advice.critical_issue[:20] in text)
    page.get_by_role("link", name=re.compile(r"^#?4\b")).first.click()
    expect(page).to_have_url(re.compile(r"/rounds/4$"))


def test_a_run_without_a_win_and_one_that_waits_say_so(opened: Open, looked_at: Site) -> None:
    expect(opened(looked_at.run(NO_WIN)).get_by_role("main")).to_contain_text(re.compile("no (verified )?win", re.I))
    waiting = opened(looked_at.run(WAITING)).get_by_role("main")
    expect(waiting).to_contain_text(re.compile("wait", re.I))
    expect(waiting).to_contain_text(re.compile("judge", re.I))


def test_a_run_in_progress_grows_while_one_looks_and_keeps_the_focus(opened: Open, own: Site) -> None:
    copy = Copy(own.store, own.runs[PASSED], "r0000000new", rounds=7)
    for number in range(3):
        copy.add(number)
    copy.begin(3)
    page = opened(f"{own.url}/runs/r0000000new")
    live = page.locator("cf-live")
    expect(live).to_have_attribute("data-state", "live")
    rows = page.locator("table.rounds tbody tr")
    expect(page.locator("cf-curve[data-drawn] a.cf-column").first).to_be_visible()
    shown = rows.count()
    page.evaluate("window.sameDocument = true")
    link = page.locator("table.rounds tbody tr a").first
    link.focus()
    href = link.get_attribute("href")
    copy.add(3)
    copy.begin(4, "judge")
    copy.add(4)
    expect(rows.filter(has_text="PASSED")).to_have_count(3)
    assert rows.count() > shown - 1
    expect(page.locator("cf-curve[data-drawn] a.cf-column")).to_have_count(5)
    assert page.evaluate("document.activeElement.getAttribute('href')") == href
    copy.add(5)
    copy.add(6)
    copy.finish()
    expect(live).to_have_attribute("data-state", "ended")
    expect(page.get_by_role("main")).to_contain_text(re.compile("verified", re.I))
    expect(page.locator("cf-live [aria-live], cf-live [role=status]")).to_contain_text("ended")
    assert page.evaluate("window.sameDocument") is True


def test_a_hundred_rounds_are_drawn(opened: Open, crowded: Site) -> None:
    page = opened(f"{crowded.url}/runs/{LONG}")
    expect(page.locator("table.rounds tbody tr")).to_have_count(100)
    expect(page.locator("cf-curve[data-drawn] a.cf-column")).to_have_count(100)
    wide = page.locator("cf-curve svg.cf-plot").evaluate("svg => svg.getBoundingClientRect().width")
    assert wide <= 1280


def test_the_charts_fit_when_the_window_changes(opened: Open, looked_at: Site) -> None:
    page = opened(looked_at.run(GPU))
    svg = page.locator("cf-curve[data-drawn] svg.cf-plot")
    expect(svg).to_be_visible()
    page.set_viewport_size({"width": 390, "height": 800})
    becomes_true(page, "document.querySelector('cf-curve svg.cf-plot').getBoundingClientRect().width <= 390")
    expect(svg.locator("a.cf-column")).to_have_count(7)
