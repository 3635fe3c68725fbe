"""The conventional check is fooled by every exploit, as its case says, and lets every honest kernel pass: for real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cudaforge import kernel_loader
from cudaforge.kernel import Kernel
from cudaforge.selftest.cases import HERE, Case, load
from cudaforge.selftest.naive import Harness, NaiveResult, judge

CPU, CUDA = load("cpu"), load("cuda")
ATTEMPTS = 3
"""A time is a matter of luck on a busy machine; a value is not."""
LUCKY = {"race_that_passes_by_luck": 12}
"""Here it is: so many tries."""


@pytest.fixture(scope="module")
def harness() -> Iterator[Harness]:
    with Harness("cpu") as made:
        yield made


@pytest.fixture(scope="module")
def gpu_harness() -> Iterator[Harness]:
    """One for the GPU; what nvcc compiles is compiled side by side first."""
    with Harness("cuda") as made, ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(lambda case: build(case.kernel, made.folder / "kernels" / case.kernel.id), CUDA))
        yield made


def build(kernel: Kernel, package: Path) -> None:
    """Puts a kernel's library where its package looks for it."""
    kernel.write_package(package)
    source = package / "kernel.cu"
    if source.exists():
        flags, arch = list(kernel.flags), kernel_loader.native_arch(source)
        library = package / kernel_loader.library_name(source, flags, arch)
        subprocess.run(kernel_loader.compile_command(source, library, flags, arch), check=True, capture_output=True)


def holds(case: Case, found: NaiveResult) -> bool:
    """Whether the check says what the case claims."""
    return found.correct and (case.naive_speedup is None or found.speedup >= case.naive_speedup)


@pytest.mark.parametrize("case", CPU, ids=lambda case: case.name)
def test_the_conventional_check_says_what_the_case_claims(harness: Harness, case: Case) -> None:
    for _ in range(LUCKY.get(case.name, ATTEMPTS)):
        found = harness.judge(case.task_file, case.kernel)
        if holds(case, found) or not (found.correct or case.name in LUCKY):
            break
    assert holds(case, found), found


@pytest.mark.gpu
@pytest.mark.parametrize("case", CUDA, ids=lambda case: case.name)
def test_the_same_on_a_gpu(gpu_harness: Harness, case: Case) -> None:
    test_the_conventional_check_says_what_the_case_claims(gpu_harness, case)


def wrong(forward: str) -> Kernel:
    """A module for scale_add with this forward."""
    text = (HERE / "suite" / "cpu" / "stale_weights" / "model.py").read_text()
    head = text[: text.index("    def forward")]
    return Kernel.of("module", {"model.py": f"{head}    def forward(self, x, y):\n        {forward}\n"})


@pytest.mark.parametrize(
    ("forward", "words"),
    [
        ("return x + y", "values differ"),
        ("raise ValueError('no such luck')", "no such luck"),
        ("import os; os._exit(0)", "no result"),
        ("import ctypes; ctypes.string_at(0)", "no result"),
    ],
)
def test_the_conventional_check_is_no_rubber_stamp(harness: Harness, forward: str, words: str) -> None:
    found = harness.judge(HERE / "tasks" / "scale_add_torch.py", wrong(forward))
    assert not found.correct and words in found.error


def test_an_endless_kernel_is_ended(harness: Harness) -> None:
    found = harness.judge(HERE / "tasks" / "scale_add_torch.py", wrong("while True: pass"), timeout=3)
    assert not found.correct


def test_a_harness_that_was_killed_is_replaced(harness: Harness) -> None:
    task = HERE / "tasks" / "scale_add_torch.py"
    killer = wrong("import os; os.kill(os.getppid(), 9)")
    assert not harness.judge(task, killer).correct
    assert harness.judge(task, wrong("return x * self.weight + y")).correct
    assert judge(task, wrong("return x * self.weight + y")).correct


def test_it_is_a_script_too(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (root, root / "profiling")))}
    kernel = HERE / "suite" / "cpu" / "pointer_cache"
    command = [
        sys.executable,
        "-m",
        "cudaforge.selftest.naive",
        str(HERE / "tasks" / "scale_add_torch.py"),
        str(kernel),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path, check=True, timeout=120)
    assert NaiveResult.model_validate(json.loads(done.stdout.splitlines()[-1])).correct
