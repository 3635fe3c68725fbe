"""What a session says of baselines that were slowed down, on numbers made by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cudaforge.engine import supervisor
from cudaforge.engine.hosts import CandidateFailed
from cudaforge.engine.session import Session


def session(us: dict[str, float], kind: str = "gate", *, gpu: bool = True) -> Session:
    """Seven batches of each side around so many microseconds a call."""
    made = Session.__new__(Session)
    reference: Any = SimpleNamespace(gpu=gpu)
    made.reference = reference
    benches: Any = {
        name: SimpleNamespace(
            kind=kind, candidate=object() if name == "kernel" else None, samples_us=[each + 0.01 * i for i in range(7)]
        )
        for name, each in us.items()
    }
    made.benches = benches
    return made


def medians(of: Session) -> dict[str, float]:
    return {name: round(sorted(bench.samples_us)[3], 1) for name, bench in of.benches.items()}


BESIDE = {"kernel": 10.0, "eager": 21.0, "control": 21.0, "compile": 15.75}


def test_a_little_slower_beside_the_kernel_does_not_count() -> None:
    found = session(BESIDE)
    told = supervisor._slowed(found, session({"eager": 20.0}))
    assert told == "eager is 1.05 times slower beside this kernel than without it: what it takes without it counts"
    assert medians(found) == {"kernel": 10.0, "eager": 20.0, "control": 20.0, "compile": 15.0}


def test_much_slower_behind_the_gate_is_the_kernels_doing() -> None:
    with pytest.raises(CandidateFailed, match=r"eager is 1\.5\d times slower beside this kernel"):
        supervisor._slowed(session(BESIDE), session({"eager": 13.7}))


def test_faster_or_alike_is_left_as_it_is() -> None:
    for before in (20.9, 25.0):
        found = session(BESIDE)
        assert supervisor._slowed(found, session({"eager": before})) == ""
        assert medians(found) == {name: round(us, 1) + 0.0 for name, us in medians(session(BESIDE)).items()}


def test_a_kernel_that_chose_the_hosts_clock_is_compared_with_eager_by_that_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It waits on the host, so that eager before it was timed otherwise; what it does to eager gains nothing then."""
    asked: dict[str, Any] = {}

    def alone(reference: Any, *, batches: int, waits: bool) -> Session:
        asked.update(batches=batches, waits=waits)
        return session({"eager": 10.5}, "host")

    monkeypatch.setattr(supervisor, "alone", alone)
    found = session(BESIDE, "host")
    told = supervisor._slowed(found, session({"eager": 21.0}, "gate"))
    assert asked == {"batches": supervisor.ALONE_BATCHES, "waits": True}
    assert told.startswith("eager is 2.00 times slower") and medians(found)["eager"] == 10.5


def test_on_the_cpu_the_numbers_cannot_be_relied_on() -> None:
    found = session(BESIDE, "cpu", gpu=False)
    assert supervisor._slowed(found, session({"eager": 15.0}, "cpu", gpu=False)) == ""
    assert supervisor._slowed(found, session({"eager": 10.0}, "cpu", gpu=False)) == (
        "eager is 2.10 times slower beside this kernel than without it"
    )
    assert medians(found)["eager"] == medians(session(BESIDE))["eager"]
