"""The page of a round: code against code, where outputs differ, what the hardware said, raw samples, messages."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect
from support.recorded_home import GPU, PASSED, WAITING
from viewer.conftest import Site, Watched

from cudaforge.evaluation import Evaluation
from cudaforge.kernel import Kernel
from cudaforge.trace import Action, Attempt, Plan
from cudaforge_profiling.types import Profile

Open = Callable[..., Page]


def attempt(site: Site, task: str, number: int) -> Attempt:
    return site.store.attempts(site.runs[task])[number]


def evaluation(site: Site, of: Attempt) -> Evaluation:
    assert of.evaluation is not None
    found = site.store.result(of.evaluation)
    assert isinstance(found, Evaluation)
    return found


def profile(site: Site, of: Attempt) -> Profile:
    assert of.profile is not None
    found = site.store.result(of.profile)
    assert isinstance(found, Profile)
    return found


def kernel(site: Site, of: Attempt) -> Kernel:
    assert of.kernel is not None
    found = site.store.kernel(of.kernel)
    assert found is not None
    return found


def tab(site: Site, task: str, number: int, name: str) -> str:
    return f"{site.run(task, 'rounds', number)}?tab={name}"


# -- code ----------------------------------------------------------------------------------------------------------


def test_code_stands_beside_its_parent_with_highlighting(opened: Open, looked_at: Site) -> None:
    page = opened(tab(looked_at, GPU, 4, "diff"))
    diff = page.locator("cf-diff[data-drawn]").first
    sides = diff.locator(".cm-mergeView .cm-editor")
    expect(sides).to_have_count(2)
    expect(diff.locator(".cm-changedLine").first).to_be_visible()
    expect(diff).to_contain_text(re.compile(r"\d+ changes"))
    colours = diff.locator(".cm-line span").evaluate_all("all => [...new Set(all.map(s => getComputedStyle(s).color))]")
    assert len(colours) >= 4
    shown = "".join(sides.nth(1).locator(".cm-line").all_inner_texts())
    assert "mma.sync" in shown or "cp.async" in shown
    diff.get_by_role("button", name="show all lines").click()
    source = kernel(looked_at, attempt(looked_at, GPU, 4)).source
    expect(sides.nth(1).locator(".cm-line").first).to_have_text(source.splitlines()[0])


def test_a_round_can_be_read_against_any_other(opened: Open, looked_at: Site) -> None:
    page = opened(f"{tab(looked_at, GPU, 6, 'diff')}&against=2")
    diff = page.locator("cf-diff[data-drawn]").first
    expect(diff).to_contain_text("2")
    texts = diff.locator(".cm-mergeView .cm-editor").first.locator(".cm-line").all_inner_texts()
    first = kernel(looked_at, attempt(looked_at, GPU, 2)).source
    assert any(line.strip() and line in first for line in texts)
    choice = page.get_by_label(re.compile("against", re.I))
    choice.select_option("3")
    if not re.search("against=3", page.url):
        page.locator("form:has(select[name=against]) button").click()
    expect(page).to_have_url(re.compile("against=3"))


def test_a_compiler_error_stands_at_its_line(opened: Open, looked_at: Site) -> None:
    first = attempt(looked_at, PASSED, 0)
    error = next(d for d in evaluation(looked_at, first).diagnostics if d.severity == "error")
    page = opened(tab(looked_at, PASSED, 0, "diff"))
    diff = page.locator("cf-diff[data-drawn]").first
    expect(diff.locator(".cf-gutter .cf-glyph-error").first).to_be_visible()
    expect(diff.locator(".cf-message-error").first).to_contain_text(error.message[:40])
    expect(diff.locator(".cf-marks")).to_contain_text(f"{error.line}")
    line = diff.locator(".cf-line-error").first.inner_text()
    assert line == kernel(looked_at, first).source.splitlines()[error.line - 1]


def test_an_error_without_a_line_is_told_above_the_code(opened: Open, looked_at: Site) -> None:
    """What ptxas says of a whole kernel."""
    error = next(d for d in evaluation(looked_at, attempt(looked_at, GPU, 0)).diagnostics if d.severity == "error")
    assert not error.line
    expect(opened(tab(looked_at, GPU, 0, "diff")).get_by_role("main")).to_contain_text(error.message)


def test_hot_lines_have_their_share_of_the_stalls_in_the_gutter(opened: Open, looked_at: Site) -> None:
    hottest = max(profile(looked_at, attempt(looked_at, GPU, 5)).hot_lines, key=lambda line: line.share)
    page = opened(tab(looked_at, GPU, 5, "diff"))
    diff = page.locator("cf-diff[data-drawn]").first
    share = f"{100 * hottest.share:.0f}"
    diff.locator(".cf-marks-box > summary").click()
    entry = diff.locator(".cf-marks button", has_text=f"hot {share} %").first
    expect(entry).to_contain_text(str(hottest.line))
    entry.click()  # leads to the line
    expect(diff.locator(".cf-gutter .cf-line-mark", has_text=f"{share}%").first).to_be_in_viewport()


# -- correctness ---------------------------------------------------------------------------------------------------


def test_the_map_shows_where_outputs_differ(opened: Open, looked_at: Site) -> None:
    wrong = next(a for a in looked_at.store.attempts(looked_at.runs[PASSED]) if a.verdict == "INCORRECT")
    found = evaluation(looked_at, wrong).correctness
    assert found is not None
    error = found.errors[0]
    page = opened(tab(looked_at, PASSED, wrong.round, "correctness"))
    island = page.locator("cf-errors[data-drawn]")
    expect(island).to_contain_text(f"{error.mismatched:,} of {error.total:,}")
    expect(island).to_contain_text(error.pattern)
    svg = island.locator("svg")
    expect(svg).to_be_visible()
    crosses = svg.locator("g[data-mark=dot] path, g[data-mark=dot] circle")
    expect(crosses).to_have_count(len(error.first))
    expect(island).to_contain_text(f"[{', '.join(map(str, error.first[0][0]))}]")


# -- profile -------------------------------------------------------------------------------------------------------


def test_what_the_warps_waited_for_is_drawn_beside_the_parent(opened: Open, looked_at: Site) -> None:
    page = opened(tab(looked_at, GPU, 5, "profile"))
    launch = profile(looked_at, attempt(looked_at, GPU, 5)).launches[0]
    svg = page.locator("cf-stalls[data-drawn] svg")
    text = svg.get_attribute("aria-label") or ""
    for name, share in sorted(launch.stalls.items(), key=lambda item: -item[1])[:3]:
        assert re.search(rf"{name.replace('_', '.')} {100 * share:.0f} %", text), (name, share, text)
    assert "parent" in text
    bars = svg.locator("g[data-mark=rect] rect").evaluate_all("all => all.map(r => r.getBoundingClientRect().width)")
    assert bars == sorted(bars, reverse=True) and bars[0] > 3 * bars[-1] > 0


def test_the_roofline_has_this_round_and_its_parent_below_their_roof(opened: Open, looked_at: Site) -> None:
    page = opened(tab(looked_at, GPU, 5, "profile"))
    svg = page.locator("cf-roofline[data-drawn] svg")
    dots = svg.locator("g[data-mark=dot] circle")
    expect(dots).to_have_count(2)
    roofline = profile(looked_at, attempt(looked_at, GPU, 5)).roofline
    assert roofline is not None and roofline.achieved_flops_per_s is not None
    label = svg.get_attribute("aria-label") or ""
    assert f"{roofline.achieved_flops_per_s / 1e12:.3g} T" in label
    heights = dots.evaluate_all("all => all.map(c => Number(c.getAttribute('cy')))")
    assert min(heights) > 0 and len(set(heights)) == 2


def test_the_share_of_each_units_peak_is_drawn(opened: Open, looked_at: Site) -> None:
    page = opened(tab(looked_at, GPU, 5, "profile"))
    svg = page.locator("cf-light[data-drawn] svg")
    expect(svg).to_have_attribute("aria-label", re.compile(r"Percent of peak: .*\d+ %"))


def test_the_metrics_stand_with_their_names_and_the_change_since_the_parent(opened: Open, looked_at: Site) -> None:
    page = opened(tab(looked_at, GPU, 5, "profile"))
    launch = profile(looked_at, attempt(looked_at, GPU, 5)).launches[0]
    body = page.content()
    named = [name for name in launch.metrics if name in body]
    assert len(named) >= 5, "metric names are on hover or in the table"
    expect(page.get_by_role("main")).to_contain_text(re.compile("register", re.I))


def test_the_profilers_report_is_downloaded_where_it_was_kept(opened: Open, looked_at: Site) -> None:
    page = opened(tab(looked_at, GPU, 2, "profile"))
    with page.expect_download() as download:
        page.get_by_role("link", name=re.compile("ncu-rep")).first.click()
    stored = attempt(looked_at, GPU, 2).profile
    assert stored is not None
    report = looked_at.store.report(stored)
    assert report is not None and download.value.path().read_bytes() == report.data


# -- timing --------------------------------------------------------------------------------------------------------


def test_every_sample_of_kernel_and_baseline_is_drawn(opened: Open, looked_at: Site) -> None:
    timing = evaluation(looked_at, attempt(looked_at, GPU, 6)).workloads[0]
    page = opened(tab(looked_at, GPU, 6, "timing"))
    svg = page.locator("cf-strip[data-drawn] svg").first
    samples = [timing.kernel, timing.eager] + ([timing.compile] if timing.compile else [])
    label = svg.get_attribute("aria-label") or ""
    for each in samples:
        assert f"{len(each.samples_us)} samples" in label
    lines = svg.locator("g[data-mark=rule]").first.locator("line")
    expect(lines).to_have_count(sum(len(each.samples_us) for each in samples))
    expect(svg).to_contain_text(re.compile(r"\d+\.\d+ µs"))
    expect(page.get_by_role("main")).to_contain_text(timing.kernel.clock)


# -- plan and messages ---------------------------------------------------------------------------------------------


def test_the_plan_stands_with_its_evidence_and_what_came_of_it(opened: Open, looked_at: Site) -> None:
    of = attempt(looked_at, GPU, 4)
    assert isinstance(of.advice, Plan) and of.measured_gain is not None
    main = opened(tab(looked_at, GPU, 4, "plan")).get_by_role("main")
    expect(main).to_contain_text(of.advice.bottleneck)
    expect(main).to_contain_text(of.advice.method)
    for fact in of.advice.evidence:
        expect(main).to_contain_text(fact.metric)
    for step in of.advice.steps:
        expect(main).to_contain_text(step)
    expect(main).to_contain_text(f"{of.measured_gain:.2f}")


def test_what_a_person_did_in_a_session_is_told(opened: Open, own: Site) -> None:
    run_id, first = own.runs[PASSED], attempt(own, PASSED, 0)
    number = len(own.store.attempts(run_id))
    changes = {"id": f"{run_id}.{number}", "round": number, "advice": None, "verdict": None, "evaluation": None}
    edited = {"action": Action.EDIT, "hint": "one pass", "reply_error": "", "profile": None, "time_us": None}
    own.store.save_attempt(first.model_copy(update={**changes, **edited, "speedup": None}))
    page = opened(tab(own, PASSED, number, "plan"))
    expect(page.locator("body")).to_contain_text("Edited by hand")
    expect(page.locator("body")).to_contain_text("What the user asked for")
    expect(page.locator("body")).to_contain_text("it was taken back before it was evaluated")
    assert page.get_by_text("taken back", exact=True).count() == 1
    page.goto(own.run(PASSED))
    expect(page.locator("table", has_text="taken back").first).to_contain_text("edit")


def test_prompts_and_replies_are_there_to_the_letter(opened: Open, looked_at: Site) -> None:
    run, of = looked_at.runs[GPU], attempt(looked_at, GPU, 4)
    calls = [call for call in looked_at.store.calls(run) if call.attempt_id == of.id]
    page = opened(tab(looked_at, GPU, 4, "messages"))
    shown = page.locator("main pre").evaluate_all("all => all.map(p => p.textContent)")
    assert len(calls) == 2
    for call in calls:
        for text in [*(message.content for message in call.messages), call.reply]:
            assert text is not None and any(text.strip() == pre.strip() for pre in shown), text[:200]
    expect(page.get_by_role("main")).to_contain_text(re.compile("tokens", re.I))


def test_the_command_that_reproduces_it_can_be_copied(opened: Open, looked_at: Site) -> None:
    page = opened(looked_at.run(GPU, "rounds", 6), permissions=["clipboard-read", "clipboard-write"])
    command = page.locator("pre, code", has_text=re.compile(r"cudaforge (evaluate|profile)")).first
    expect(command).to_be_attached()
    expect(page.get_by_role("main")).to_contain_text(attempt(looked_at, GPU, 6).kernel or "")


def test_the_kernel_is_downloaded_as_a_package(opened: Open, looked_at: Site) -> None:
    page = opened(looked_at.run(GPU, "rounds", 6))
    with page.expect_download() as download:
        page.get_by_role("link", name=re.compile("kernel|package|zip", re.I)).first.click()
    assert download.value.path().read_bytes()[:2] == b"PK"


# -- what is not there ---------------------------------------------------------------------------------------------


ABSENT = {
    (GPU, 0, "correctness"): "does not build has no outputs",
    (GPU, 0, "profile"): "only a kernel that passes is profiled",
    (GPU, 0, "timing"): "only a kernel that passes is timed",
    (GPU, 0, "plan"): "the Judge is asked from the next round on",
    (GPU, 6, "profile"): "none was made from this one",
    (PASSED, 3, "profile"): "those of a CPU are not read",
    (WAITING, 1, "diff"): "the kernel is not written yet",
    (WAITING, 1, "messages"): "the run waits for it",
}


@pytest.mark.parametrize(("task", "number", "name"), ABSENT)
def test_what_a_round_does_not_have_says_why(opened: Open, looked_at: Site, task: str, number: int, name: str) -> None:
    main = opened(tab(looked_at, task, number, name)).get_by_role("main")
    expect(main).to_contain_text(ABSENT[task, number, name])


def test_a_round_that_is_not_there_is_a_page_that_says_so(opened: Open, looked_at: Site, watched: Watched) -> None:
    watched.allowed.append("404")
    for address in (looked_at.run(GPU, "rounds", 99), f"{looked_at.url}/runs/r0000000000", f"{looked_at.url}/nowhere"):
        page = opened(address)
        expect(page.locator("body")).to_contain_text(re.compile("no (such )?(round|run|page)|There is no", re.I))
