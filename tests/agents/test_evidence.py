import ast
import re
from pathlib import Path

import pytest
from support.briefings import briefing, cpu_profile, failed, gpu_profile, kernel, passed, samples

from cudaforge.agents import judge
from cudaforge.agents.evidence import RULES, failure
from cudaforge.agents.measurements import profile_text
from cudaforge.evaluation import Correctness, Diagnostic, Interval, OutputError, Speedup, Verdict, WorkloadTiming
from cudaforge.kernel import Kernel, Language

CUDA = kernel(Language.CUDA)
CPP = kernel(Language.CPP)


def ptxas(message: str) -> Diagnostic:
    return Diagnostic(severity="error", message=message, tool="ptxas", file="kernel.ptx", line=1234)


def test_a_build_failure_reads_like_the_compiler_with_the_source_line() -> None:
    found = failure(failed(Verdict.BUILD_FAILED), CUDA)
    assert found.log == 'kernel.cu:7:3: error: identifier "foo" is undefined [nvcc]\n     7 |   foo(x);'
    assert found.hints == ()


def test_warnings_are_shown_where_there_is_no_error() -> None:
    warning = Diagnostic(severity="warning", message="unused", file="kernel.cu", line=1)
    assert "unused" in failure(failed(Verdict.RUNTIME_ERROR, diagnostics=(warning,)), CUDA).log


def test_many_errors_are_counted() -> None:
    many = tuple(Diagnostic(severity="error", message=f"e{n}") for n in range(50))
    log = failure(failed(Verdict.BUILD_FAILED, diagnostics=many), CUDA).log
    assert "e19" in log and "e20" not in log and log.endswith("... and 30 more")


def test_lines_of_ptxas_are_said_to_be_lines_of_ptx() -> None:
    found = failure(failed(Verdict.BUILD_FAILED, diagnostics=(ptxas("Unknown symbol 'x'"),)), CUDA)
    assert len(found.hints) == 1
    assert "a line of PTX, not of your file" in found.hints[0]


def test_a_register_failure_comes_with_the_arithmetic_of_the_cap() -> None:
    files = {**CUDA.files, "kernel.cu": "__global__ void __launch_bounds__(384, 1) f() {}"}
    one = Kernel.of("cuda", files)
    message = "(C7600) Register allocation failed with register count of '168'. Compile with a higher register target"
    hints = failure(failed(Verdict.BUILD_FAILED, diagnostics=(ptxas(message),)), one).hints
    cap = next(hint for hint in hints if "65,536" in hint)
    assert "384 threads: 168 (in your launch bounds)" in cap
    assert "256 threads: 255" in cap and "512 threads: 128" in cap and "1024 threads: 64" in cap
    assert "setmaxnreg does not lift it" in cap


def test_a_fatal_error_is_said_to_hide_later_ones() -> None:
    fatal = Diagnostic(severity="error", message="fatal error: foo.h: No such file", file="kernel.cu", line=1)
    hints = failure(failed(Verdict.BUILD_FAILED, diagnostics=(fatal,)), CUDA).hints
    assert any("further errors behind it" in hint for hint in hints)


def test_a_wrong_result_says_where_how_much_and_what_pytorch_itself_reaches() -> None:
    found = failure(failed(Verdict.INCORRECT), CUDA)
    for fact in (
        "trial 1 failed, which ended the check (0 passed before it)",
        "Largest error / allowed error: 1e+06",
        "output 0: 128 of 8,192 elements are wrong (1.562%)",
        "where: all of row 63",
        "largest absolute error: 0.5",
        "largest relative error: 2",
        "PyTorch's own largest absolute error in this dtype: 1e-07",
        "at [63, 0]: expected 0.25, got nan",
        "at [63, 1]: expected 0.125, got 0.75",
    ):
        assert fact in found.log
    assert not any("precision" in hint for hint in found.hints)


def test_small_errors_nearly_everywhere_point_at_precision() -> None:
    evaluation = failed(Verdict.INCORRECT)
    assert evaluation.correctness
    error = evaluation.correctness.errors[0].model_copy(update={"mismatched": 8000, "max_abs": 1e-4})
    correctness = evaluation.correctness.model_copy(update={"errors": (error,)})
    hints = failure(evaluation.model_copy(update={"correctness": correctness}), CUDA).hints
    assert any("precision" in hint for hint in hints)


