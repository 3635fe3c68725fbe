"""What is said of a run that has ended, over stored runs."""

from __future__ import annotations

from support.memory_store import MemoryStore
from support.records import evaluation, outcome, run, verification

from cudaforge.cli.report import conclusion
from cudaforge.evaluation import Interval, Speedup, Verification
from cudaforge.trace import Outcome, RunState


def said(verified: Verification, ended: Outcome) -> str:
    store = MemoryStore()
    found = run(state=RunState.DONE, outcome=ended)
    store.create_run(found)
    assert ended.verification
    store.save_result(found.id, ended.verification, verified)
    return "\n".join(line for line, _ in conclusion(store, found))


def verified(eager: Interval, control: Interval, note: str = "") -> Verification:
    timed = evaluation().model_copy(update={"speedup": Speedup(eager=eager), "share_of_floor": 1.15})
    return verification().model_copy(update={"evaluation": timed, "aa": control, "note": note})


NO_WIN = outcome().model_copy(update={"win": False, "best": None, "kernel": None, "speedup": None})
QUIET = Interval(value=1.0, low=0.99, high=1.01)


def test_no_win_says_which_noise_the_best_one_did_not_clear() -> None:
    noise = Interval(value=0.98, low=0.85, high=1.10)
    text = said(verified(Interval(value=1.22, low=1.05, high=1.47), noise, "a tie"), NO_WIN)
    assert "The best one measured 1.22x [1.05, 1.47] over eager: a tie." in text
    assert "The reference against itself measured 0.85x to 1.10x." in text
    assert "Warning" not in text


def test_no_win_of_a_slower_kernel_says_so() -> None:
    text = said(verified(Interval(value=0.5, low=0.48, high=0.52), QUIET, "a tie"), NO_WIN)
    assert "0.50x [0.48, 0.52] over eager: slower." in text and "tie" not in text


def test_a_control_that_is_off_for_certain_is_a_warning_even_beside_a_win() -> None:
    for drift in (Interval(value=1.1, low=1.06, high=1.2), Interval(value=0.9, low=0.8, high=0.94)):
        for ended in (outcome(), NO_WIN):
            assert "too noisy to trust" in said(verified(Interval(value=2, low=1.9, high=2.1), drift), ended)
    assert "too noisy" not in said(verified(Interval(value=2, low=1.9, high=2.1), QUIET), outcome())


def test_a_win_is_told_with_the_eager_time_beside_it_and_its_distance_to_the_floor() -> None:
    text = said(verified(Interval(value=2.5, low=2.4, high=2.6), QUIET), outcome())
    assert "10 µs a call, eager beside it 10 µs" in text
    assert "0.87x the floor's time, an estimate" in text and "%" not in text.split("in brackets")[0]
