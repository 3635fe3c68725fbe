"""The elements by themselves: what they draw from their data, and how they bring a page up to date. No server."""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

ROOT = Path(__file__).parents[2]
STATIC = ROOT / "api" / "cudaforge_api" / "viewer" / "static"
SITE = "http://viewer.test"
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'"
Shown = Callable[..., Page]


def island(tag: str, data: object, fallback: str = "<p>in words</p>") -> str:
    """An element as the server writes it."""
    text = json.dumps(data).replace("<", "\\u003c")
    return f'<{tag}><script type="application/json">{text}</script>{fallback}</{tag}>'


class Bench:
    """A page with a body of our own under the strict policy, and what the browser complained about."""

    def __init__(self, browser: Browser) -> None:
        self.body = ""
        self.asked: list[str] = []
        self.errors: list[str] = []
        self.page = browser.new_page(viewport={"width": 1000, "height": 900})
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.route(f"{SITE}/**", self._answer)

    def _answer(self, route: Route) -> None:
        path = route.request.url.removeprefix(SITE).partition("?")[0]
        if not path.startswith("/static/"):
            self.asked.append(route.request.url.removeprefix(SITE))
            head = '<link rel="icon" href="data:,"><link rel="stylesheet" href="/static/elements.css">'
            head += '<script type="module" src="/static/viewer.js"></script>'
            body = f"<!doctype html><html><head><title>bench</title>{head}</head><body>{self.body}</body></html>"
            route.fulfill(
                body=body, headers={"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": POLICY}
            )
        else:
            file = STATIC / path.removeprefix("/static/")
            route.fulfill(body=file.read_bytes(), content_type=mimetypes.guess_type(file.name)[0] or "text/plain")

    def show(self, body: str) -> Page:
        self.body = body
        self.page.goto(SITE)
        return self.page

    def refresh(self, body: str) -> bool:
        """The server's page has changed, and the page looks. Whether anything was swapped."""
        self.body = body
        return bool(self.page.evaluate("import('/static/swap.js').then((swap) => swap.refresh('/'))"))


@pytest.fixture
def bench(browser: Browser) -> Iterator[Bench]:
    made = Bench(browser)
    yield made
    made.page.close()
    assert not made.errors


# -- charts --------------------------------------------------------------------------------------------------------


def curve(*speedups: float | None, **more: Any) -> dict[str, Any]:
    rounds = [
        {
            "n": n,
            "verdict": "PASSED" if s else "TIMEOUT",
            "speedup": s,
            "low": s,
            "high": s,
            "href": f"/r/{n}",
            "title": "",
        }
        for n, s in enumerate(speedups)
    ]
    return {"rounds": rounds, "best": [], "eager": 1, "compile": None, "light": None, "verified": None, **more}


def test_a_chart_keeps_the_servers_words_as_its_text(bench: Bench) -> None:
    page = bench.show(island("cf-curve", curve(1.5), "<table><tr><td>round 0</td></tr></table>"))
    expect(page.locator("cf-curve[data-drawn] svg")).to_be_visible()
    cell = page.get_by_role("cell", name="round 0")
    expect(cell).to_be_hidden()
    page.get_by_text("as a table").click()
    expect(cell).to_be_visible()


def test_a_speed_of_light_that_is_far_away_does_not_press_the_rest_flat(bench: Bench) -> None:
    def heights(light: float) -> list[float]:
        svg = bench.show(island("cf-curve", curve(0.9, 1.8, light=light))).locator("cf-curve[data-drawn] svg")
        expect(svg).to_contain_text("speed of light")
        return svg.locator("[data-anchor]").evaluate_all("all => all.map(each => Number(each.getAttribute('cy')))")

    near, far = heights(2.0), heights(50.0)
    assert far[0] - far[1] >= near[0] - near[1] > 60


def test_a_link_with_a_scheme_is_no_link(bench: Bench) -> None:
    data = curve(1.5, 1.6, 1.7)
    for entry, href in zip(
        data["rounds"], ["javascript:alert(1)", "//elsewhere.test/", "/runs/r/rounds/2"], strict=True
    ):
        entry["href"] = href
    page = bench.show(island("cf-curve", data))
    links = page.locator("cf-curve[data-drawn] a.cf-column")
    expect(links).to_have_count(3)
    assert [link.get_attribute("href") for link in links.all()] == [None, None, "/runs/r/rounds/2"]


