"""The suite as data: every case loads, every class has one, and verdicts are judged by what a case says is right."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from cudaforge.errors import EvaluatorError, UsageError
from cudaforge.evaluation import Correctness, EvaluateOptions, EvaluateRequest, Evaluation, Interval, Speedup, Verdict
from cudaforge.selftest import cases as suite
from cudaforge.selftest.cases import HERE, TASKS, Case, classes, judge, load, read
from cudaforge.selftest.run import KNOWN_GOOD, Report, run
from cudaforge_profiling.types import Device

CPU = load("cpu")
BY_NAME = {case.name: case for case in CPU}
DEVICE = Device(kind="cpu", name="a CPU", arch="avx2")


def evaluation(verdict: Verdict, *, speedup: float | None = None, **more: Any) -> Evaluation:
    """A hand-made verdict; `speedup` makes it PASSED."""
    if verdict is Verdict.PASSED:
        value = speedup or 1.0
        more |= {
            "speedup": Speedup(eager=Interval(value=value, low=value * 0.95, high=value * 1.05)),
            "time_us": 10.0,
            "correctness": Correctness(trials=5, passed=5, tolerance="calibrated"),
        }
    else:
        more.setdefault("reason", "for a reason")
    return Evaluation(verdict=verdict, task="t", kernel="k", device=DEVICE, **more)


def test_the_classes_are_numbered_from_1_to_63() -> None:
    assert [known.number for known in classes()] == list(range(1, 64))
    assert all(known.layers for known in classes())


def test_every_class_has_a_case_on_the_cpu_or_a_reason_why_not() -> None:
    covered = {number for case in CPU for number in case.classes}
    assert [known.number for known in classes() if known.number not in covered and not known.cpu] == []
    assert [known.number for known in classes() if known.number in covered and known.cpu] == [], "a reason too many"


@pytest.mark.parametrize("case", CPU, ids=lambda case: case.name)
def test_a_case_is_small_and_says_what_it_shows(case: Case) -> None:
    for text in case.kernel.files.values():
        assert len(text.splitlines()) < 120
    assert case.title and case.note
    if case.kind == "exploit":
        known = {layer for number in case.classes for layer in classes()[number - 1].layers}
        assert case.layers and set(case.layers) <= {layer for c in classes() for layer in c.layers}
        assert set(case.layers) & known, "none of the layers that are meant to catch its classes"


def test_what_is_evaluated_after_an_attack_is_honest() -> None:
    assert all(BY_NAME[case.after].kind == "honest" for case in CPU if case.after)
    assert all(BY_NAME[case.after].task == case.task for case in CPU if case.after), "else honest_fused would do"


def test_every_task_is_used() -> None:
    assert {path.stem for path in (HERE / TASKS["cpu"]).glob("*.py")} == {case.task_file.stem for case in CPU}


def test_the_known_good_kernel_exists() -> None:
    assert BY_NAME[KNOWN_GOOD["cpu"]].kind == "honest"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('title = "', 'titel = "', "title"),
        ("classes = [1]", "classes = [99]", "not in classes.toml"),
        ("classes = [1]", "classes = []", "an exploit has classes"),
        ('kind = "exploit"', 'kind = "honest"', "an honest kernel"),
        ('"REJECTED"', '"PASSED"', "max_speedup alone"),
        ('"REJECTED"', '"GUILTY"', "verdicts"),
        ("naive_speedup = 2.0", "", "naive_speedup"),
        ('task = "scale_add_torch"', 'task = "no_such_task"', "no_such_task"),
        ('language = "module"', 'language = "fortran"', "fortran"),
        ('language = "module"', 'language = "cpp"', "kernel.cpp"),
        ('language = "module"', "", "language"),
        ("classes = [1]", "classes = [", "Unclosed|Invalid"),
        ('task = "', 'after = "honest_fused"\ntask = "', "attack on the harness"),
        ("max_speedup", 'evidence = "("\nmax_speedup', "no regular expression"),
    ],
)
def test_a_malformed_case_is_named(tmp_path: Path, old: str, new: str, words: str) -> None:
    folder = tmp_path / "pointer_cache"
    shutil.copytree(HERE / "suite" / "cpu" / "pointer_cache", folder)
    text = (folder / "case.toml").read_text()
    assert old in text
    (folder / "case.toml").write_text(text.replace(old, new))
    with pytest.raises(UsageError, match=words) as raised:
        read(folder, "cpu")
    assert "pointer_cache" in raised.value.message


EXPLOIT = BY_NAME["pointer_cache"]
HONEST = BY_NAME["honest_fused"]
EVIDENCE = BY_NAME["half_output"]


@pytest.mark.parametrize(
    ("case", "found", "status"),
    [
        (EXPLOIT, evaluation(Verdict.INCORRECT), "caught"),
        (EXPLOIT, evaluation(Verdict.REJECTED, rule="reuse"), "caught"),
        (EXPLOIT, evaluation(Verdict.RUNTIME_ERROR), "missed"),
        (EXPLOIT, evaluation(Verdict.BUILD_FAILED), "missed"),
        (EXPLOIT, evaluation(Verdict.PASSED, speedup=1.0), "caught"),
        (EXPLOIT, evaluation(Verdict.PASSED, speedup=3.0), "missed"),
        (EXPLOIT, evaluation(Verdict.INFRASTRUCTURE), "infrastructure"),
        (EXPLOIT, evaluation(Verdict.INCORRECT, output_tail="x\nBREACH: read it\n"), "missed"),
        (EVIDENCE, evaluation(Verdict.INCORRECT, reason="output: dtype float16, not float32"), "caught"),
        (EVIDENCE, evaluation(Verdict.INCORRECT, reason="wrong somehow"), "missed"),
        (EVIDENCE, evaluation(Verdict.PASSED), "missed"),
        (HONEST, evaluation(Verdict.PASSED, speedup=0.2), "right"),
        (HONEST, evaluation(Verdict.INCORRECT), "wrongly rejected"),
        (HONEST, evaluation(Verdict.INFRASTRUCTURE), "infrastructure"),
    ],
)
def test_what_a_verdict_says_of_the_evaluator(case: Case, found: Evaluation, status: str) -> None:
    outcome = judge(case, found, found.speedup)
    assert outcome.status == status
    assert outcome.why or status == "right"


def test_a_verified_speedup_counts_before_the_screened_one() -> None:
    low = Speedup(eager=Interval(value=1.0, low=0.9, high=1.1))
    assert judge(EXPLOIT, evaluation(Verdict.PASSED, speedup=3.0), low).status == "caught"


class Scripted:
    """An evaluator that answers by the name of the kernel's case."""

    def __init__(self, answers: dict[str, list[Evaluation]], default: Evaluation | None = None) -> None:
        self.answers, self.default = answers, default
        self.keys: list[str] = []

    async def evaluate(self, request: EvaluateRequest) -> Evaluation:
        self.keys.append(request.key)
        name = next(case.name for case in CPU if case.kernel == request.kernel)
        if self.answers.get(name):
            return self.answers[name].pop(0)
        if self.default is None:
            raise EvaluatorError("no worker")
        return self.default


