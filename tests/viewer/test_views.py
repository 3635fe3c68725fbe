"""What the pages are made of: view models, helpers that write markup, and the answers that need no browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from markupsafe import Markup
from support.recorded_home import GPU, NO_WIN, PASSED, WAITING, runs_by_task, unpack

from cudaforge import words
from cudaforge.evaluation import Interval, OutputError, Verdict
from cudaforge.jobs import Scope
from cudaforge.profile_words import change_of
from cudaforge.shapes import RoundPoint
from cudaforge.store.sqlite import SqliteStore
from cudaforge.trace import Evidence, RunFinished, RunStarted, RunState, RunSuspended, StageFinished, StoredEvent
from cudaforge_api.app import create_app
from cudaforge_api.settings import Settings
from cudaforge_api.viewer import charts, html, islands, words_html
from cudaforge_api.viewer.export import export_run
from cudaforge_api.viewer.forms import onward
from cudaforge_api.viewer.profiles import profile_view
from cudaforge_api.viewer.rounds import cite, errors, round_page
from cudaforge_api.viewer.run import run_page
from cudaforge_api.viewer.runs import Asked, runs_page
from cudaforge_api.viewer.timeline import timeline
from cudaforge_profiling.types import Profile

EVIL = "</script><script>alert(1)</script><!-- & \u2028"
Start = Callable[..., TestClient]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(tmp_path_factory.mktemp("views"))


@pytest.fixture(scope="module")
def store(home: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(home)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def runs(store: SqliteStore) -> dict[str, str]:
    return runs_by_task(store)


@pytest.fixture
def start(home: Path) -> Iterator[Start]:
    with ExitStack() as stack:

        def begin(**settings: Any) -> TestClient:
            app = create_app(Settings.model_validate({"home": home, "evaluators": ("local:cpu",), **settings}))
            return stack.enter_context(TestClient(app, base_url="http://localhost", follow_redirects=False))

        yield begin


@pytest.fixture
def client(start: Start) -> TestClient:
    return start()


# -- helpers that write markup -------------------------------------------------------------------------------------


def test_an_island_holds_nothing_that_could_end_it() -> None:
    data = islands.Light(bars=(islands.Bar(name=EVIL, percent=float("nan"), parent=None),))
    text = islands.island(data)
    assert isinstance(text, Markup)
    inside = re.fullmatch(r'<script type="application/json">(.*)</script>', text, re.DOTALL)
    assert inside and not set("<>&\u2028") & set(inside[1])
    assert json.loads(inside[1]) == {"bars": [{"name": EVIL, "percent": None, "parent": None}]}


def test_templates_escape_whatever_a_filter_returns() -> None:
    template = html.environment().from_string(
        "{{ x|clean }} {{ x|one_line(99) }} {{ x|short_model }} {{ x|verdict_name }}"
    )
    shown = template.render(x=EVIL)
    assert "<" not in shown and shown.count("&lt;script&gt;") == 4
    assert not any(isinstance(each("PASSED"), Markup) for each in (words_html.verdict_name,))


def test_small_drawings_hold_numbers_alone_and_leave_out_what_is_no_number() -> None:
    points = [
        RoundPoint(round=n, verdict=None, speedup=s) for n, s in ((0, None), (1, 0.5), (2, 2.0), (3, float("inf")))
    ]
    drawn = charts.sparkline(points, 4)
    assert "0.50x to 2.00x" in drawn and "nan" not in drawn and "inf" not in drawn
    assert charts.sparkline(points[:1], 4) == ""
    assert charts.whisker(None) == charts.whisker(Interval(value=1, low=0, high=2)) == ""
    assert "<circle" in charts.whisker(Interval(value=1.5, low=1.2, high=9.0))


def test_every_verdict_has_a_shape_of_its_own() -> None:
    assert len({charts.mark(verdict) for verdict in Verdict}) == len(Verdict)
    assert charts.mark(None) != charts.mark(None, failed=True)


def test_an_interval_that_spans_one_is_a_tie() -> None:
    said = [
        words.standing(i and Interval(value=1, low=i[0], high=i[1])) for i in ((1.1, 2), (0.9, 2), (0.5, 0.9), None)
    ]
    assert said == ["win", "tie", "loss", "none"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (0.02, "20ms"), (0.4, "0.4s"), (12, "12s"), (59.7, "1m00s"), (252, "4m12s"), (7380, "2h03m")],
)
def test_durations_fit_into_a_column(seconds: float | None, text: str) -> None:
    assert words_html.span(seconds) == text


# -- view models ---------------------------------------------------------------------------------------------------


def test_a_url_that_anybody_typed_is_read_as_far_as_it_fits() -> None:
    asked = Asked.of({"text": "soft", "state": "nowhere", "sort": '"onerror=1', "cursor": "-3", "device": "", "x": "y"})
    assert asked == Asked(text="soft")
    assert asked.sorted_by("speedup") == "/?text=soft&sort=-speedup"
    assert Asked(sort="-speedup").sorted_by("speedup") == "/?sort=speedup"
    assert Asked(sort="task").aria_sort("task") == "ascending" and Asked().aria_sort("task") == "none"


def test_the_list_sorts_and_pages_in_the_database(store: SqliteStore, runs: dict[str, str]) -> None:
    by_speed = [row.run.id for row in runs_page(store, Asked(sort="-speedup")).rows]
    assert by_speed[0] == runs[GPU]
    names = [row.run.task_name for row in runs_page(store, Asked(sort="task")).rows]
    assert names == sorted(names)
    page = runs_page(store, Asked(cursor=2))
    assert len(page.rows) == page.total - 2 and page.newer == "/" and page.older is None
    found = runs_page(store, Asked(state="suspended"))
    assert [row.run.id for row in found.rows] == [runs[WAITING]] and found.rows[0].outcome == "waiting"
    assert page.counts.of(RunState.SUSPENDED) == 1


def test_a_run_tells_its_verdict_with_the_terminals_words(store: SqliteStore, runs: dict[str, str]) -> None:
    recorded = store.run(runs[GPU]), store.run(runs[NO_WIN])
    assert recorded[0] is not None and recorded[1] is not None
    won, lost = run_page(store, recorded[0]), run_page(store, recorded[1])
    assert won.headline.state == "verified" and won.headline.verified and won.headline.eager is not None
    assert won.curve.verified is not None and won.curve.verified.speedup == won.headline.eager.value
    assert [best.speedup for best in won.curve.best] == sorted(best.speedup for best in won.curve.best)
    assert lost.headline.state == "no-win" and "No kernel was verified" in lost.headline.why
    assert not won.under_way


def test_the_time_line_lays_parts_out_and_tells_waiting_from_work() -> None:
    zero = datetime(2026, 1, 1, tzinfo=UTC)

    def at(number: int, seconds: float, event: Any) -> StoredEvent:
        return StoredEvent(id=number, at=zero + timedelta(seconds=seconds), event=event)

    parts = {"wait for device": 2.0, "build": 3.0, "check": 1.0, "timing": 4.0}
    done = StageFinished(run_id="r", round=0, stage="evaluate", seconds=10.0, parts_s=parts)
    begun = RunStarted(run_id="r", task="t", language="cpp", coder="c", judge="j", evaluator="e", rounds=1)
    events = [
        at(1, 0, begun),
        at(2, 12, done),
        at(3, 12, RunSuspended(run_id="r", waiting_for="x", message="")),
        at(4, 72, RunFinished(run_id="r", state=RunState.DONE)),
    ]
    made = timeline(events, None)
    assert made is not None and made.total_s == 72
    assert [(lane.kind, lane.spans[0].start_s, lane.spans[0].end_s) for lane in made.lanes] == [
        ("build", 4.0, 7.0),
        ("check", 7.0, 8.0),
        ("time", 8.0, 12.0),
        ("waiting", 2.0, 4.0),
    ]
    assert [(gap.start_s, gap.end_s) for gap in made.gaps] == [(12.0, 72.0)]
    assert timeline([], None) is None


def profile_of(store: SqliteStore, run_id: str, number: int) -> Profile:
    attempt = store.attempt(f"{run_id}.{number}")
    assert attempt is not None and attempt.profile is not None
    found = store.result(attempt.profile)
    assert isinstance(found, Profile)
    return found


def test_a_profile_is_shown_beside_its_parents(store: SqliteStore, runs: dict[str, str]) -> None:
    before, after = (profile_of(store, runs[GPU], number) for number in (3, 4))
    view = profile_view(after, before, "round 4", "round 3")
    assert view.light is not None and any(bar.parent is not None for bar in view.light.bars)
    assert view.roofline is not None and [p.kind for p in view.roofline.points] == ["this", "parent"]
    stalls = view.launches[0].stalls
    assert stalls is not None and sum(r.share for r in stalls.reasons) == pytest.approx(1, abs=0.05)
    facts = dict(view.launches[0].facts)
    assert "registers" in facts and "occupancy is limited by" in facts
    assert any(line.change for line in view.launches[0].metrics)


def test_changes_are_said_in_the_form_that_fits() -> None:
    pairs = ((1.0, 1.0), (1.2, 1.0), (1.001, 1.0), (50.0, 1.0), (1.0, 0.0))
    assert [change_of(*pair) for pair in pairs] == ["=", "+20 %", "≈", "×50", ""]


def test_cited_evidence_is_looked_up_in_the_profile(store: SqliteStore, runs: dict[str, str]) -> None:
    profile = profile_of(store, runs[GPU], 4)
    metric = next(m for m in profile.launches[0].metrics.values() if m.unit == "%" and isinstance(m.value, float))
    hot = profile.hot_lines[0]
    cases = {
        (metric.name, f"{metric.value:.1f} %"): "right",
        (metric.name, f"{float(metric.value) * 2 + 5:.1f} %"): "wrong",
        (metric.name, "high"): "unknown",
        ("no_such_metric", "1"): "unknown",
        (f"{hot.file}:{hot.line}, the loads", f"{hot.share:.1%} of the samples"): "right",
    }
    for (name, value), standing in cases.items():
        assert cite(Evidence(metric=name, value=value), profile).standing == standing, (name, value)
    assert cite(Evidence(metric=metric.name, value="1"), None).standing == "unknown"


@pytest.mark.parametrize("name", ["a" * 200_000, "kernel.cu:" + "9" * 5000, ":" * 1000, ""])
def test_no_words_of_a_judge_keep_the_service_busy(store: SqliteStore, runs: dict[str, str], name: str) -> None:
    profile = profile_of(store, runs[GPU], 4)
    started = time.monotonic()
    assert cite(Evidence(metric=name, value="1"), profile).standing == "unknown"
    assert time.monotonic() - started < 1  # it was minutes


def test_the_correctness_map_knows_the_outputs_shape_only_where_it_fits() -> None:
    error = OutputError(output="1", mismatched=2, total=24, first=(((0, 1), 1.0, None),))
    (found,) = errors((error,), ("float32[4, 6]", "float32[3, 8]")).outputs
    assert found.shape == (3, 8) and found.places[0].got is None
    assert errors((error,), ("float32[5]",)).outputs[0].shape is None


def test_a_round_reads_only_what_its_tab_shows(store: SqliteStore, runs: dict[str, str]) -> None:
    run = store.run(runs[GPU])
    attempt = store.attempt(f"{runs[GPU]}.5")
    assert run is not None and attempt is not None
    plan = round_page(store, run, attempt, "plan")
    assert plan.files is None and plan.calls is None and plan.cited
    diff = round_page(store, run, attempt, "diff", against=2)
    assert diff.against == 2 and diff.files is not None
    kernel = diff.files[0]
    assert kernel.island.language == "cuda" and kernel.island.left.title.startswith("#2")
    assert {mark.kind for mark in kernel.island.marks} >= {"hot"}
    draft = store.attempt(f"{runs[GPU]}.0")
    assert draft is not None
    first = round_page(store, run, draft, "diff")
    assert first.against is None and first.files is not None and first.files[0].island.left.text == ""
    assert any(mark.kind == "error" for file in first.files for mark in file.island.marks) or first.evaluation


# -- answers -------------------------------------------------------------------------------------------------------


def test_every_page_has_the_policy_and_is_kept_by_nobody(client: TestClient, runs: dict[str, str]) -> None:
    for path in ("/", f"/runs/{runs[GPU]}", f"/runs/{runs[GPU]}/rounds/3", "/compare", "/nowhere"):
        answer = client.get(path)
        policy = answer.headers["content-security-policy"]
        assert "script-src 'self'; style-src 'self';" in policy and "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy and "nonce" not in policy
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert not re.search(r"<script(?![^>]*(src=|application/json))", answer.text)
        assert not re.search(r'\son\w+="|style="|<style', answer.text)


def test_errors_are_pages_for_people_and_documents_for_programs(client: TestClient) -> None:
    page, document = client.get("/runs/r0000000000"), client.get("/api/v1/runs/r0000000000")
    assert page.status_code == document.status_code == 404
    assert page.headers["content-type"].startswith("text/html") and "There is no run" in page.text
    assert document.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/runs/last", "/runs/x/rounds/y", "/nothing"])
def test_an_address_that_is_none_is_said_so_in_a_readers_words(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404 and answer.headers["content-type"].startswith("text/html")
    assert "should match" not in answer.text and "describes the form" not in answer.text


def test_past_the_end_of_the_list_it_says_so_and_leads_back(client: TestClient) -> None:
    text = client.get("/?cursor=500").text
    assert "this far down" in text and "There is no run yet" not in text


def test_what_the_guard_refuses_has_the_headers_of_everything(client: TestClient) -> None:
    refused = client.post("/login", data={"token": "x"}, headers={"Origin": "http://elsewhere.example"})
    assert refused.status_code == 403 and refused.headers["x-content-type-options"] == "nosniff"


def test_a_form_may_carry_the_longest_reply_though_its_encoding_is_longer(start: Start, runs: dict[str, str]) -> None:
    client = start(limits={"body": 200_000, "reply": 100_000})
    text = "内" * 30_000  # 90,000 bytes, 270,000 in a form
    answer = client.post(f"/runs/{runs[NO_WIN]}/reply", data={"text": text}, headers={"Origin": "http://localhost"})
    assert answer.status_code == 409  # that run waits for nobody; its length is none of the problem
    too_long = client.post("/api/v1/runs", content=b"x" * 250_000, headers={"Content-Type": "application/json"})
    assert too_long.status_code == 413


def test_static_files_stand_under_their_digest_for_ever(client: TestClient) -> None:
    kept = client.get(html.asset("viewer.css"))
    assert kept.status_code == 200 and "immutable" in kept.headers["cache-control"]
    assert client.get("/static/0000/viewer.css").headers["cache-control"] == "no-store"
    for path in ("%2e%2e/html.py", "vendor", "nothing.js", "types.d.ts"):
        assert client.get(f"/static/x/{path}").status_code == 404


def test_downloads_are_saved_and_never_shown(client: TestClient, store: SqliteStore, runs: dict[str, str]) -> None:
    run_id = runs[PASSED]
    for path in (f"/runs/{run_id}/task.py", f"/runs/{run_id}/rounds/0/files/kernel.cpp", f"/runs/{run_id}/export"):
        answer = client.get(path)
        assert answer.status_code == 200 and answer.headers["content-disposition"].startswith("attachment; ")
    kernel = store.kernel(store.attempts(run_id)[0].kernel or "")
    assert kernel is not None
    assert client.get(f"/runs/{run_id}/rounds/0/files/kernel.cpp").text == kernel.files["kernel.cpp"]
    assert client.get(f"/runs/{run_id}/rounds/0/files/passwd").status_code == 404


def test_where_tokens_are_needed_a_browser_signs_in(start: Start, store: SqliteStore, runs: dict[str, str]) -> None:
    _, secret = store.tokens.create("reader", Scope.READ)
    client = start(require_token=True)
    refused = client.get("/runs/x?tab=plan")
    assert refused.status_code == 303 and refused.headers["location"] == "/login?next=/runs/x%3Ftab%3Dplan"
    wrong = client.post("/login", data={"token": "nothing", "next": "/"})
    assert wrong.status_code == 401 and "unknown" in wrong.text and not wrong.cookies
    done = client.post("/login", data={"token": secret, "next": f"/runs/{runs[GPU]}"})
    assert done.status_code == 303 and done.headers["location"] == f"/runs/{runs[GPU]}"
    flags = done.headers["set-cookie"].lower()
    assert "httponly" in flags and "samesite=strict" in flags
    assert client.get("/").status_code == 200 and client.get("/api/v1/runs").status_code == 200
    page = client.get(f"/runs/{runs[WAITING]}")
    assert "may read, not answer" in page.text and "<textarea" not in page.text
    forbidden = client.post(f"/runs/{runs[WAITING]}/reply", data={"text": "x"}, headers={"Origin": "http://localhost"})
    assert forbidden.status_code == 403
    assert client.post("/logout").status_code == 303
    assert client.get("/").status_code == 303


def test_a_cookie_vouches_for_a_change_only_with_its_origin(
    start: Start, store: SqliteStore, runs: dict[str, str]
) -> None:
    _, secret = store.tokens.create("submitter", Scope.SUBMIT)
    client = start(require_token=True)
    client.cookies.set("cudaforge_token", secret)
    path = f"/runs/{runs[WAITING]}/reply"
    assert client.post(path, data={"text": "x"}).status_code == 403
    other = client.post(path, data={"text": "x"}, headers={"Origin": "http://evil.example"})
    assert other.status_code == 403 and "another site" in other.text
    assert client.post(path, data={"text": " "}, headers={"Origin": "http://localhost"}).status_code in (403, 422)


@pytest.mark.parametrize(
    "path", ["//evil.example", "/\\evil.example", "https://evil.example", "javascript:x", "", "/a\nb"]
)
def test_signing_in_leads_to_no_other_site(path: str) -> None:
    assert onward(path) == "/"
    assert onward("/runs/x?tab=plan") == "/runs/x?tab=plan"


def test_a_form_must_be_one(client: TestClient, runs: dict[str, str]) -> None:
    path = f"/runs/{runs[WAITING]}/reply"
    assert client.post(path, json={"text": "x"}).status_code == 400
    empty = client.post(path, data={"text": " \n"})
    assert empty.status_code == 422 and "The reply is empty." in empty.text


def test_an_exported_file_runs_its_own_modules_alone(store: SqliteStore, runs: dict[str, str]) -> None:
    run = store.run(runs[PASSED])
    assert run is not None
    text = export_run(store, run).decode()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy and "connect-src" not in policy[1] and "default-src &#39;none&#39;" in policy[1]
    scripts = re.findall(r'<script type="module">(.*?)</script>', text, re.DOTALL)
    assert len(scripts) == 3
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"sha256-{digest}" in policy[1]
    assert all(f'id="round-{a.round}"' in text for a in store.attempts(run.id))