def test_arrows_move_from_round_to_round_and_tell_of_each(bench: Bench) -> None:
    page = bench.show(island("cf-curve", curve(1.5, None, 1.7)))
    expect(page.locator("cf-curve[data-drawn] svg")).to_be_visible()
    page.keyboard.press("Tab")
    tip = page.locator(".cf-tip")
    expect(tip).to_contain_text("round 0: PASSED 1.50x")
    page.keyboard.press("ArrowRight")
    expect(tip).to_contain_text("round 1: TIMEOUT")
    page.keyboard.press("End")
    expect(tip).to_contain_text("round 2: PASSED 1.70x")
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()
    page.keyboard.press("Tab")  # the chart was one stop: the next is its text
    assert page.evaluate("document.activeElement.localName") == "summary"


def test_a_long_wait_does_not_hide_the_work(bench: Bench) -> None:
    def widths(wait: float) -> list[float]:
        spans = [
            {"start_s": 0, "end_s": 10, "round": 0, "title": ""},
            {"start_s": 10 + wait, "end_s": 20 + wait, "round": 1, "title": ""},
        ]
        gap = {"start_s": 10, "end_s": 10 + wait, "title": "waits for a reply"}
        data = {"total_s": 20 + wait, "lanes": [{"name": "build", "kind": "build", "spans": spans}], "gaps": [gap]}
        page = bench.show(island("cf-timeline", data))
        bars = page.locator("cf-timeline[data-drawn] rect[data-tip]")
        expect(bars).to_have_count(2)
        return [bar.evaluate("bar => bar.getBoundingClientRect().width") for bar in bars.all()]

    assert min(widths(86400)) > 200, "a day's wait is a strip"
    expect(bench.page.locator("cf-timeline .cf-gap").locator("..")).to_contain_text("1d00h")


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        (
            "only at indices >= 96 of dimension 0 (size 128): the last tile or tail",
            "at indices 96 to 127 of dimension 0",
        ),
        ("only at indices 16 to 31 of dimension 1 (size 64)", "at indices 16 to 31 of dimension 1"),
        ("every element is wrong", "everywhere"),
        ("77 of 8192 elements, scattered", "is not known"),
        ("only at indices >= 999 of dimension 7 (size 3)", "is not known"),
    ],
)
def test_the_map_shades_what_the_check_said_and_no_more(bench: Bench, pattern: str, found: str) -> None:
    place = {"index": [96, 16], "expected": 1.5, "got": None}
    output = {
        "name": "output",
        "shape": [128, 64],
        "mismatched": 77,
        "total": 8192,
        "pattern": pattern,
        "places": [place],
    }
    page = bench.show(island("cf-errors", {"outputs": [output]}))
    svg = page.locator("cf-errors[data-drawn] svg")
    assert found in (svg.get_attribute("aria-label") or "")
    expect(svg.locator("g[data-mark=rect]")).to_have_count(1 if "not known" in found else 2)
    expect(page.locator("cf-errors")).to_contain_text("first at [96, 16]: expected 1.5, got not finite")


def test_data_that_cannot_be_read_leave_the_servers_words(bench: Bench) -> None:
    page = bench.show('<cf-strip><script type="application/json">{</script><p>in words</p></cf-strip>')
    expect(page.locator("cf-strip[data-drawn=failed]")).to_contain_text("could not be drawn")
    expect(page.get_by_text("in words")).to_be_visible()
    assert len(bench.errors) == 1 and "JSON" in bench.errors.pop()


def test_a_library_that_cannot_be_loaded_leaves_the_servers_words(bench: Bench) -> None:
    bench.page.route("**/vendor/plot.js", lambda route: route.abort())
    page = bench.show(island("cf-curve", curve(1.5)))
    expect(page.locator("cf-curve[data-drawn=failed]")).to_contain_text("could not be drawn")
    expect(page.get_by_text("in words")).to_be_visible()
    assert bench.errors
    bench.errors.clear()


# -- diff ----------------------------------------------------------------------------------------------------------

LINES = [f"float v{n} = in[{n}];" for n in range(120)]


def difference(*marks: dict[str, Any]) -> str:
    right = [line.replace("in[60]", "in[61]") for line in LINES]
    sides = {"left": {"title": "#1", "text": "\n".join(LINES)}, "right": {"title": "#2", "text": "\n".join(right)}}
    return island("cf-diff", {**sides, "language": "cuda", "marks": list(marks)})


def mark(line: int, kind: str = "hot", share: float | None = 0.25) -> dict[str, Any]:
    return {"side": "right", "line": line, "kind": kind, "text": f"said of {line}", "share": share}


