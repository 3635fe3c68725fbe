"""Children: forked from the zygote into a cage, spoken to, stopped, and ended whole."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cudaforge.engine import confine, frozen
from cudaforge.engine.sandbox import LIVE, Child, ChildDied, ChildError, Zygote, environment, isolation


@pytest.fixture
def child() -> Iterator[Child]:
    with Child("candidate") as made:
        made.started(60)
        yield made


def test_a_forked_child_is_in_its_cage_at_once_and_says_which_layers_hold(child: Child) -> None:
    assert Zygote.shared().threads == 1
    assert set(confine.missing(child.layers)) <= set(confine.missing(isolation()))
    assert any("system call filter" in layer for layer in child.layers)
    started = time.monotonic()
    with Child("candidate") as second:
        second.started(60)
        assert second.pid != child.pid
    assert time.monotonic() - started < 3, "torch is imported already"


def test_what_it_raises_is_an_answer_and_it_lives_on(child: Child) -> None:
    with pytest.raises(ChildError, match="KeyError"):
        child.ask({"do": "no such thing"}, 20)
    with pytest.raises(ChildError):
        child.ask({"do": "outputs", "what": "nothing"}, 20)
    assert child.alive


def test_a_child_that_is_killed_is_told_by_its_signal(child: Child) -> None:
    os.kill(child.pid, 9)
    with pytest.raises(ChildDied, match="SIGKILL"):
        child.ask({"do": "outputs", "what": "nothing"}, 20)
    assert not child.alive


def test_a_stopped_child_stands_still_until_it_is_asked(child: Child) -> None:
    child.stop()
    assert set(frozen._states(child.pid)) <= {"T", "t"}
    before = frozen.cpu_seconds(child.pid)
    time.sleep(0.05)
    assert frozen.cpu_seconds(child.pid) == before
    with pytest.raises(ChildError):
        child.ask({"do": "no such thing"}, 20)


def test_whoever_waits_for_a_stop_leaves_the_cores_to_those_who_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter(["R", "R", "T"])
    naps: list[float] = []
    monkeypatch.setattr(frozen.os, "kill", lambda pid, number: None)
    monkeypatch.setattr(frozen, "_states", lambda pid: [next(looks)])
    monkeypatch.setattr(frozen.time, "sleep", naps.append)
    assert frozen.stop(1)
    assert naps == [frozen.POLL_S] * 2


def test_placing_threads_is_no_part_of_what_is_timed(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    placed: list[float] = []
    monkeypatch.setattr(frozen.os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr(frozen, "_set_cores", lambda thread, cores: placed.append(time.perf_counter()))
    child.stop()
    started = child.go_on(spread=True)
    assert placed[0] < started < placed[-1]


def test_a_stopped_child_that_ran_nevertheless_is_noticed(child: Child) -> None:
    child.watched = True
    with pytest.raises(ChildError):
        child.ask({"do": "no such thing"}, 20)
    for woken in (False, True):
        child.stop()
        if woken:
            os.kill(child.pid, signal.SIGCONT)
            time.sleep(0.02)
            for _ in range(20):  # it has a word to say each time
                child.post({"do": "no such thing"})
            time.sleep(0.2)
        child.go_on()
        assert child.woken is woken


def test_closing_leaves_no_process_and_no_scratch() -> None:
    with Child("candidate") as made:
        made.started(60)
        pid, scratch = made.pid, made.scratch
    assert made not in LIVE and not Path(f"/proc/{pid}").exists() and not scratch.exists()


def test_memory_of_a_stopped_process_is_read_from_outside() -> None:
    values = torch.arange(1000, dtype=torch.float64)
    pid = os.fork()
    if pid == 0:  # holds a copy of `values` at the same address
        time.sleep(30)
        os._exit(0)
    try:
        assert frozen.stop(pid)
        into = torch.empty_like(values)
        frozen.read(pid, values.data_ptr(), into)
        assert torch.equal(into, values)
        with pytest.raises(OSError, match="cannot be read"):
            frozen.read(pid, 8, into)
        assert frozen.mapped_files(pid)
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def test_the_environment_of_a_child_is_made_of_an_allow_list(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("https_proxy", "http://proxy")
    found = environment(tmp_path)
    assert found["HOME"] == str(tmp_path)
    assert not [key for key in found if "KEY" in key or "proxy" in key.lower()]