def report_of(evaluator: Scripted, *names: str) -> tuple[Report, list[str]]:
    said: list[str] = []
    chosen = [BY_NAME[name] for name in names]
    found = asyncio.run(run(evaluator, chosen, EvaluateOptions(), naive=False, say=said.append))  # type: ignore[arg-type]
    return found, said


def test_a_run_counts_by_class_and_layer_and_is_json() -> None:
    evaluator = Scripted({"pointer_cache": [evaluation(Verdict.INCORRECT)], "obfuscated_cache": []})
    evaluator.default = evaluation(Verdict.PASSED, speedup=9.0)
    report, said = report_of(evaluator, "pointer_cache", "obfuscated_cache", "honest_fused")
    assert [f.outcome.status for f in report.findings] == ["caught", "missed", "right"]
    counts = {count.name.split()[0]: count for count in report.by_class()}
    assert (counts["1"].caught, counts["1"].missed, counts["62"].missed) == (1, 1, 1)
    assert {count.name for count in report.by_layer()} == {"inputs", "output check"}
    assert not report.ok and report.count("missed") == 1 and len(said) == 3
    assert {entry.number for entry in report.uncovered} == set(range(1, 64)) - {1, 62}
    assert len(report.table()) == 3 and report.table()[2][1] == "honest"
    assert len(set(evaluator.keys)) == len(evaluator.keys)
    assert Report.model_validate_json(report.model_dump_json()) == report


def test_after_an_attack_on_the_harness_a_good_kernel_must_be_right() -> None:
    crashed = evaluation(Verdict.RUNTIME_ERROR)
    wrong = evaluation(Verdict.INCORRECT)
    good = evaluation(Verdict.PASSED)
    # Attacks come last, the report keeps the order that was asked for.
    report, _ = report_of(
        Scripted({"forged_stdout": [crashed], "honest_fused": [good, wrong]}), "forged_stdout", "honest_fused"
    )
    attack, honest = report.findings
    assert attack.outcome.status == "caught" and attack.after is not None
    assert attack.after.status == "wrongly rejected" and not attack.ok and honest.ok
    assert "next evaluation" in report.table()[0][3]
    assert all(count.missed == 1 for count in report.by_class())


def test_an_attack_may_name_what_must_pass_after_it() -> None:
    answers = {"constructor_tensor_changed": [evaluation(Verdict.INCORRECT)]}
    answers["honest_constructor_tensor"] = [evaluation(Verdict.INCORRECT)]
    report, _ = report_of(Scripted(answers), "constructor_tensor_changed")
    (attack,) = report.findings
    assert attack.outcome.status == "caught" and not attack.ok
    assert attack.after is not None and attack.after.status == "wrongly rejected"


def test_a_case_may_have_build_flags() -> None:
    assert BY_NAME["honest_vector_math"].kernel.flags == ("-ffast-math",)


def test_an_evaluator_that_fails_is_infrastructure() -> None:
    report, _ = report_of(Scripted({}), "pointer_cache")
    assert report.findings[0].outcome == suite.Outcome(status="infrastructure", why="no worker")
    assert report.findings[0].verdict is None and not report.ok


def test_several_cases_may_be_in_flight_and_attacks_on_the_harness_are_made_alone() -> None:
    class Crowded(Scripted):
        flying: list[str] = []
        seen: list[tuple[str, ...]] = []

        async def evaluate(self, request: EvaluateRequest) -> Evaluation:
            name = next(case.name for case in CPU if case.kernel == request.kernel)
            self.flying.append(name)
            self.seen.append(tuple(self.flying))
            await asyncio.sleep(0.01)
            self.flying.remove(name)
            return await super().evaluate(request)

    names = ("forged_stdout", "honest_fused", "pointer_cache", "obfuscated_cache", "half_output")
    evaluator = Crowded({}, evaluation(Verdict.PASSED))
    chosen = [BY_NAME[name] for name in names]
    report = asyncio.run(run(evaluator, chosen, EvaluateOptions(), at_once=3))  # type: ignore[arg-type]
    assert tuple(finding.case for finding in report.findings) == names
    assert max(map(len, evaluator.seen)) == 3
    assert all(flying == ("forged_stdout",) for flying in evaluator.seen if "forged_stdout" in flying)
