"""What a verdict is on the CPU, with real compilers and processes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from support.tasks import KERNEL_CPP, cpp, module, scale_add

from cudaforge.engine.sandbox import LIVE
from cudaforge.engine.supervisor import Supervisor
from cudaforge.errors import EvaluatorError, TaskError
from cudaforge.evaluation import EvaluateOptions, EvaluateRequest, Evaluation, Verdict, VerifyRequest
from cudaforge.kernel import Kernel, Language
from cudaforge.task import Task

QUICK = EvaluateOptions(trials=2, time_budget_s=0.05, run_timeout_s=20)
RIGHT = "return x * self.weight + y"


LIBRARIES = scale_add(allow_libraries=True)
"""The task for kernels that call PyTorch, where something else than who does the work is looked at."""


def evaluate(supervisor: Supervisor, kernel: Kernel, task: Task | None = None) -> Evaluation:
    task = task or (LIBRARIES if kernel.language is Language.MODULE else scale_add())
    found = supervisor.handle(EvaluateRequest(key="k", task=task, kernel=kernel, options=QUICK))
    assert isinstance(found, Evaluation)
    return found


def test_a_right_cpp_kernel_passes_with_all_that_it_rests_on(supervisor: Supervisor) -> None:
    found = evaluate(supervisor, cpp())
    assert found.verdict is Verdict.PASSED, found.reason
    assert (
        found.speedup is not None and found.speedup.eager.low <= found.speedup.eager.value <= found.speedup.eager.high
    )
    assert found.speedup.compile is not None
    (timing,) = found.workloads
    assert (
        len(timing.kernel.samples_us) >= 4 and timing.kernel.low_us <= timing.kernel.median_us <= timing.kernel.high_us
    )
    assert found.correctness is not None and found.correctness.trials == found.correctness.passed == 2
    assert found.build is not None and len(found.build.binary_sha256) == 64 and "-O3" in found.build.command
    assert {"build", "load", "check", "timing"} <= set(found.stages_s)
    assert len(found.seeds) == 2 and all(len(s.sha256) == 64 for s in found.seeds)
    assert {"torch", "g++", "python"} <= set(found.versions)
    assert Evaluation.model_validate_json(found.model_dump_json()) == found


def test_a_second_build_comes_from_the_cache(supervisor: Supervisor) -> None:
    evaluate(supervisor, cpp())
    found = evaluate(supervisor, cpp())
    assert found.build is not None and found.build.cached
    assert found.stages_s["build"] < 0.5


def test_a_build_failure_names_file_line_and_source(supervisor: Supervisor) -> None:
    source = KERNEL_CPP.replace("float* o = ", "float* o == ")
    found = evaluate(supervisor, cpp(source))
    assert found.verdict is Verdict.BUILD_FAILED
    first = next(d for d in found.diagnostics if d.severity == "error")
    assert (first.file, first.tool) == ("kernel.cpp", "g++")
    assert "float* o ==" in first.source_line and source.splitlines()[first.line - 1] == first.source_line
    assert found.time_us is None


def test_a_lost_tail_is_described(supervisor: Supervisor) -> None:
    found = evaluate(supervisor, cpp(KERNEL_CPP.replace("r < rows", "r < rows - 4")))
    assert found.verdict is Verdict.INCORRECT
    assert found.correctness is not None
    (error,) = found.correctness.errors
    assert (error.mismatched, error.total) == (400, 6400)
    assert ">= 60 of dimension 0" in error.pattern
    assert "NaN" in error.pattern, "an allocation is poisoned: unwritten elements show"


@pytest.mark.parametrize(
    ("forward", "verdict", "words"),
    [
        (RIGHT, Verdict.PASSED, ""),
        ("return x + y", Verdict.INCORRECT, "output"),
        ("return x * self.weight + y + 1e-3", Verdict.INCORRECT, "off by the constant 0.00"),
        ("return (x * self.weight + y).double()", Verdict.INCORRECT, "dtype float64"),
        ("return (x * self.weight + y).T", Verdict.INCORRECT, "shape"),
        ("return (x * self.weight + y, x)", Verdict.INCORRECT, "returns"),
        ("return None", Verdict.INCORRECT, "None"),
        ("raise ValueError('no such luck')", Verdict.RUNTIME_ERROR, "no such luck"),
        ("import os; os._exit(0)", Verdict.RUNTIME_ERROR, "ended with exit code 0"),
        ("import ctypes; ctypes.string_at(0)", Verdict.RUNTIME_ERROR, "SIGSEGV"),
        ("wide = x.new_empty(64, 6400)\nwide[:, :100] = x * self.weight + y\nreturn wide[:, :100]", Verdict.PASSED, ""),
        ("x.add_(1); return (x - 1) * self.weight + y", Verdict.REJECTED, "changed its inputs"),
        ("print('PASSED ' * 100000); return x * self.weight + y", Verdict.PASSED, ""),
    ],
)
def test_verdicts_on_what_forward_does(supervisor: Supervisor, forward: str, verdict: Verdict, words: str) -> None:
    found = evaluate(supervisor, module(forward))
    assert (found.verdict, words in found.reason) == (verdict, True), found.reason


def test_an_output_buffer_that_is_used_again_is_seen(supervisor: Supervisor) -> None:
    again = "self.out = getattr(self, 'out', None)\nif self.out is None: self.out = torch.empty_like(x)\n"
    found = evaluate(supervisor, module(again + "torch.addcmul(y, x, self.weight, out=self.out)\nreturn self.out"))
    assert found.verdict is Verdict.INCORRECT


def test_a_result_kept_for_later_calls_is_seen(supervisor: Supervisor) -> None:
    kept = "self.out = getattr(self, 'out', None)\nif self.out is None: self.out = x * self.weight + y\n"
    assert evaluate(supervisor, module(kept + "return self.out.clone()")).verdict is Verdict.INCORRECT


def test_a_parameter_that_is_ignored_is_seen_though_it_is_one_by_default(supervisor: Supervisor) -> None:
    assert evaluate(supervisor, module("return x + y")).verdict is Verdict.INCORRECT


def test_right_when_checked_and_wrong_when_timed_is_rejected(supervisor: Supervisor) -> None:
    lazy = "self.n = getattr(self, 'n', 0) + 1\nreturn x * self.weight + y if self.n <= 8 else x"
    found = evaluate(supervisor, module(lazy))
    assert (found.verdict, found.rule) == (Verdict.REJECTED, "timed calls are wrong")


def test_an_endless_kernel_times_out_and_the_next_is_right(supervisor: Supervisor) -> None:
    options = QUICK.model_copy(update={"run_timeout_s": 6.0})
    started = time.monotonic()
    # A Python-only kernel builds itself while it runs, so the build's time limit holds for it.
    options = options.model_copy(update={"build_timeout_s": 6.0})
    found = supervisor.evaluate(LIBRARIES, module("while True: pass"), options)
    assert (found.verdict, found.rule) == (Verdict.TIMEOUT, "build")
    assert time.monotonic() - started < 60
    assert evaluate(supervisor, module(RIGHT)).passed


def test_no_candidate_outlives_its_evaluation(supervisor: Supervisor) -> None:
    evaluate(supervisor, module("import subprocess; subprocess.Popen(['sleep', '1000']); " + RIGHT))
    kept = {host.child for reference in supervisor.references.values() for host in (reference, reference.timed)}
    assert set(LIVE) == kept, "only references, and where their baselines are timed"
    processes = [path for path in Path("/proc").iterdir() if path.name.isdigit()]
    assert [p for p in processes if _cmdline(p / "cmdline") == ["sleep", "1000"]] == []


def _cmdline(path: Path) -> list[str]:
    try:
        return path.read_bytes().decode().split("\0")[:-1]
    except OSError:
        return []


def test_the_candidate_sees_no_secret_of_the_environment(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    spy = "import os\nassert not any('KEY' in k or 'sk-' in v for k, v in os.environ.items())\n" + RIGHT
    assert evaluate(supervisor, module(spy)).passed


def test_parameters_of_other_names_are_an_error_for_cpp(supervisor: Supervisor) -> None:
    renamed = cpp(model=cpp().files["model.py"].replace("self.weight", "self.gamma"))
    found = evaluate(supervisor, renamed)
    assert found.verdict is Verdict.RUNTIME_ERROR
    assert "missing" in found.reason and "weight" in found.reason and "gamma" in found.reason


def test_parameters_of_other_names_get_the_values_of_their_likes_in_a_module(supervisor: Supervisor) -> None:
    found = evaluate(supervisor, module("return x * self.gamma + y", init="self.gamma = self.weight; del self.weight"))
    assert found.passed and found.correctness is not None
    assert "parameters by their values at construction, not by name" in found.correctness.flags
    ignored = evaluate(supervisor, module("return x + y", init="self.gamma = self.weight; del self.weight"))
    assert ignored.verdict is Verdict.INCORRECT, "gamma is one at construction, and not in trials"


def test_a_module_without_a_constant_parameter_is_refused(supervisor: Supervisor) -> None:
    found = evaluate(supervisor, module("return x + y", init="del self.weight"))
    assert found.verdict is Verdict.RUNTIME_ERROR
    assert "constant at construction, and other values in checks: weight" in found.reason


def test_parameters_that_are_kept_otherwise_come_from_the_seed_in_a_module(supervisor: Supervisor) -> None:
    source = LIBRARIES.source.replace("torch.ones(n)", "torch.rand(n)")
    task = Task.parse(source, name="random_weight", beside={"allow_libraries": True})
    doubled = "self.twice = nn.Parameter(2 * torch.rand(n)); del self.weight"
    kernel = module("return x * (0.5 * self.twice) + y", init=doubled)
    files = {
        "model.py": kernel.files["model.py"].replace("torch.ones(n)", "torch.ones(1)")
    }  # the first draw is its own
    found = evaluate(supervisor, Kernel.of(Language.MODULE, files), task)
    assert found.passed and found.correctness is not None, found.reason
    assert "parameters by seed and construction order, not by name" in found.correctness.flags


def test_every_workload_counts(supervisor: Supervisor) -> None:
    task = scale_add(workloads=[{"name": "a"}, {"name": "b", "overrides": {"rows": 3}}])
    source = task.source.replace("rows, columns = 64, 100", "rows = 64\ncolumns = 100")
    task = Task.parse(
        source,
        name="scale_add",
        beside={"workloads": [{"name": "a"}, {"name": "b", "overrides": {"rows": 3}}], "allow_libraries": True},
    )
    found = evaluate(supervisor, module(RIGHT), task)
    assert found.passed and [w.workload for w in found.workloads] == ["a", "b"]
    only_first = evaluate(supervisor, module("return x * self.weight + y if x.shape[0] == 64 else x"), task)
    assert only_first.verdict is Verdict.INCORRECT


def test_a_task_that_does_not_run_is_the_tasks_failure(supervisor: Supervisor) -> None:
    broken = Task.parse(scale_add().source.replace("x * self.weight", "x * self.wieght"), name="broken")
    with pytest.raises(TaskError, match=r"broken\.py:\d+: AttributeError"):
        evaluate(supervisor, module(RIGHT), broken)


def test_a_missing_compiler_is_never_the_kernels_failure(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "/nowhere/g++")
    with pytest.raises(EvaluatorError, match="not installed"):
        evaluate(supervisor, cpp(KERNEL_CPP + "// not cached\n"))


def test_where_memory_is_short_it_is_tried_again_without_what_other_tasks_hold(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert evaluate(supervisor, cpp()).passed and supervisor.references
    held: list[int] = []

    def short(*_: object, **__: object) -> object:
        held.append(len(supervisor.references))
        raise torch.OutOfMemoryError("CUDA error: out of memory\nFor debugging consider ...")

    monkeypatch.setattr(supervisor, "evaluate", short)
    with pytest.raises(EvaluatorError, match=r"too little memory for this task: CUDA error: out of memory$"):
        supervisor.handle(EvaluateRequest(key="k", task=scale_add(), kernel=cpp(), options=QUICK))
    assert len(held) == 2 and held[0] > 0 and held[1] == 0


def test_verification_interleaves_and_has_a_control(supervisor: Supervisor) -> None:
    request = VerifyRequest(key="v", task=scale_add(), kernel=cpp(), options=QUICK, processes=2)
    found = supervisor.handle(request)
    assert found.evaluation.passed and found.processes == 2
    assert found.aa is not None and found.aa.low <= found.aa.value <= found.aa.high
    assert found.evaluation.correctness.trials == 4
    slower = supervisor.handle(
        VerifyRequest(key="w", task=LIBRARIES, kernel=module("sum(range(20000)); " + RIGHT), options=QUICK, processes=1)
    )
    assert slower.evaluation.passed and not slower.win


def test_the_clock_is_the_supervisors_whatever_the_kernel_does_to_its_own(supervisor: Supervisor) -> None:
    patch = "import time\ntime.perf_counter = time.monotonic = time.time = lambda: 0.0\n"
    found = evaluate(supervisor, module("time.sleep(0.004); " + RIGHT, before=patch))
    assert found.passed, found.reason
    assert found.time_us is not None and 4000 <= found.time_us < 8000
    assert found.speedup is not None and found.speedup.eager.high < 1


def test_a_result_remembered_from_earlier_inputs_is_seen_in_timed_calls(supervisor: Supervisor) -> None:
    """Honest for as long as it is checked, then by the values of a few elements: they never come again."""
    remembers = (
        "self.n = getattr(self, 'n', 0) + 1\nself.seen = getattr(self, 'seen', {})\nkey = x.data_ptr()\n"
        "if self.n < 12 or key not in self.seen: self.seen[key] = x * self.weight + y\nreturn self.seen[key].clone()"
    )
    found = evaluate(supervisor, module(remembers))
    assert (found.verdict, found.rule) == (Verdict.REJECTED, "timed calls are wrong"), found.reason


def test_a_task_without_a_single_right_answer_is_refused(supervisor: Supervisor) -> None:
    source = scale_add().source.replace(
        "return x * self.weight + y", "return torch.dropout(x * self.weight + y, 0.5, True)"
    )
    with pytest.raises(TaskError, match="no single right answer"):
        evaluate(supervisor, module(RIGHT), Task.parse(source, name="random"))


def test_a_task_that_a_cheap_answer_would_pass_is_flagged(supervisor: Supervisor) -> None:
    source = scale_add().source.replace("return x * self.weight + y", "return x * 1.0")
    task = Task.parse(
        source.replace("def forward(self, x, y)", "def forward(self, x, y)"),
        name="identity",
        beside={"allow_libraries": True},
    )
    found = evaluate(supervisor, module("return x * 1.0"), task)
    assert found.passed and found.correctness is not None
    assert any("input 0 itself would pass" in flag for flag in found.correctness.flags), found.correctness.flags
    assert any("does not depend on input 1" in flag for flag in found.correctness.flags)


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        ("import os; os.fork() or os._exit(0)", "Operation not permitted"),
        ("import subprocess; subprocess.run(['true'])", "Operation not permitted"),
        ("open('/etc/cudaforge-was-here', 'w')", "Error"),
        ("open(__file__, 'a')", "Error"),
        ("import socket; socket.create_connection(('127.0.0.1', 9), 1)", "Error"),
        ("import os; os.kill(os.getppid() or 1, 9)", "Error"),
    ],
)
def test_what_a_cage_forbids_is_an_error_of_the_kernel_and_the_next_is_right(
    supervisor: Supervisor, attack: str, words: str
) -> None:
    found = evaluate(supervisor, module(f"{attack}\n{RIGHT}"))
    assert found.verdict is Verdict.RUNTIME_ERROR and words in found.reason, found.reason
    assert evaluate(supervisor, module("return x + y")).verdict is Verdict.INCORRECT
