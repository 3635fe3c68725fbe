"""One round, as its page shows it; each tab reads what it shows and no more."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from cudaforge import words
from cudaforge.describe import attempt_output, call_output, diff
from cudaforge.evaluation import Baseline, Diagnostic, Evaluation, OutputError, Verification, WorkloadTiming
from cudaforge.kernel import Kernel
from cudaforge.profile_words import find_metric, number
from cudaforge.shapes import AttemptOutput, CallOutput
from cudaforge.trace import Attempt, Evidence, Run
from cudaforge_api.viewer import islands
from cudaforge_api.viewer.profiles import ProfileView, profile_view
from cudaforge_api.viewer.run import UNDER_WAY
from cudaforge_profiling.types import HotLine, Profile, Remark

if TYPE_CHECKING:
    from cudaforge.store.sqlite import SqliteStore

Tab = Literal["plan", "diff", "correctness", "profile", "timing", "messages"]
TABS: tuple[Tab, ...] = get_args(Tab)
SCALES = (1.0, 1e3, 1e6, 1e9, 1e12, 2.0**10, 2.0**20, 2.0**30)
"""Of a cited number: ns, GB/s and MiB are written without their factor."""
NUMBERS = re.compile(r"-?\d[\d,]*\.?\d*(?:e[+-]?\d+)?")
NEAR = 0.02
"""How far a number that a Judge cites may be from the counter before it counts as wrong: it is free to round."""


@dataclass(frozen=True)
class Cited:
    """One piece of evidence, and whether the profile that the Judge saw bears it out."""

    evidence: Evidence
    standing: Literal["right", "wrong", "unknown"]
    said: str
    """What the profile has; or why it cannot be checked."""


@dataclass(frozen=True)
class FileDiff:
    """One file of the kernel against the other round's."""

    name: str
    island: islands.Diff
    unified: list[tuple[str, str]]
    """Lines for a page without scripts, each with its class: a added, d deleted, h header, c the rest."""


@dataclass(frozen=True)
class Timed:
    """One workload's times."""

    timing: WorkloadTiming
    strip: islands.Strip
    rows: list[tuple[str, float, float, float, int]]
    """Name, median, low, high, samples; microseconds."""
    attribution: str


@dataclass
class RoundPage:
    """All of it; what belongs to another tab is empty."""

    run: Run
    attempt: AttemptOutput
    tab: Tab
    parent: AttemptOutput | None
    rounds: list[tuple[int, bool]]
    """All rounds, and whether they have a kernel."""
    evaluation: Evaluation | None
    kernel: Kernel | None
    profile: Profile | None
    failed: bool
    last_event: int
    against: int | None = None
    cited: list[Cited] | None = None
    files: list[FileDiff] | None = None
    why_no_diff: str = ""
    correctness: list[str] | None = None
    errors: islands.Errors | None = None
    shown_profile: ProfileView | None = None
    timed: list[Timed] | None = None
    verification: Verification | None = None
    calls: list[CallOutput] | None = None
    has_report: bool = False

    @property
    def url(self) -> str:
        return f"/runs/{self.run.id}/rounds/{self.attempt.round}"

    @property
    def under_way(self) -> bool:
        """Whether the run can still go on by itself."""
        return self.run.state in UNDER_WAY

    @property
    def number(self) -> int:
        return self.attempt.round

    def neighbour(self, step: int) -> int | None:
        """The round before or after this one."""
        numbers = [number for number, _ in self.rounds]
        at = numbers.index(self.number) + step
        return numbers[at] if 0 <= at < len(numbers) else None

    @property
    def why_not_timed(self) -> str:
        """Why there are no times."""
        if self.evaluation is None:
            return self.why_no_evaluation
        return f"only a kernel that passes is timed, and this one is {self.evaluation.verdict.value}"

    @property
    def why_no_evaluation(self) -> str:
        """Why nothing was found out."""
        if self.failed:
            return "the reply held no kernel that could be read, so there was nothing to build"
        if self.attempt.withdrawn:
            return "it was taken back before it was evaluated"
        if self.kernel is None:
            return "the kernel is not written yet"
        return "the evaluation has not ended yet"

    @property
    def why_no_profile(self) -> str:
        """Why there is none."""
        if self.evaluation is None:
            return self.why_no_evaluation
        if not self.evaluation.passed:
            return f"only a kernel that passes is profiled, and this one is {self.evaluation.verdict.value}"
        return "a kernel is profiled when the next round is made from it, and none was made from this one"


