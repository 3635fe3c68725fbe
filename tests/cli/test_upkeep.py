"""`evaluator`, `pack`, `gc`, `doctor`."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.scripted import kernel_reply

from cudaforge.cli.doctor import ESSENTIAL, isolation
from cudaforge.errors import ExitCode
from cudaforge.shapes import DoctorOutput, EvaluatorOutput, GcOutput, PackOutput


def test_an_empty_spool_is_drained_at_once(cli_json: Callable[..., Any], tmp_path: Path) -> None:
    found = EvaluatorOutput.model_validate(
        cli_json("evaluator", "--spool", tmp_path / "spool", "--drain", "--device", "cpu")
    )
    assert found.drained and found.spool == str(tmp_path / "spool")


def test_the_evaluator_command_runs_without_the_libraries_of_the_run(tmp_path: Path) -> None:
    """As on an evaluator host: these packages cannot be imported there."""
    code = (
        "import sys\n"
        "absent = 'langgraph langchain_core openai sqlmodel sqlalchemy alembic fastapi jinja2 genai_prices pandas'\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in absent.split():\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        f"sys.argv = ['cudaforge', 'evaluator', '--spool', {str(tmp_path / 'spool')!r}, '--drain', '--device', 'cpu']\n"
        "from cudaforge.cli import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr


def test_a_device_that_is_none_is_a_usage_error(cli: Callable[..., Any], tmp_path: Path) -> None:
    result = cli("evaluator", "--spool", tmp_path / "spool", "--drain", "--device", "tpu")
    assert result.exit_code == ExitCode.USAGE and "names no device" in result.stderr


def test_a_packed_home_is_a_home(
    cli: Callable[..., Any],
    cli_json: Callable[..., Any],
    task_file: Path,
    recording: Callable[..., str],
    spool: str,
    tmp_path: Path,
) -> None:
    assert cli("pack").exit_code == ExitCode.USAGE  # nothing to pack yet
    arguments = ["optimize", task_file, "--coder", recording([kernel_reply("time_us=50")]), "--language", "module"]
    run = cli_json(*arguments, "--rounds", 1, "--evaluator", spool)

    packed = PackOutput.model_validate(cli_json("pack", "--output", tmp_path / "home.tar.gz"))
    assert packed.runs == 1 and not packed.missing
    with tarfile.open(tmp_path / "home.tar.gz") as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    shown = cli_json("show", "last", "--home", tmp_path / "unpacked" / "home")
    assert shown["id"] == run["id"] and shown["speedup"] == run["speedup"]
    assert cli("pack").exit_code == ExitCode.OK
    assert list(Path.cwd().glob("cudaforge-*.tar.gz"))


def test_gc_says_what_it_freed(cli: Callable[..., Any], cli_json: Callable[..., Any]) -> None:
    assert GcOutput.model_validate(cli_json("gc", "--dry-run")) == GcOutput(
        dry_run=True, reports=0, builds=0, leftovers=0, bytes=0
    )
    assert "freed 0 B" in cli("gc", "--older-than", 0).stdout
    assert cli("gc", "--older-than", -1).exit_code == ExitCode.USAGE


def test_doctor_looks_at_everything_and_never_shows_a_key(
    cli: Callable[..., Any], cli_json: Callable[..., Any], monkeypatch: Any
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://me:pass@127.0.0.1/v1?token=t")
    found = DoctorOutput.model_validate(cli_json("doctor"))

    names = [check.name for check in found.checks]
    assert set(ESSENTIAL) < set(names) and found.ready
    assert {"nvcc", "GPU", "ncu", "compute-sanitizer", "isolation", "model access"} <= set(names)
    assert all(check.hint for check in found.checks if check.status != "ok")
    text = cli("doctor").output
    assert "with a key" in text
    for secret in ("sk-secret", "pass", "token"):
        assert secret not in text


def test_doctor_gives_each_missing_layer_a_line_and_says_what_to_do() -> None:
    layers = (
        "scrubbed environment",
        "no user namespace: unshare: Operation not permitted",
        "no own pid namespace: unshare: Operation not permitted",
        "no Landlock: landlock_create_ruleset: Function not implemented",
        "no system call filter: seccomp: Invalid argument",
        "no own user: /root/python: closed to user 61001",
        "no something new: because",
    )
    present, *missing = isolation(layers)
    assert (present.status, present.detail) == ("ok", "scrubbed environment")
    assert [(check.name, check.status, check.detail) for check in missing] == [
        ("isolation", "warn", layer) for layer in layers[1:]
    ]
    for check, words in zip(
        missing, ("AppArmor", "As above.", "lsm=", "aarch64", "root's home", "others"), strict=True
    ):
        assert words in check.hint
    assert [check.status for check in isolation(("own user (uid 61001)",))] == ["ok"]


def test_doctor_fails_where_not_even_a_cpp_run_can_work(cli_json: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = cli_json("doctor", "--home", tmp_path / "file" / "home", exit_code=ExitCode.INFRASTRUCTURE)
    assert [c["name"] for c in found["checks"] if c["status"] == "missing" and c["name"] in ESSENTIAL] == ["home"]
