"""What nvcc does in two passes side by side is what it does by itself, and where that cannot be, it does it itself."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from cudaforge import kernel_loader
from cudaforge.engine import nvcc
from cudaforge.errors import KernelError
from cudaforge.kernel import Kernel

SOURCE = """
#include <cuda_runtime.h>
static __device__ int table[4] = {1, 2, 3, 4};
static __global__ void scale(float* x, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) x[i] *= 2.f * table[i % 4];
}
extern "C" int launch(float* x, int n) {
  scale<<<(n + 255) / 256, 256>>>(x, n);
  return static_cast<int>(cudaGetLastError());
}
"""
needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")


def command(folder: Path, source: str, *flags: str) -> list[str]:
    (folder / "kernel.cu").write_text(source)
    return kernel_loader.compile_command(folder / "kernel.cu", folder / "kernel.so", list(flags), "sm_90a")


def run(call: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "TMPDIR": str(folder)}
    return subprocess.run(call, capture_output=True, text=True, check=False, cwd=folder, env=env)


def symbols(library: Path) -> list[str]:
    listed = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True)
    return sorted(line.split(maxsplit=2)[2] for line in listed.stdout.splitlines())


@needs_nvcc
def test_the_library_and_what_is_said_of_it_are_nvccs_own(tmp_path: Path) -> None:
    call = command(tmp_path, SOURCE)
    apart = nvcc.side_by_side(call)
    assert apart is not None
    done = run(apart, tmp_path)
    assert done.returncode == 0, done.stderr
    mine, said = symbols(tmp_path / "kernel.so"), done.stderr
    (tmp_path / "kernel.so").unlink()
    own = run(call, tmp_path)
    assert "launch" in mine and mine == symbols(tmp_path / "kernel.so")
    assert [line for line in said.splitlines() if "registers" in line] == [
        line for line in own.stderr.splitlines() if "registers" in line
    ]


@needs_nvcc
@pytest.mark.parametrize("wrong", ["int launch(float* x) { return y; }", "__global__ void k(float* x) { x[0] = y; }"])
def test_an_error_of_either_pass_is_an_error(tmp_path: Path, wrong: str) -> None:
    apart = nvcc.side_by_side(command(tmp_path, wrong))
    assert apart is not None
    done = run(apart, tmp_path)
    assert done.returncode != 0 and 'identifier "y" is undefined' in done.stderr
    assert not (tmp_path / "kernel.so").exists()


@needs_nvcc
def test_two_architectures_are_left_to_nvcc(tmp_path: Path) -> None:
    assert nvcc.side_by_side(command(tmp_path, SOURCE, "-gencode=arch=compute_80,code=sm_80")) is None


@needs_nvcc
def test_a_flag_that_nvcc_refuses_is_left_to_nvcc(tmp_path: Path) -> None:
    assert nvcc.side_by_side(command(tmp_path, SOURCE, "--no-such-flag")) is None


def test_without_nvcc_there_is_nothing_to_run(tmp_path: Path) -> None:
    assert nvcc.side_by_side([str(tmp_path / "nvcc"), "kernel.cu"]) is None


@needs_nvcc
def test_variables_of_nvccs_own_count_as_little_as_in_the_compilers_cage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NVCC_APPEND_FLAGS", "-use_fast_math")
    apart = nvcc.side_by_side(command(tmp_path, SOURCE))
    assert apart is not None and "-ftz=0" in apart[-1] and "-ftz=1" not in apart[-1]


@needs_nvcc
@pytest.mark.parametrize("flag", ['-frandom-seed=a"b', "-frandom-seed=\udcff", "-frandom-seed=$(touch hole)"])
def test_what_no_shell_would_take_for_a_word_is_harmless(tmp_path: Path, flag: str) -> None:
    with pytest.raises(KernelError, match="not allowed"):  # before it comes to a compiler
        Kernel.of("cuda", {"kernel.cu": SOURCE, "model.py": "class ModelNew: ..."}, (flag,))
    apart = nvcc.side_by_side(command(tmp_path, SOURCE, flag))  # and there it does not raise
    assert apart is None or apart[0] == "/bin/sh"
    assert not (tmp_path / "hole").exists() and not Path("hole").exists()