def test_a_wrong_scalar_shows_its_values_instead_of_a_share() -> None:
    error = OutputError(output="output", mismatched=1, total=1, max_abs=1.5, first=(((), 2.5, 1.0),), pattern="all")
    correctness = Correctness(trials=3, passed=2, tolerance="t", errors=(error,))
    log = failure(failed(Verdict.INCORRECT, correctness=correctness), CUDA).log
    assert "trial 3 failed, which ended the check (2 passed before it)" in log
    assert "the output, a single number: expected 2.5, got 1" in log
    assert "output output" not in log and "elements" not in log and "where" not in log


def test_an_incorrect_verdict_without_a_comparison_still_has_its_reason() -> None:
    found = failure(failed(Verdict.INCORRECT, correctness=None), CUDA)
    assert found.summary == "REASON-MARK" and found.log == ""


@pytest.mark.parametrize(
    ("verdict", "rule", "summary", "hint"),
    [
        (Verdict.TIMEOUT, "build", "(stage: build) REASON-MARK", "compiler did not end"),
        (Verdict.TIMEOUT, "check", "(stage: check) REASON-MARK", "hung or is far too slow"),
        (Verdict.REJECTED, "no custom kernel", "(rule: no custom kernel) REASON-MARK", "broke a rule"),
    ],
)
def test_stages_and_rules_are_named(verdict: Verdict, rule: str, summary: str, hint: str) -> None:
    found = failure(failed(verdict, rule=rule), CUDA)
    assert found.summary == summary
    assert hint in found.hints[0]


def test_a_rejection_reaches_the_judge_with_its_evidence_in_names_that_can_be_read() -> None:
    found = "93% of the device time is spent in library kernels: 93% _ZN2at6native18elementwise_kernelILi128ELi2EZN"
    rejected = failed(Verdict.REJECTED, rule="no custom kernel", reason=f"no custom kernel: {found}")
    summary = failure(rejected, CUDA).summary
    assert summary.startswith("no custom kernel: 93% of the device time")
    assert summary.endswith("93% at::native::elementwise_kernel")
    text = "\n".join(message.content for message in judge.diagnose(briefing(), CUDA, rejected))
    assert "What went wrong: REJECTED" in text and summary in text
    assert "find the calls in model.py" in text


def test_every_rule_of_the_engine_has_words_that_a_judge_can_act_on() -> None:
    """The engine's rules are the stages of `CandidateFailed("rule", ...)`, as its sources say."""
    engine = Path(__file__).resolve().parents[2] / "cudaforge" / "engine"
    rules = set()
    for path in engine.glob("*.py"):
        text = path.read_text()
        constants = dict(re.findall(r'^([A-Z_]+) = "([^"]*)"$', text, re.MULTILINE))
        for names, values in re.findall(r'^([A-Z_]+, [A-Z_, ]+) = ("[^"]*"(?:, "[^"]*")+)$', text, re.MULTILINE):
            constants |= dict(zip(names.split(", "), re.findall(r'"([^"]*)"', values), strict=True))
        for call in ast.walk(ast.parse(text)):
            if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("CandidateFailed"):
                if not call.args or ast.unparse(call.args[0]) != "'rule'":
                    continue
                (stage,) = [word.value for word in call.keywords if word.arg == "stage"]
                rules |= {stage.value} if isinstance(stage, ast.Constant) else set()
            elif isinstance(call, ast.Call) and ast.unparse(call.func) == "self.suspect":
                rules.add(constants[ast.unparse(call.args[0])])
    assert rules == set(RULES)


def test_the_kind_of_inputs_and_a_race_are_explained() -> None:
    tails = failed(Verdict.INCORRECT, reason="on inputs with heavy tails: output 0: 3 of 8 elements are wrong.")
    assert any("a few near the ends of the range" in hint for hint in failure(tails, CUDA).hints)
    race = failed(Verdict.INCORRECT, reason="one run of the same input is right and another is not (a race?): x")
    assert any("missing barrier" in hint for hint in failure(race, CUDA).hints)
    assert len(failure(failed(Verdict.INCORRECT), CUDA).hints) == 1


def test_late_cuda_errors_are_explained() -> None:
    error = failed(Verdict.RUNTIME_ERROR, reason="CUDA error: an illegal memory access was encountered")
    assert "surface late" in failure(error, CUDA).hints[0]
    assert failure(failed(Verdict.RUNTIME_ERROR, reason="TypeError: x"), CUDA).hints == ()


# -- profiles ----------------------------------------------------------------------------------------------------


