"""The benchmarks run and their reports have their parts. Times are not looked at."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(script: str, *arguments: str, out: Path, device: str = "cpu") -> tuple[dict[str, Any], str]:
    """The report of a benchmark, as JSON and as text; a failing one fails the test with its own words."""
    where = ["--device", device] if device else []
    command = [sys.executable, str(ROOT / "benchmarks" / script), *where, "--out", str(out), *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    name = "-".join(filter(None, (Path(script).stem, device)))
    return json.loads((out / f"{name}.json").read_text()), (out / f"{name}.md").read_text()


def test_both_harnesses_judge_the_same_kernel_alike(tmp_path: Path) -> None:
    found, text = run("harness.py", "--quick", out=tmp_path)
    assert not found["left_out"]
    rows = {(row["harness"], row["state"]): row for row in found["rows"]}
    assert set(rows) == {("cudaforge", "cold"), ("cudaforge", "warm"), ("conventional", "alone")}
    assert all(row["verdict"] == row["expected"] == "PASSED" for row in rows.values())
    assert rows["cudaforge", "cold"]["baseline_s"]
    assert {"load", "build", "check", "timing"} <= set(rows["cudaforge", "warm"]["stages_s"])
    assert {"start", "build", "check", "timing"} <= set(rows["conventional", "alone"]["stages_s"])
    assert [a["agree"] for a in found["agreement"]] == [True]
    assert {ratio["ours"] for ratio in found["ratios"]} == {"tvm-ffi, cold", "tvm-ffi, warm"}
    assert all({"start", "build", "judging", "evaluation"} <= set(ratio) for ratio in found["ratios"])
    assert found["machine"]["versions"]["torch"] in text
    assert found["command"] == "python benchmarks/harness.py --device cpu --out DIR --quick"


def test_runs_in_flight_share_one_evaluator(tmp_path: Path) -> None:
    arguments = ("--runs", "1", "2", "--seconds", "0.1", "--latency-s", "0.1", "--tasks", "1")
    found, text = run("throughput.py", *arguments, out=tmp_path)
    assert [level["runs"] for level in found["levels"]] == [1, 2]
    for level in found["levels"]:
        assert level["evaluations"] >= 1
        assert set(level["verdicts"]) == {"PASSED"}
        assert 0 <= level["idle"] + level["others"] <= 1
        assert not any(answer["stages_s"]["build"] == 0 for answer in level["answers"])
    assert "runs in flight" in text


def test_the_viewers_paints_are_measured_in_the_browser(tmp_path: Path) -> None:
    if shutil.which("chromium") is None and os.environ.get("CI") != "true":
        pytest.skip("chromium is not here: apt-get install chromium")
    found, text = run("viewer.py", "--quick", out=tmp_path, device="")
    for page in found["pages"]:
        assert 0 < page["first_byte_ms"] < page["painted_ms"] and page["requests"] > 1
        assert len(page["loads"]) == found["settings"]["loads"]
    assert "run of 20 rounds" in text and found["machine"]["versions"]["chromium"] in text


def test_the_service_delivers_all_and_loses_nothing(tmp_path: Path) -> None:
    found, text = run("service.py", "--quick", out=tmp_path, device="")
    assert len(found["events"]) == 2
    for level in found["events"]:
        assert level["delivered"] == level["expected"] > 0
        assert level["twice"] == level["out of order"] == level["broken"] == 0
        assert level["delivery"]["p95"] > 0
    assert {entry["list"]: entry["items"] for entry in found["lists"]}["first page"] == 50
    assert [level["clients"] for level in found["submissions"]] == [1, 8]
    assert found["stored"]["stored"] == found["stored"]["submitted"] > 0
    assert found["exit"]["code"] == 0
    assert not found["log"]
    assert min(found["mib"].values()) > 0
    assert found["machine"]["versions"]["uvicorn"] in text
