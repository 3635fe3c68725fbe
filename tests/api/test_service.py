"""The service as a process: started, drained, killed; and docs/service.md, command by command."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.kill_service import new_run, torment
from support.service import Service, environment, service, until
from support.small_evaluator import SmallEvaluator
from support.spool_server import serving

from cudaforge.store.sqlite import SqliteStore

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "service.md").read_text()


def block(name: str) -> str:
    found = re.search(rf"<!-- {name} -->\n```\w+\n(.*?)\n```", TEXT, re.DOTALL)
    assert found
    return found[1]


@pytest.mark.timeout(600)
def test_the_documented_commands_lead_from_submission_to_result(cudaforge_home: Path, tmp_path: Path) -> None:
    """On the real evaluator of this machine, in a folder where the examples are."""
    place = tmp_path / "place"
    place.mkdir()
    (place / "examples").symlink_to(ROOT / "examples")
    with service(cudaforge_home, "--evaluator", "local:cpu") as running:
        for name, command in (("curl", ["bash", "-euo", "pipefail", "-c"]), ("httpx", [sys.executable, "-c"])):
            done = subprocess.run(
                [*command, block(name)],
                cwd=place,
                env=environment(CUDAFORGE=running.url),
                capture_output=True,
                text=True,
                timeout=280,
                check=False,
            )
            assert done.returncode == 0, done.stderr + done.stdout
    (package,) = place.glob("kernel_k*")
    assert (package / "__init__.py").is_file() and (package / "kernel.cpp").is_file()
    assert "event: run_finished" in (place / "events.txt").read_text()
    assert re.search(r"^done PASSED ", done.stdout, re.MULTILINE) and "coder is asked" in done.stdout


def test_fifty_runs_survive_kills_of_service_and_workers(cudaforge_home: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "spool", SmallEvaluator()):
        found = torment(cudaforge_home, ("--evaluator", f"spool:{tmp_path / 'spool'}"), 50, 2, kills=8, seconds=240)
    assert found["lost"] == [] and found["states"] == {"done": 50}
    assert found["ends"] == {1: 50}, "a run ended more than once, or never"
    assert found["replies_asked_twice"] == 0
    assert Counter(found["killed"]) == Counter(service=4, worker=4)
    assert found["deliveries"] > 50, "no kill hit a run under way"


def test_a_drained_service_gives_its_runs_back_and_goes_on_with_them(cudaforge_home: Path, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    with service(cudaforge_home, "--evaluator", f"spool:{spool}") as running:
        run = running.client.post("/runs", json=new_run(0, 1)).json()["id"]
        # Nobody serves the spool yet: the worker waits with it.
        until(lambda: "coder" in running.client.get(f"/runs/{run}/events").text or (spool / "requests").is_dir())
        until(lambda: running.client.get("/queue").json()["running"] == 1)
        worker = running.client.get("/queue").json()["workers"][0]["pid"]
        os.kill(worker, signal.SIGTERM)  # drained: gives the run back, and another worker is started
        time.sleep(0.5)
        os.kill(worker, signal.SIGTERM)  # at once
        until(lambda: "given back" in running.client.get(f"/runs/{run}/events").text)
        until(lambda: running.client.get("/queue").json()["running"] == 1)
        assert running.client.get("/queue").json()["workers"][0]["pid"] != worker
        with serving(spool, SmallEvaluator()):
            until(lambda: running.client.get(f"/runs/{run}").json()["state"] == "done")
        assert running.end() == 0
    assert "Traceback" not in running.log.read_text()


def test_a_service_that_is_killed_takes_its_workers_along(cudaforge_home: Path) -> None:
    with service(cudaforge_home, "--evaluator", "local:cpu") as running:
        until(lambda: running.client.get("/ready").status_code == 200)
        running.end(signal.SIGKILL)
        store = SqliteStore(cudaforge_home)
        until(lambda: store.queue.workers() == [])
        store.close()


def test_a_port_in_use_and_an_address_without_tokens_are_one_sentence(
    cudaforge_home: Path, cli: Callable[..., Any]
) -> None:
    with service(cudaforge_home, "--workers", "0") as running:
        port = running.url.rpartition(":")[2].partition("/")[0]
        done = cli("serve", "--port", port)
        assert done.exit_code == 2 and "cannot be listened on" in done.stderr
    done = cli("serve", "--host", "0.0.0.0", "--port", "0")
    assert done.exit_code == 2 and "there is none yet" in done.stderr and "cudaforge token create" in done.stderr
    done = cli("serve", "--evaluator", "cloud")
    assert done.exit_code == 2 and "Evaluator 'cloud' is unknown" in done.stderr


def test_tokens_are_made_listed_and_revoked_on_the_command_line(cudaforge_home: Path, cli: Callable[..., Any]) -> None:
    secret = cli("token", "create", "ci", "--scope", "read").stdout.strip()
    assert secret.startswith("cf_") and "ci" in cli("token", "list").stdout
    assert secret not in cli("token", "list", "--json").stdout
    with service(cudaforge_home, "--workers", "0", "--require-token", "--evaluator", "local:cpu") as running:
        headers = {"Authorization": f"Bearer {secret}"}
        assert running.client.get("/about", headers=headers).json()["scope"] == "read"
        assert running.client.get("/about").status_code == 401
        assert "Revoked" in cli("token", "revoke", "ci").stdout
        assert running.client.get("/about", headers=headers).status_code == 401
    assert cli("token", "revoke", "ci").exit_code == 2
    assert isinstance(running, Service) and secret not in running.log.read_text()
