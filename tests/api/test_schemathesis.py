"""Everything that the OpenAPI document allows, and much that it forbids: no 5xx, nothing that is not documented."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)
from support import records
from support.scripted import TASK_SOURCE
from support.service import Service, service

from cudaforge.jobs import Answer, Bounds, Scope, SingleEvaluation, WorkerInfo
from cudaforge.store.sqlite import SqliteStore
from cudaforge.task import Task
from cudaforge.trace import RunFinished, RunState, now
from cudaforge_api.app import PREFIX

RUN, KERNEL, TASK = "r000000001a", records.kernel().id, Task.parse(TASK_SOURCE).id
CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzzed") / "home"


@pytest.fixture(scope="module")
def authorization(home: Path) -> Iterator[str]:
    """A home with things in it, whose ids the document's examples do not know, and a token that may do all."""
    record = SqliteStore(home)
    record.create_run(records.run(RUN, state=RunState.DONE, outcome=records.outcome(RUN)))
    record.save_kernel(records.kernel())
    record.save_result(RUN, f"{RUN}.0/evaluate/0", records.incorrect())
    record.save_result(RUN, f"{RUN}.0/profile/0", records.profile(b"report"))
    record.save_attempt(records.attempt(RUN, 0, evaluation=f"{RUN}.0/evaluate/0", profile=f"{RUN}.0/profile/0"))
    record.save_call(records.answered(f"{RUN}.0/coder/0", run_id=RUN))
    record.append(RunFinished(run_id=RUN, state=RunState.DONE))  # so that its stream ends
    record.keep_task(Task.parse(TASK_SOURCE), "local")
    single = SingleEvaluation(id="e000000001a", task=records.task(), kernel=records.kernel(), evaluator="local")
    record.queue.submit(single, "local", Bounds(), Answer(status=201, body="{}", location="/x"))
    _, secret = record.tokens.create("fuzzer", Scope.ADMIN)
    idle = WorkerInfo(id="idle", pid=os.getpid(), slots=1, started=now(), seen=now())
    with record.queue.work(idle):  # so that the service says that it is ready
        yield f"Bearer {secret}"
    record.close()


@pytest.fixture(scope="module")
def running(home: Path, authorization: str) -> Iterator[Service]:
    limits = ("--max-active", "100000", "--max-queued", "100000")
    with service(home, "--require-token", "--workers", "0", "--evaluator", "local:cpu", *limits) as started:
        yield started


@pytest.fixture(scope="module")
def api(running: Service, authorization: str) -> Any:
    schema = schemathesis.openapi.from_url(f"{running.url}/openapi.json", headers={"Authorization": authorization})
    schema.config.update(headers={"Authorization": authorization})
    return schema


DOCUMENT = json.loads((Path(__file__).resolve().parents[2] / "docs" / "openapi.json").read_text())
OPERATIONS = [
    f"{method.upper()} {path}"
    for path, methods in DOCUMENT["paths"].items()
    for method in methods
    if path != f"{PREFIX}/stream"  # it never ends; test_events.py has it
]


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("name", OPERATIONS)
def test_no_request_makes_it_fail_or_answer_with_something_undocumented(
    name: str, mode: GenerationMode, api: Any
) -> None:
    """`positive` is what the document allows, `negative` what it forbids."""
    method, path = name.split()
    operation = api[path][method]
    known = {"run_id": RUN, "kernel_id": KERNEL, "task_id": TASK, "evaluation_id": "e000000001a"}

    @settings(
        max_examples=15,
        deadline=None,
        derandomize=True,  # the same cases in every run
        database=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode), exists=st.booleans())
    def check(case: Any, exists: bool) -> None:
        if exists and mode is GenerationMode.POSITIVE:
            case.path_parameters.update({name: known[name] for name in set(known) & set(case.path_parameters)})
        case.call_and_validate(checks=CHECKS)

    with contextlib.suppress(Unsatisfiable):  # an operation without parameters has nothing to get wrong
        check()


def test_no_operation_can_be_used_without_a_token(api: Any, running: Service) -> None:
    operations = [operation.ok() for operation in api.get_all_operations()]
    assert len(operations) > 30
    values = {"run_id": RUN, "kernel_id": KERNEL, "task_id": TASK, "evaluation_id": "e000000001a", "round": 0}
    for operation in operations:
        path = operation.path.removeprefix(PREFIX).format(**values, digest="0" * 64)
        answer = running.client.request(operation.method, path)
        assert (answer.status_code == 401) == (path not in ("/health", "/ready")), path