def test_a_diff_folds_what_is_unchanged_but_not_what_is_marked(bench: Bench) -> None:
    page = bench.show(difference(mark(20), mark(100, "error", None)))
    sides = page.locator("cf-diff[data-drawn] .cm-editor")
    expect(sides).to_have_count(2)
    for side in sides.all():
        expect(side.locator(".cf-fold")).to_have_text([f"{n} unchanged lines" for n in (17, 35, 33, 18)])
    expect(sides.nth(1).get_by_text("float v19")).to_be_visible()
    expect(sides.nth(0).get_by_text("float v0 ")).to_have_count(0)
    fold = sides.nth(1).locator(".cf-fold").first
    fold.focus()
    page.keyboard.press("Enter")
    expect(sides.nth(0).get_by_text("float v0 ")).to_be_visible()  # both sides open together
    expect(sides.nth(0).locator(".cf-fold")).to_have_count(3)
    page.get_by_role("button", name="show all lines").click()
    expect(page.locator(".cf-fold")).to_have_count(0)
    page.get_by_role("button", name="changes only").click()
    expect(sides.nth(0).locator(".cf-fold")).to_have_count(4)


def test_what_is_searched_for_is_found_in_a_fold(bench: Bench) -> None:
    page = bench.show(difference())
    page.locator("cf-diff[data-drawn]").get_by_role("button", name="find").click()
    page.keyboard.type("float v7 ")
    page.keyboard.press("Enter")
    expect(page.locator(".cm-searchMatch-selected")).to_have_text("float v7 ")


def test_a_narrow_diff_is_one_under_the_other(bench: Bench) -> None:
    page = bench.show(difference())
    expect(page.locator("cf-diff[data-drawn] .cm-editor")).to_have_count(2)
    page.set_viewport_size({"width": 390, "height": 800})
    expect(page.locator("cf-diff .cm-editor")).to_have_count(1)
    expect(page.locator("cf-diff .cm-deletedChunk")).to_contain_text("in[60]")


def test_an_entry_of_the_list_leads_to_its_line(bench: Bench) -> None:
    page = bench.show(difference(mark(110, "warning", None)))
    page.get_by_role("button", name="warning: said of 110").click()
    expect(page.locator(".cm-editor.cm-focused .cf-line-warning")).to_be_in_viewport()


# -- bringing a page up to date ------------------------------------------------------------------------------------


def test_only_what_changed_is_swapped(bench: Bench) -> None:
    def body(second: str, title: str = "") -> str:
        rows = "".join(f'<tr><td><a href="/{text}">{text}</a></td></tr>' for text in ("first", second, "third"))
        drawn = island("cf-curve", curve(1.5))
        return f'<table><tbody data-live="rows">{rows}</tbody></table><div data-live="chart">{drawn}</div>{title}'

    page = bench.show(body("second"))
    expect(page.locator("cf-curve[data-drawn] svg")).to_be_visible()
    page.evaluate("window.kept = [...document.querySelectorAll('tbody tr, cf-curve svg')]")
    page.get_by_role("link", name="third").focus()
    assert not bench.refresh(body("second")), "a drawn chart is no change"
    assert bench.refresh(body("other"))
    expect(page.get_by_role("link", name="other")).to_be_visible()
    assert page.evaluate("window.kept.map((each) => each.isConnected)") == [True, False, True, True]
    assert page.evaluate("document.activeElement.textContent") == "third"


def test_a_chart_grows_in_place_and_keeps_the_focus_of_its_marks(bench: Bench) -> None:
    def body(*speedups: float | None) -> str:
        words = f"<p>{len(speedups)} rounds</p>"
        return f'<section data-live="curve"><h2>curve</h2>{island("cf-curve", curve(*speedups), words)}</section>'

    page = bench.show(body(1.5, 1.6))
    expect(page.locator("cf-curve[data-drawn] svg")).to_be_visible()
    page.evaluate("window.kept = document.querySelector('cf-curve')")
    page.locator("a.cf-column").nth(1).focus()
    page.get_by_text("as a table").evaluate("summary => summary.parentElement.open = true")
    assert bench.refresh(body(1.5, 1.6, None))
    assert page.evaluate("window.kept === document.querySelector('cf-curve')")
    expect(page.locator("a.cf-column")).to_have_count(3)
    expect(page.locator("a.cf-column").nth(1)).to_be_focused()
    expect(page.locator("a.cf-column[tabindex='0']")).to_have_count(1)
    expect(page.get_by_text("3 rounds")).to_be_visible()
    assert not bench.refresh(body(1.5, 1.6, None))