def test_a_profile_begins_with_the_floor_and_ends_with_source_lines() -> None:
    text = profile_text(gpu_profile(), CUDA, passed())
    order = [
        "floor (an estimate) 303 us, bound by memory; the kernel takes 2x that time",
        "1 of 2 launches are this kernel's own (ncu 2025.3.1)",
        "launch 3: softmax_kernel, grid 64x1x1, block 256x1x1, 606 us under the profiler",
        "dram__bytes_read.sum: 96 KiB (bytes read from device memory)",
        "launch__registers_per_thread: 47 register/thread",
        "75.0 % long_scoreboard (waiting for global",
        "10.0 % wait",
        "other launches (PyTorch, libraries): elementwise_of_torch",
        "DRAM bytes moved by own launches: 128 KiB, 2.00x the least (64 KiB)",
        "41.1 % kernel.cu:13 [long_scoreboard 100.0 %] | if (i + 4 <= n) {",
        "note: NOTE-MARK",
    ]
    places = [text.find(fact) for fact in order]
    assert -1 not in places, order[places.index(-1)]
    assert places == sorted(places)
    assert "issue_stalled" not in text, "stalls are shown once"


def test_the_bare_metrics_hold_neither_times_nor_source_lines() -> None:
    text = profile_text(gpu_profile(), CUDA, passed(), metrics_only=True)
    assert "dram__bytes_read.sum: 96 KiB" in text and "issue_stalled_long_scoreboard" in text
    for hidden in ("floor", "606", "kernel.cu:13", "NOTE-MARK", "time_duration", "BUILD-REMARK"):
        assert hidden not in text


def test_a_cpu_profile_shows_rates_against_the_measured_ceiling_and_remarks() -> None:
    text = profile_text(cpu_profile(), CPP, passed(Language.CPP))
    assert text.startswith("No hardware counters: COUNTERS-MARK")
    assert "achieved 10 GB/s of the least bytes (64 KiB): 0.5x the measured copy rate, 20 GB/s" in text
    assert "achieved 2 GFLOP/s" in text
    missed, vectorized = text.index("kernel.cpp:10 missed: REMARK-MARK"), text.index("loop vectorized")
    assert missed < vectorized, "what was missed comes first"
    assert "REMARK-MARK | for (int64_t i = 0; i < n; ++i)" in text
    bare = profile_text(cpu_profile(), CPP, metrics_only=True)
    assert "10 GB/s" in bare and "floor" not in bare and "REMARK-MARK" not in bare


def test_more_than_a_copy_reaches_is_explained() -> None:
    profile = cpu_profile()
    assert profile.roofline
    fast = profile.model_copy(update={"roofline": profile.roofline.model_copy(update={"achieved_bytes_per_s": 2.3e10})})
    assert "1.15x the measured copy rate, 20 GB/s (caches hold a part of it" in profile_text(fast, CPP)


def test_of_several_workloads_the_profiled_one_is_named_and_its_own_time_counts() -> None:
    speedup = Speedup(eager=Interval(value=2, low=2, high=2))
    timings = tuple(
        WorkloadTiming(workload=name, kernel=samples(us), eager=samples(us), speedup=speedup)
        for name, us in (("small", 101.0), ("big", 9000.0))
    )
    text = profile_text(cpu_profile(), CPP, passed(Language.CPP).model_copy(update={"workloads": timings}))
    assert text.startswith("Only the first workload is profiled: small")
    assert "the kernel takes 0.333x that time" in text


def test_the_builds_remarks_stand_in_for_the_profiles() -> None:
    bare = cpu_profile().model_copy(update={"remarks": ()})
    assert "BUILD-REMARK" in profile_text(bare, CPP, passed(Language.CPP))


def test_a_missing_profile_says_so() -> None:
    assert profile_text(None, CUDA) == "No profile was made."
    empty = gpu_profile(launches=(), roofline=None, hot_lines=(), notes=(), unavailable="ncu is not permitted")
    assert profile_text(empty, CUDA) == "No hardware counters: ncu is not permitted"
    assert profile_text(empty.model_copy(update={"unavailable": ""}), CUDA) == "ncu 2025.3.1 gave no measurements."


def test_of_many_launches_the_longest_are_shown_in_order() -> None:
    one = gpu_profile().launches[0]
    many = tuple(one.model_copy(update={"index": n, "duration_us": float(n % 40)}) for n in range(40))
    text = profile_text(gpu_profile(launches=many), CUDA)
    assert "40 of 40 launches" in text and "the 12 longest follow" in text
    assert "launch 39:" in text and "launch 28:" in text and "launch 27:" not in text