def round_page(
    record: SqliteStore, run: Run, attempt: Attempt, tab: Tab, against: int | None = None, last_event: int = 0
) -> RoundPage:
    """The page of a round, with one of its tabs. `last_event`: the run's newest before it was read."""
    attempts = {a.round: a for a in record.attempts(run.id)}
    parent = next((a for a in attempts.values() if a.id == attempt.base), None)
    evaluation = record.result(attempt.evaluation) if attempt.evaluation else None
    page = RoundPage(
        run=run,
        attempt=attempt_output(attempt),
        tab=tab,
        parent=attempt_output(parent) if parent else None,
        rounds=[(a.round, a.kernel is not None) for a in attempts.values()],
        evaluation=evaluation if isinstance(evaluation, Evaluation) else None,
        kernel=record.kernel(attempt.kernel) if attempt.kernel else None,
        profile=_profile(record, attempt),
        failed=attempt.verdict is None and bool(attempt.reply_error),
        last_event=last_event,
    )
    before = _profile(record, parent) if parent else None
    match tab:
        case "plan":
            page.cited = (
                [cite(evidence, before) for evidence in page.attempt.plan.evidence] if page.attempt.plan else []
            )
        case "diff":
            other = attempts.get(against) if against is not None else parent
            _fill_diff(record, page, other, _profile(record, other) if other else None)
        case "correctness":
            if page.evaluation and (found := page.evaluation.correctness):
                page.correctness = words.correctness(found, words.failed_workload(page.evaluation.reason))
                baseline = record.result(f"{run.id}/baseline/0")
                outputs = baseline.workloads[0].outputs if isinstance(baseline, Baseline) else ()
                page.errors = errors(found.errors, outputs) if found.errors else None
        case "profile":
            if page.profile:
                titles = f"round {attempt.round}", f"round {parent.round}" if parent else ""
                page.shown_profile = profile_view(page.profile, before, *titles)
                page.has_report = bool(attempt.profile and record.report(attempt.profile))
        case "timing":
            verified = record.result(f"{attempt.id}/verify/0")
            page.verification = verified if isinstance(verified, Verification) else None
            page.timed = [_timed(timing, page.verification) for timing in _workloads(page)]
        case "messages":
            page.calls = [call_output(call) for call in record.calls(run.id, attempt.id)]
    return page


def _profile(record: SqliteStore, attempt: Attempt) -> Profile | None:
    found = record.result(attempt.profile) if attempt.profile else None
    return found if isinstance(found, Profile) else None


# -- plan ----------------------------------------------------------------------------------------------------------


def cite(evidence: Evidence, profile: Profile | None) -> Cited:
    """Looks a cited number up in the profile that the Judge was shown: a counter by its name, or a line's stalls."""
    if profile is None:
        return Cited(evidence, "unknown", "there is no profile to look it up in")
    name = evidence.metric.strip()
    found = [(float(m.value), m.unit) for m in find_metric(profile, name) if not isinstance(m.value, str)]
    if not found and (place := re.search(r"([\w.\-]{1,100}):(\d{1,9})(?!\d)", name[:300])):
        hot = [h for h in profile.hot_lines if h.file == place[1] and h.line == int(place[2])]
        found = [(100 * h.share, "% of stalls") for h in hot]
    if not found:
        return Cited(evidence, "unknown", "no counter of this profile")
    said = words.one_line(", ".join(f"{number(value)} {unit}".strip() for value, unit in found[:3]), 120)
    cited = [float(text.replace(",", "")) for text in NUMBERS.findall(evidence.value)]
    if not cited:
        return Cited(evidence, "unknown", f"it is {said}")
    right = any(
        math.isclose(each * scale, value, rel_tol=NEAR, abs_tol=1e-9)
        for value, unit in found
        for each in cited
        for scale in ((1.0,) if "%" in unit else SCALES)
    )
    return Cited(evidence, "right" if right else "wrong", said)


# -- diff ----------------------------------------------------------------------------------------------------------


def _fill_diff(record: SqliteStore, page: RoundPage, other: Attempt | None, profile: Profile | None) -> None:
    if page.kernel is None:
        page.why_no_diff = page.why_no_evaluation
        return
    left = record.kernel(other.kernel) if other and other.kernel else None
    page.against = other.round if other and left else None
    found = record.result(other.evaluation) if other and other.evaluation else None
    evaluation = found if isinstance(found, Evaluation) else None
    page.files = []
    for name in page.kernel.language.file_names:
        marks = _marks("left", name, evaluation, profile) if left else []
        marks += _marks("right", name, page.evaluation, page.profile)
        titles = f"#{page.against} {name}", f"#{page.number} {name}"
        page.files.append(file_diff(name, page.kernel, left, *titles, marks))


def file_diff(
    name: str, kernel: Kernel, other: Kernel | None, left_title: str, title: str, marks: list[islands.Mark]
) -> FileDiff:
    """One file of `kernel`, against `other`'s where there is one."""
    after, before = kernel.files[name], other.files.get(name, "") if other else ""
    language: Literal["cuda", "cpp", "python"] = "python"
    if not name.endswith(".py"):
        language = "cuda" if name.endswith(".cu") else "cpp"
    return FileDiff(
        name=name,
        island=islands.Diff(
            left=islands.DiffSide(title=left_title if other else "", text=before),
            right=islands.DiffSide(title=title, text=after),
            language=language,
            marks=tuple(marks),
        ),
        unified=_unified(kernel, other, name) if other else [("c", line) for line in after.splitlines()],
    )


