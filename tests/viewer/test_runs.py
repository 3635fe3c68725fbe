"""The list of runs: what it says, and how it is searched, filtered, sorted, watched and compared."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Page, expect
from support.recorded_home import GPU, NO_WIN, PASSED, WAITING, Copy
from viewer.conftest import Site

Open = Callable[..., Page]
ROW = "table.runs tbody tr"


def names(page: Page) -> list[str]:
    """The tasks of the rows, in their order."""
    return page.locator(f"{ROW} .task a").all_inner_texts()


def column(page: Page, header: str) -> list[str]:
    """The cells below a header."""
    headers = page.locator("table.runs thead th").all_inner_texts()
    place = next(n for n, text in enumerate(headers) if header in text)
    return page.locator(f"{ROW} td:nth-child({place + 1})").all_inner_texts()


def test_each_run_has_a_row_with_its_task_models_state_and_numbers(opened: Open, looked_at: Site) -> None:
    page = opened(looked_at.url)
    assert sorted(names(page)) == sorted(looked_at.runs)
    row = page.locator(ROW, has_text=GPU)
    run = looked_at.store.run(looked_at.runs[GPU])
    assert run is not None and run.outcome is not None and run.outcome.speedup is not None and run.device is not None
    speedup = run.outcome.speedup
    assert speedup.compile is not None
    for said in (run.id, "H100", "7/7", f"{speedup.eager.value:.2f}", f"{speedup.compile.value:.2f}"):
        expect(row).to_contain_text(said)
    expect(row.locator("[title]", has_text=f"{speedup.eager.value:.2f}")).to_have_attribute(
        "title", re.compile(rf"{speedup.eager.low:.2f}.*{speedup.eager.high:.2f}")
    )
    expect(row.locator("svg.spark")).to_be_visible()
    waiting = page.locator(ROW, has_text=WAITING)
    expect(waiting).to_contain_text("waiting")
    expect(page.locator(ROW, has_text=NO_WIN)).to_contain_text("no win")


def test_typing_filters_without_a_button_and_keeps_the_focus(opened: Open, looked_at: Site) -> None:
    page = opened(looked_at.url)
    search = page.get_by_role("searchbox")
    search.press_sequentially("softmax", delay=30)
    expect(page.locator(ROW)).to_have_count(1)
    expect(page).to_have_url(re.compile("text=softmax"))
    expect(search).to_be_focused()
    expect(search).to_have_value("softmax")
    search.fill("nothing is called so")
    expect(page.get_by_text("No run fits")).to_be_visible()
    page.get_by_role("link", name="Show all").click()
    expect(page.locator(ROW)).to_have_count(len(looked_at.runs))


def test_filters_have_their_own_address(opened: Open, looked_at: Site) -> None:
    page = opened(looked_at.url)
    page.get_by_label("state").select_option("suspended")
    expect(page.locator(ROW)).to_have_count(1)
    assert names(page) == [WAITING]
    again = opened(page.url)
    assert names(again) == [WAITING]
    expect(again.get_by_label("state")).to_have_value("suspended")
    by_device = opened(f"{looked_at.url}/?model=manual:")
    assert names(by_device) == [WAITING]


def test_a_header_sorts_by_mouse_by_keyboard_and_by_address(opened: Open, looked_at: Site) -> None:
    page = opened(looked_at.url)
    header = page.get_by_role("columnheader", name="task")
    header.get_by_role("link").or_(header.get_by_role("button")).first.click()
    expect(header).to_have_attribute("aria-sort", re.compile("ascending|descending"))
    expect(page.locator(f"{ROW} .task a").first).to_have_text(
        re.compile(f"^({min(looked_at.runs)}|{max(looked_at.runs)})$")
    )
    way = header.get_attribute("aria-sort")
    assert names(page) == sorted(looked_at.runs, reverse=way == "descending")
    header.get_by_role("link").or_(header.get_by_role("button")).first.press("Enter")
    other = "descending" if way == "ascending" else "ascending"
    expect(header).to_have_attribute("aria-sort", other)
    expect(page.locator(f"{ROW} .task a").first).to_have_text(names(page)[0])
    assert names(page) == sorted(looked_at.runs, reverse=other == "descending")
    assert names(opened(f"{looked_at.url}/?sort=task")) == sorted(looked_at.runs)


def test_runs_that_begin_go_on_and_end_are_shown_as_it_happens(opened: Open, own: Site) -> None:
    page = opened(own.url)
    expect(page.locator("cf-live")).to_contain_text("live")
    page.evaluate("window.sameDocument = true")
    page.get_by_role("searchbox").focus()
    copy = Copy(own.store, own.runs[PASSED], "r0000000new", rounds=7)
    row = page.locator(ROW, has_text="r0000000new")
    expect(row).to_contain_text("running")
    expect(row).to_contain_text("0/7")
    copy.begin(0)
    for number in range(7):
        copy.add(number)
    expect(row).to_contain_text("7/7")
    copy.finish()
    run = own.store.run("r0000000new")
    assert run is not None and run.outcome is not None and run.outcome.speedup is not None
    expect(row).to_contain_text(f"{run.outcome.speedup.eager.value:.2f}")
    expect(row).not_to_contain_text("running")
    expect(page.get_by_role("searchbox")).to_be_focused()
    assert page.evaluate("window.sameDocument") is True


def test_two_runs_are_compared_side_by_side(opened: Open, looked_at: Site) -> None:
    page = opened(looked_at.url)
    for task in (PASSED, GPU):
        page.locator(ROW, has_text=task).get_by_role("checkbox").check()
    page.get_by_role("button", name=re.compile("Compare the two")).click()
    expect(page).to_have_url(re.compile("/compare"))
    main = page.get_by_role("main")
    for task in (PASSED, GPU):
        expect(main).to_contain_text(task)
        run = looked_at.store.run(looked_at.runs[task])
        assert run is not None and run.outcome is not None and run.outcome.speedup is not None
        expect(main).to_contain_text(f"{run.outcome.speedup.eager.value:.2f}")


def test_a_run_that_is_not_among_the_newest_can_be_compared(opened: Open, crowded: Site) -> None:
    (oldest,) = crowded.store.find_runs(limit=1, ascending=True)
    page = opened(f"{crowded.url}/compare?a={oldest.id}")
    expect(page.locator("select[name=a]")).to_have_value(oldest.id)


def test_five_hundred_runs_come_page_by_page(opened: Open, crowded: Site) -> None:
    page = opened(crowded.url)
    shown = page.locator(ROW).count()
    assert 20 <= shown <= 500
    expect(page.get_by_role("main")).to_contain_text("of 500")
    seen: list[str] = []
    while True:
        seen += page.locator(f"{ROW} .id").all_inner_texts()
        following = page.get_by_role("link", name=re.compile("next"))
        if not following.count():
            break
        following.click()
        expect(page.locator(f"{ROW} .id", has_text=seen[-1])).to_have_count(0)
    assert len(seen) == len(set(seen)) == 500
