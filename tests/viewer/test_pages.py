"""What holds for every page: accessible, usable with a keyboard, on a phone, without scripts, and to itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect
from support.recorded_home import GPU, NO_WIN, PASSED, WAITING
from viewer.conftest import Site, Watched, all_drawn, becomes_true

Open = Callable[..., Page]
AXE = Path(__file__).with_name("vendor") / "axe.min.js"
TABS = ("plan", "diff", "correctness", "profile", "timing", "messages")
PAGES: dict[str, tuple[str, str]] = {
    "runs": ("", ""),
    "nothing found": ("", "/?text=no-such-run"),
    "run": (GPU, ""),
    "run without a win": (NO_WIN, ""),
    "run that waits": (WAITING, ""),
    **{f"round, {tab}": (GPU, f"/rounds/5?tab={tab}") for tab in TABS},
    "round that failed": (PASSED, "/rounds/0?tab=diff"),
    "round that is wrong": (PASSED, "/rounds/1?tab=correctness"),
    "compare": ("", "/compare?a=A&b=B"),
}
every_page = pytest.mark.parametrize("name", PAGES)


def address(site: Site, name: str) -> str:
    task, rest = PAGES[name]
    rest = rest.replace("=A", f"={site.runs[PASSED]}").replace("=B", f"={site.runs[GPU]}")
    return (site.run(task) if task else site.url) + rest


@every_page
def test_no_serious_finding_of_axe_in_light_and_dark(
    browser: Browser, watched: Watched, looked_at: Site, name: str
) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 2000}, color_scheme="light")
    context.add_init_script(path=AXE)
    watched.watch(context)
    page = context.new_page()
    page.goto(address(looked_at, name))
    serious: list[str] = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        all_drawn(page)
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        serious += [
            f"{scheme}: {v['id']} ({v['impact']}): {v['help']}\n  {node['target']} {node['html'][:160]}"
            for v in found["violations"]
            if v["impact"] in ("serious", "critical")
            for node in v["nodes"][:5]
        ]
    context.close()
    assert not serious, "\n".join(serious)
    watched.check()


@every_page
def test_a_phone_scrolls_in_one_direction_only(opened: Open, looked_at: Site, name: str) -> None:
    page = opened(address(looked_at, name), viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    all_drawn(page)
    wide = page.evaluate("document.documentElement.scrollWidth")
    widest = page.evaluate(
        """[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1
        && ![...(function*() { for (let p = e.parentElement; p; p = p.parentElement) yield p })()]
        .some(p => ['auto', 'scroll', 'hidden', 'clip'].includes(getComputedStyle(p).overflowX)))
        .slice(0, 5).map(e => e.outerHTML.slice(0, 120))"""
    )
    assert wide <= 390, (wide, widest)


@every_page
def test_without_scripts_it_can_be_read(opened: Open, looked_at: Site, name: str) -> None:
    page = opened(address(looked_at, name), java_script_enabled=False)
    assert page.locator("h1").count() == 1
    assert "CudaForge" in page.title() and len(page.title()) > len("CudaForge") + 3
    text = page.get_by_role("main").inner_text()
    said = {
        "runs": ("row_softmax", "H100"),
        "nothing found": ("No run fits",),
        "run": ("gemm_bias_gelu", "PASSED", "BUILD_FAILED"),
        "run without a win": ("cross_entropy",),
        "run that waits": ("layer_norm_bias",),
        "round, diff": ("__global__",),
        "round, correctness": ("trial",),
        "round, profile": ("long_scoreboard",),
        "round, timing": ("µs",),
        "round, messages": ("kernel.cu",),
        "round that failed": ("error", "#include"),
        "round that is wrong": ("99.97%", "dimension"),
        "compare": ("row_softmax", "gemm_bias_gelu"),
    }
    lower = re.sub(r"[\s_]+", " ", text).lower()
    for each in said.get(name, ()):
        assert re.sub(r"[\s_]+", " ", each).lower() in lower, each


@pytest.mark.parametrize("name", ["runs", "round, diff"])
def test_the_skip_link_leads_past_the_head_of_the_page(opened: Open, looked_at: Site, name: str) -> None:
    page = opened(address(looked_at, name))
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_attribute("href", "#main")
    page.keyboard.press("Enter")
    becomes_true(page, "document.activeElement.id === 'main'")


def test_from_the_list_to_a_line_of_code_and_back_with_the_keyboard_alone(opened: Open, looked_at: Site) -> None:
    page = opened(looked_at.url)

    def tab_to(selector: str, presses: int = 120) -> None:
        for _ in range(presses):
            page.keyboard.press("Tab")
            if page.evaluate("s => document.activeElement.matches(s)", selector):
                outline = page.evaluate("(s => s.outlineStyle + s.boxShadow)(getComputedStyle(document.activeElement))")
                assert outline != "nonenone" or "cf-column" in selector, f"the focus on {selector} cannot be seen"
                return
        raise AssertionError(f"Tab never came to {selector}")

    tab_to(f"a[href='/runs/{looked_at.runs[GPU]}']")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/runs/r"))
    all_drawn(page)
    tab_to("a.cf-column")
    page.keyboard.press("ArrowRight")
    expect(page.locator("cf-curve .cf-tip")).to_contain_text("round 1")
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/rounds/6"))
    tab_to("a[href*='tab=diff']")
    page.keyboard.press("Enter")
    expect(page.locator("cf-diff[data-drawn]").first).to_be_visible()
    page.go_back()
    page.go_back()
    expect(page).to_have_url(re.compile(r"/runs/r\w+$"))


def test_the_parts_of_a_round_have_addresses_of_their_own(opened: Open, looked_at: Site) -> None:
    page = opened(looked_at.run(GPU, "rounds", 6))
    for tab in TABS:
        page.locator(f"a[href*='tab={tab}']").first.click()
        expect(page).to_have_url(re.compile(f"tab={tab}"))
        chosen = page.locator("[aria-current], [aria-selected=true]", has_text=re.compile(tab, re.I))
        expect(chosen.first).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_follows_the_systems_colours(opened: Open, looked_at: Site, scheme: Any) -> None:
    page = opened(looked_at.run(GPU), color_scheme=scheme)
    ground = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    light = sum(map(int, re.findall(r"\d+", ground)[:3])) / 3
    assert light > 200 if scheme == "light" else light < 60