def _unified(kernel: Kernel, left: Kernel, name: str) -> list[tuple[str, str]]:
    ours = kernel.model_copy(update={"files": {name: kernel.files[name]}})
    theirs = left.model_copy(update={"files": {name: left.files.get(name, "")}})
    kinds = {"+": "a", "-": "d", "@": "h"}
    return [
        ("h" if line.startswith(("---", "+++")) else kinds.get(line[:1], "c"), line)
        for line in diff(theirs, ours).splitlines()
    ]


def _marks(
    side: Literal["left", "right"], name: str, evaluation: Evaluation | None, profile: Profile | None
) -> list[islands.Mark]:
    """What compiler and profiler said of the lines of one file."""
    made: list[islands.Mark] = []
    diagnostics: tuple[Diagnostic, ...] = evaluation.diagnostics if evaluation else ()
    for said in diagnostics:
        if said.file == name and said.line > 0:
            kind: Literal["error", "warning", "remark"] = "remark" if said.severity == "note" else said.severity
            made.append(islands.Mark(side=side, line=said.line, kind=kind, text=said.message))
    remarks: tuple[Remark, ...] = profile.remarks if profile else ()
    if not remarks and evaluation and evaluation.build:
        remarks = evaluation.build.remarks
    for remark in remarks:
        if remark.file == name and remark.line > 0:
            text = f"{remark.kind}: {remark.message}"
            made.append(islands.Mark(side=side, line=remark.line, kind="remark", text=text))
    hot: tuple[HotLine, ...] = profile.hot_lines if profile else ()
    for line in hot:
        if line.file == name and line.line > 0:
            stalls = sorted(line.stalls.items(), key=lambda item: -item[1])[:3]
            text = ", ".join(f"{reason} {share:.0%}" for reason, share in stalls)
            made.append(islands.Mark(side=side, line=line.line, kind="hot", text=text, share=line.share))
    return made


# -- correctness, timing -------------------------------------------------------------------------------------------


def errors(found: tuple[OutputError, ...], outputs: tuple[str, ...]) -> islands.Errors:
    """The mismatching places. `outputs` are the shapes as the baseline recorded them: `float32[4096, 2048]`."""
    return islands.Errors(
        outputs=tuple(
            islands.OutputErrors(
                name=error.output,
                shape=_shape(error, outputs),
                mismatched=error.mismatched,
                total=error.total,
                pattern=error.pattern,
                places=tuple(
                    islands.Place(index=index, expected=expected, got=got) for index, expected, got in error.first
                ),
            )
            for error in found
        )
    )


def _shape(error: OutputError, outputs: tuple[str, ...]) -> tuple[int, ...] | None:
    """The output's shape, where one of the recorded ones has as many elements and dimensions."""
    shapes = [
        tuple(int(size) for size in re.findall(r"\d+", match[1]))
        for text in outputs
        if (match := re.search(r"\[([\d, ]*)\]$", text))
    ]
    index = int(error.output) if error.output.isdecimal() and len(error.output) < 4 else 0
    chosen = [*shapes[index : index + 1], *shapes]
    dims = len(error.first[0][0]) if error.first else None
    return next((s for s in chosen if math.prod(s) == error.total and (dims is None or len(s) == dims)), None)


def _workloads(page: RoundPage) -> tuple[WorkloadTiming, ...]:
    return page.evaluation.workloads if page.evaluation else ()


def _timed(timing: WorkloadTiming, verification: Verification | None) -> Timed:
    named: list[tuple[str, Literal["kernel", "eager", "compile"]]] = [("kernel", "kernel"), ("eager", "eager")]
    if timing.compile:
        named.append(("torch.compile", "compile"))
    series = []
    rows = []
    for name, kind in named:
        samples = {"kernel": timing.kernel, "eager": timing.eager, "compile": timing.compile}[kind]
        assert samples is not None
        series.append(
            islands.Series(
                name=name,
                kind=kind,
                samples=samples.samples_us,
                median=samples.median_us,
                low=samples.low_us,
                high=samples.high_us,
            )
        )
        rows.append((name, samples.median_us, samples.low_us, samples.high_us, len(samples.samples_us)))
    aa = verification.aa if verification else None
    noise = islands.Noise(low=aa.low, high=aa.high) if aa else None
    return Timed(
        timing=timing,
        strip=islands.Strip(series=tuple(series), noise=noise),
        rows=rows,
        attribution=words.attribution(timing.attribution) if timing.attribution else "",
    )