def test_rows_move_and_leave_without_being_made_anew(bench: Bench) -> None:
    def body(*names: str) -> str:
        return '<ul data-live="list">' + "".join(f"<li>{name}</li>" for name in names) + "</ul>"

    page = bench.show(body("a", "b", "c", "d"))
    page.evaluate("window.c = document.querySelectorAll('li')[2]")
    assert bench.refresh(body("e", "c", "a"))
    expect(page.locator("li")).to_have_text(["e", "c", "a"])
    assert page.evaluate("window.c === document.querySelectorAll('li')[1]")


def test_what_somebody_writes_is_not_taken_away(bench: Bench) -> None:
    def body(prompt: str) -> str:
        return f'<div data-live="reply"><form><p>{prompt}</p><textarea></textarea></form></div>'

    page = bench.show(body("one"))
    page.locator("textarea").fill("my answer")
    assert not bench.refresh(body("two"))
    expect(page.locator("textarea")).to_have_value("my answer")
    page.locator("textarea").fill("")
    assert bench.refresh(body("two")), "nothing is lost by it any more"
    expect(page.locator("p")).to_have_text("two")


def test_what_somebody_ticked_stays_ticked(bench: Bench) -> None:
    def body(text: str) -> str:
        rows = "".join(f'<tr><td><input type="checkbox" name="run" value="{n}">{text} {n}</td></tr>' for n in (1, 2))
        return f'<table><tbody data-live="rows">{rows}</tbody></table>'

    page = bench.show(body("one"))
    page.get_by_role("checkbox").nth(1).check()
    assert bench.refresh(body("two"))
    expect(page.locator("tr").nth(1)).to_have_text("two 2")
    expect(page.get_by_role("checkbox").nth(0)).not_to_be_checked()
    expect(page.get_by_role("checkbox").nth(1)).to_be_checked()


def test_what_somebody_opened_stays_open(bench: Bench) -> None:
    def body(text: str) -> str:
        return f'<section data-live="part"><details><summary>{text}</summary>more</details></section>'

    page = bench.show(body("one"))
    page.get_by_text("one").click()
    assert bench.refresh(body("two"))
    expect(page.get_by_text("more")).to_be_visible()


def test_a_script_in_a_newer_page_does_not_run(bench: Bench) -> None:
    page = bench.show('<div data-live="part">old</div>')
    attack = "<script>window.ran = 1</script><img src=x onerror='window.ran = 1'>"
    assert bench.refresh(f'<div data-live="part">new{attack}</div>')
    expect(page.locator("[data-live]")).to_contain_text("new")
    page.wait_for_timeout(100)
    assert page.evaluate("window.ran") is None
    assert bench.errors
    bench.errors.clear()  # the policy said so, too


@pytest.mark.parametrize(("status", "state", "words"), [(204, "ended", "ended"), (503, "closed", "not live")])
def test_the_end_of_a_stream_is_told_from_a_refusal(bench: Bench, status: int, state: str, words: str) -> None:
    bench.page.route("**/stream*", lambda route: route.fulfill(status=status, body=""))
    page = bench.show('<cf-live src="/api/v1/runs/r1/stream" after="7">reload for news</cf-live>')
    expect(page.locator("cf-live")).to_have_attribute("data-state", state)
    expect(page.locator("cf-live")).to_contain_text(words)
    assert all("503" in error for error in bench.errors)
    bench.errors.clear()


def test_rows_sort_by_value_with_empty_cells_last(bench: Bench) -> None:
    cells = [("b", "9.50x"), ("a", "10.00x"), ("c", "–")]
    rows = "".join(f"<tr><td>{name}</td><td>{value}</td></tr>" for name, value in cells)
    head = '<th>name</th><th>speedup</th><th><a href="?sort=x">server</a></th>'
    page = bench.show(f"<cf-sort><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></cf-sort>")
    first = page.locator("tbody td:first-child")
    page.get_by_role("button", name="speedup").click()
    expect(first).to_have_text(["a", "b", "c"])
    expect(page.get_by_role("columnheader", name="speedup")).to_have_attribute("aria-sort", "descending")
    page.get_by_role("button", name="speedup").press("Enter")
    expect(first).to_have_text(["b", "a", "c"])
    page.get_by_role("button", name="name").press("Enter")
    expect(first).to_have_text(["a", "b", "c"])
    expect(page.get_by_role("button")).to_have_count(2)  # the server sorts by the third
