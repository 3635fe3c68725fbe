"""Runs, tasks, kernels and evaluations over REST."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
from api.conftest import Start, new_run
from api.test_access import name_of
from fastapi.testclient import TestClient
from support import records
from support.scripted import TASK_SOURCE

from cudaforge.evaluation import Evaluation
from cudaforge.jobs import Bounds, SingleState
from cudaforge.store.sqlite import SqliteStore
from cudaforge.trace import CallState, RunState
from cudaforge_api.settings import Limits

FILES = {"kernel.cpp": "int x;", "model.py": "class ModelNew: ..."}
KERNEL = {"language": "cpp", "files": FILES}


def standing(client: TestClient, run: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"/runs/{run}").json()
    return found


def stored(record: SqliteStore, run_id: str = "r000000001a", **changes: Any) -> str:
    """A whole run with two rounds, as a worker leaves it."""
    run = records.run(run_id, state=RunState.DONE, outcome=records.outcome(run_id), **changes)
    record.create_run(run)
    record.save_kernel(records.kernel())
    key = f"{run_id}.1/evaluate/0"
    record.save_result(run_id, key, records.evaluation())
    record.save_result(run_id, f"{run_id}.1/profile/0", records.profile(b"report"))
    record.save_attempt(records.attempt(run_id, 0, evaluation=None, verdict=None))
    record.save_attempt(records.attempt(run_id, 1, evaluation=key, profile=f"{run_id}.1/profile/0"))
    record.save_call(records.answered(f"{run_id}.1/coder/0", run_id=run_id, attempt_id=f"{run_id}.1"))
    return run_id


def test_a_submitted_run_can_be_seen_listed_stopped_and_resumed(client: TestClient) -> None:
    answer = client.post("/runs", json=new_run())
    run = answer.json()["id"]
    assert answer.headers["location"] == f"/api/v1/runs/{run}"
    assert standing(client, run)["state"] == "queued" and standing(client, run)["evaluator"] == "local:cpu"
    assert [item["id"] for item in client.get("/runs").json()["items"]] == [run]
    assert client.post(f"/runs/{run}/cancel").json() == {"id": run, "state": "stopped"}
    assert name_of(client.post(f"/runs/{run}/cancel")) == "conflict"
    assert client.post(f"/runs/{run}/resume").json() == {"id": run, "state": "queued"}
    assert client.post(f"/runs/{run}/resume").json() == {"id": run, "state": "queued"}
    events = [item["event"]["type"] for item in client.get(f"/runs/{run}/events").json()["items"]]
    assert events == ["run_queued", "run_finished", "run_queued"]


def test_what_is_submitted_is_kept_as_it_was(client: TestClient, record: SqliteStore) -> None:
    meta = {"dtype": "float32", "tolerance": {"mode": "explicit", "rtol": 0.01}, "notes": "x"}
    new = new_run(
        task={"name": "a", "source": TASK_SOURCE, "meta": meta},
        language="cpp",
        judge="recorded:row_softmax-cpp",
        budget={"rounds": 3, "seconds": 60, "target_speedup": 2, "patience": 1},
        preset={"name": "paper", "history": 3},
        options={"trials": 2, "strict_isolation": True},
        model_settings={"temperature": 0.5},
    )
    run = record.run(client.post("/runs", json=new).json()["id"])
    assert run is not None
    spec = run.spec
    assert spec.task.meta.tolerance.rtol == 0.01 and spec.task.meta.notes == "x"
    assert (spec.budget.rounds, spec.budget.seconds, spec.budget.target_speedup) == (3, 60, 2)
    assert (spec.preset.base, spec.preset.history, spec.preset.name) == ("last", 3, "paper history=3")
    assert spec.options.trials == 2 and spec.options.strict_isolation and spec.model_settings == {"temperature": 0.5}
    assert spec.judge.startswith("recorded:/") and spec.judge.endswith("/row_softmax-cpp")


def test_an_uploaded_task_is_named_by_its_id(client: TestClient) -> None:
    first = client.post("/tasks", json={"name": "add-one", "source": TASK_SOURCE})
    again = client.post("/tasks", json={"name": "add-one", "source": TASK_SOURCE})
    task = first.json()["id"]
    assert (first.status_code, again.status_code) == (201, 200) and again.json()["id"] == task
    run = client.post("/runs", json=new_run(task=task)).json()["id"]
    assert standing(client, run)["task"] == "add-one"
    assert client.get("/tasks").json()["items"][0]["id"] == task
    assert client.get(f"/tasks/{task}").json()["source"] == TASK_SOURCE
    assert name_of(client.post("/runs", json=new_run(task="t" + "0" * 16))) == "not-found"


@pytest.mark.parametrize(
    ("changes", "name", "words"),
    [
        ({"coder": "gpt"}, "unusable", "names no provider"),
        ({"coder": "recorded:/etc"}, "unusable", "There is no recording"),
        ({"coder": "recorded:../../etc"}, "unusable", "There is no recording"),
        ({"coder": "manual:x"}, "unusable", "is not offered"),
        ({"coder": "smoke:x"}, "unusable", "unknown provider"),
        ({"evaluator": "spool:/tmp"}, "unusable", "There is no evaluator"),
        ({"language": "cuda"}, "unusable", "cannot run cuda"),
        ({"budget": {"rounds": 101}}, "unusable", "at most 100 rounds"),
        ({"budget": {"rounds": 0}}, "invalid", "/budget/rounds"),
        ({"model_settings": {"base_url": "http://x"}}, "invalid", "/model_settings/base_url"),
        ({"model_settings": {"usd_per_million_input": 0}}, "invalid", "/model_settings/usd_per_million_input"),
        ({"task": {"name": "../x", "source": TASK_SOURCE}}, "invalid", "name"),
        ({"task": {"name": "x", "source": "def f(:"}}, "unusable", "x.py:1"),
        ({"task": {"name": "x", "source": "-" * 100_000 + "1"}}, "unusable", "x.py"),
        ({"task": {"name": "x", "source": "\x00"}}, "unusable", "x.py"),
        ({"task": {"name": "x", "source": "#" * (1 << 20)}}, "unusable", "larger than"),
        ({"task": {"name": "x", "source": TASK_SOURCE + "CUDAFORGE = {[]: 1}"}}, "unusable", "literal dict"),
        ({"coder": "openai:x"}, "unusable", "OPENAI_API_KEY"),
        ({"surprise": 1}, "invalid", "/surprise"),
    ],
)
def test_what_cannot_be_used_is_told_and_stores_nothing(
    client: TestClient, changes: dict[str, Any], name: str, words: str
) -> None:
    answer = client.post("/runs", json=new_run(**changes))
    assert name_of(answer) == name and words in answer.text
    assert client.get("/runs").json()["items"] == [] and client.get("/tasks").json()["items"] == []


def test_models_are_offered_by_pattern(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    client = start(models=("openai:small-*",), limits=Limits(usd=2.0))
    assert name_of(client.post("/runs", json=new_run(coder="openai:large"))) == "unusable"
    assert name_of(client.post("/runs", json=new_run())) == "unusable"
    run = client.post("/runs", json=new_run(coder="openai:small-1")).json()["id"]
    asked = new_run(coder="openai:small-1", budget={"usd": 3})
    assert "at most" in client.post("/runs", json=asked).json()["detail"]
    assert standing(client, run)["coder"] == "openai:small-1"


def test_a_run_with_a_networked_model_gets_the_services_budget(
    start: Start, record: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    client = start(limits=Limits(usd=2.0))
    paid = record.run(client.post("/runs", json=new_run(coder="openai:a")).json()["id"])
    free = record.run(client.post("/runs", json=new_run()).json()["id"])
    assert paid is not None and paid.spec.budget.usd == 2.0
    assert free is not None and free.spec.budget.usd is None


def test_a_limit_is_told_with_when_to_try_again(start: Start) -> None:
    client = start(limits=Limits(queue=Bounds(queued=1)))
    assert client.post("/runs", json=new_run()).status_code == 201
    answer = client.post("/runs", json=new_run())
    assert name_of(answer) == "limit-reached" and answer.headers["retry-after"] == "5"


def test_a_body_that_is_too_large_is_not_read(start: Start) -> None:
    client = start(limits=Limits(body=2000))
    assert name_of(client.post("/tasks", json={"name": "x", "source": "#" * 3000})) == "too-large"
    pieces = (b" " * 500 for _ in range(10))  # without a length
    headers = {"Content-Type": "application/json"}
    assert name_of(client.post("/tasks", content=pieces, headers=headers)) == "too-large"


def test_the_same_request_twice_creates_one_run(client: TestClient) -> None:
    headers = {"Idempotency-Key": "once"}
    first, again = (client.post("/runs", json=new_run(), headers=headers) for _ in range(2))
    assert first.status_code == again.status_code == 201 and first.json() == again.json()
    assert "idempotency-replayed" not in first.headers and again.headers["idempotency-replayed"] == "true"
    assert name_of(client.post("/runs", json=new_run(language="module"), headers=headers)) == "key-reused"
    assert name_of(client.post("/evaluations", json={}, headers=headers)) == "invalid"
    assert len(client.get("/runs").json()["items"]) == 1
    tasks = [client.post("/tasks", json={"source": TASK_SOURCE}, headers={"Idempotency-Key": "t"}) for _ in range(2)]
    assert tasks[0].status_code == tasks[1].status_code and tasks[0].json() == tasks[1].json()


def test_pages_follow_one_another_whatever_is_added_meanwhile(client: TestClient) -> None:
    runs = [client.post("/runs", json=new_run()).json()["id"] for _ in range(5)]
    first = client.get("/runs", params={"limit": 2}).json()
    client.post("/runs", json=new_run())
    second = client.get("/runs", params={"limit": 2, "cursor": first["next"]}).json()
    third = client.get("/runs", params={"limit": 2, "cursor": second["next"]}).json()
    assert [item["id"] for page in (first, second, third) for item in page["items"]] == runs[::-1]
    assert third["next"] is None


def test_lists_are_filtered(client: TestClient, record: SqliteStore) -> None:
    done = stored(record)
    queued = client.post("/runs", json=new_run()).json()["id"]

    def found(**params: Any) -> list[str]:
        return [item["id"] for item in client.get("/runs", params=params).json()["items"]]

    assert found(state="done") == found(task="softmax") == found(device="Abacus 9000") == [done]
    assert found(state="queued") == found(task="add-one") == found(model="manual:") == found(mine=True) == [queued]
    assert found(language="cpp") == [queued, done] and found(language="cuda") == []
    assert found(text="SOFT") == [done] and found(text=queued[2:8]) == [queued] and found(text="%") == []


def test_a_finished_run_is_shown_round_by_round(client: TestClient, record: SqliteStore) -> None:
    run = stored(record)
    shown = standing(client, run)
    assert shown["win"] and shown["speedup"]["eager"]["value"] == 2.5 and len(shown["attempts"]) == 2
    one = client.get(f"/runs/{run}/attempts/1").json()
    assert one["files"] == records.kernel().files and one["profile"]["kernel"] == records.kernel().id
    assert Evaluation.model_validate(client.get(f"/runs/{run}/attempts/1/evaluation").json()) == records.evaluation()
    assert client.get(f"/runs/{run}/attempts/1/profile").json()["metric_set"] == "core"
    assert client.get(f"/runs/{run}/attempts/1/profile/report").content == b"report"
    (call,) = client.get(f"/runs/{run}/attempts/1/calls").json()["items"]
    assert call["messages"][1]["content"] == call["reply"] == records.AWKWARD
    for part in ("0/evaluation", "0/profile", "0/profile/report", "7", "7/calls"):
        assert name_of(client.get(f"/runs/{run}/attempts/{part}")) == "not-found"
    (method, _) = client.get("/methods").json()["items"]
    assert method["plan"]["method"] == "tiling" and method["run"] == run
    assert client.get("/devices").json()["items"][0]["name"] == "Abacus 9000"
    assert name_of(client.post(f"/runs/{run}/resume")) == "conflict"


def test_a_report_that_was_collected_says_so(client: TestClient, record: SqliteStore, cudaforge_home: Path) -> None:
    from cudaforge.store.gc import collect

    run = stored(record)
    collect(cudaforge_home, older_than_days=0)
    answer = client.get(f"/runs/{run}/attempts/1/profile/report")
    assert answer.status_code == 410 and name_of(answer) == "collected"


def test_immutable_things_have_etags(client: TestClient, record: SqliteStore) -> None:
    stored(record)
    digest = record.put_artifact(b"bytes")
    task = client.post("/tasks", json={"source": TASK_SOURCE}).json()["id"]
    kernel = records.kernel().id
    for path in (f"/tasks/{task}", f"/kernels/{kernel}", f"/kernels/{kernel}/package", f"/artifacts/{digest}"):
        first = client.get(path)
        assert first.status_code == 200 and "immutable" in first.headers["cache-control"]
        again = client.get(path, headers={"If-None-Match": f'"other", W/{first.headers["etag"]}'})
        assert again.status_code == 304 and again.content == b"" and again.headers["etag"] == first.headers["etag"]
        assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    assert client.get(f"/artifacts/{digest}").content == b"bytes"
    assert name_of(client.get(f"/artifacts/{'0' * 64}")) == "not-found"
    assert name_of(client.get("/artifacts/..%2f..%2fetc%2fpasswd")) in ("invalid", "not-found")


def test_a_kernel_comes_as_a_package(client: TestClient, record: SqliteStore) -> None:
    stored(record)
    kernel = records.kernel("int x;")
    record.save_kernel(kernel)
    with zipfile.ZipFile(io.BytesIO(client.get(f"/kernels/{kernel.id}/package").content)) as archive:
        names = {name.rpartition("/")[2] for name in archive.namelist()}
        assert {"__init__.py", "kernel.cpp", "kernel.py", "model.py", "kernel.json"} <= names
        assert archive.read(f"kernel_{kernel.id}/kernel.cpp") == b"int x;"


def test_a_person_answers_a_prompt(client: TestClient, record: SqliteStore) -> None:
    run = client.post("/runs", json=new_run()).json()["id"]
    assert name_of(client.get(f"/runs/{run}/pending")) == "conflict"
    assert name_of(client.post(f"/runs/{run}/reply", json={"text": "Early."})) == "conflict"
    record.queue.claim("w")
    call = records.call(f"{run}.0/coder/0", run_id=run, state=CallState.WAITING)
    record.save_call(call)
    suspended = record.run(run)
    assert suspended is not None
    record.save_run(suspended.model_copy(update={"state": RunState.SUSPENDED, "waiting_for": call.key}))
    record.queue.leave(run, "w")
    pending = client.get(f"/runs/{run}/pending").json()
    assert pending["key"] == call.key and pending["messages"][1]["content"] == records.AWKWARD
    assert [item["run"] for item in client.get("/pending").json()["items"]] == [run]
    assert name_of(client.post(f"/runs/{run}/resume")) == "conflict"
    assert name_of(client.post(f"/runs/{run}/reply", json={"text": " "})) == "invalid"
    other = {"text": "Late.", "key": f"{run}.9/coder/0"}
    assert name_of(client.post(f"/runs/{run}/reply", json=other)) == "conflict"
    answer = client.post(f"/runs/{run}/reply", json={"text": "Here.", "key": call.key})
    assert answer.status_code == 201 and answer.json()["characters"] == 5
    assert standing(client, run)["state"] == "queued" and client.get("/pending").json()["items"] == []


def test_a_single_evaluation_is_queued_listed_and_stopped(client: TestClient, record: SqliteStore) -> None:
    new = {"task": {"source": TASK_SOURCE}, "kernel": KERNEL, "metrics": "core"}
    evaluation = client.post("/evaluations", json=new).json()["id"]
    shown = client.get(f"/evaluations/{evaluation}").json()
    assert (shown["state"], shown["evaluator"], shown["evaluation"]) == ("queued", "local:cpu", None)
    assert [item["id"] for item in client.get("/evaluations", params={"state": "queued"}).json()["items"]] == [
        evaluation
    ]
    again = client.post("/evaluations", json={"task": shown["task"], "kernel": shown["kernel"]}).json()["id"]
    single = record.queue.single(again)
    assert single is not None and single.kernel.files == FILES
    record.queue.save_single(single.model_copy(update={"state": SingleState.DONE, "evaluation": records.incorrect()}))
    done = client.get(f"/evaluations/{again}").json()
    assert done["evaluation"]["correctness"]["errors"][0]["max_abs"] is None  # infinite, which JSON cannot say
    assert client.post(f"/evaluations/{evaluation}/cancel").json()["state"] == "stopped"
    assert name_of(client.post(f"/evaluations/{evaluation}/cancel")) == "conflict"
    assert name_of(client.get("/evaluations/e0000000000")) == "not-found"


@pytest.mark.parametrize(
    ("kernel", "name"),
    [
        ({"language": "cpp", "files": {"model.py": "x"}}, "unusable"),
        ({"language": "cpp", "files": {"kernel.cpp": "x", "../model.py": "x"}}, "unusable"),
        ({"language": "cpp", "files": {**FILES, "more.h": "x"}}, "unusable"),
        ({**KERNEL, "flags": ["-o/etc/passwd"]}, "unusable"),
        ({"language": "cuda", "files": {"kernel.cu": "x", "model.py": "x"}}, "unusable"),
        ("k" + "0" * 16, "not-found"),
        ("../k", "invalid"),
    ],
)
def test_kernels_that_are_none_are_refused(client: TestClient, kernel: Any, name: str) -> None:
    answer = client.post("/evaluations", json={"task": {"source": TASK_SOURCE}, "kernel": kernel})
    assert name_of(answer) == name


def test_a_run_of_the_command_line_can_be_taken_on(client: TestClient, record: SqliteStore) -> None:
    record.create_run(records.run("r000000001b", state=RunState.STOPPED))
    assert client.post("/runs/r000000001b/resume").json()["state"] == "queued"
    job = record.queue.job("r000000001b")
    assert job is not None and job.submitter == "local"


def test_a_run_that_another_process_drives_is_left_to_it(
    client: TestClient, record: SqliteStore, cudaforge_home: Path
) -> None:
    from cudaforge.graph import _sole_driver

    record.create_run(records.run("r000000001c", state=RunState.RUNNING))
    with _sole_driver(cudaforge_home / "checkpoints.db", "r000000001c"):
        assert name_of(client.post("/runs/r000000001c/resume")) == "conflict"
        assert name_of(client.post("/runs/r000000001c/cancel")) == "conflict"


def test_ready_needs_a_worker_and_room(client: TestClient, record: SqliteStore) -> None:
    from store.test_queue import worker

    assert client.get("/ready").status_code == 503
    with record.queue.work(worker()):
        assert client.get("/ready").json()["ready"]
        assert len(client.get("/queue").json()["workers"]) == 1


def test_a_database_that_breaks_is_a_problem_without_paths(
    client: TestClient, cudaforge_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (cudaforge_home / "cudaforge.db").write_bytes(b"no database" * 1000)
    answer = client.get("/runs")
    assert name_of(answer) == "unavailable" and str(cudaforge_home) not in answer.text
    assert str(cudaforge_home) in caplog.text
