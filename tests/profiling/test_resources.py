"""Remarks of real builds."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from cudaforge_profiling.resources import entry_functions, parse_vectorization, remarks

NVCC = os.environ.get("CUDACXX") or shutil.which("nvcc")
GXX = os.environ.get("CXX") or shutil.which("g++")

CUDA = """\
namespace { template <int N> __global__ void small(float* a) { a[threadIdx.x] *= N; } }

__global__ void __launch_bounds__(1024, 2)
spilling(const float* a, float* b, int n) {
  __shared__ float s[64];
  float x[96];
  #pragma unroll
  for (int i = 0; i < 96; i++) x[i] = a[threadIdx.x + i * n];
  s[threadIdx.x % 64] = x[5];
  __syncthreads();
  for (int k = 0; k < n; k++) {
    #pragma unroll
    for (int i = 0; i < 96; i++) x[i] = x[i] * x[(i + 1) % 96] + s[k];
  }
  #pragma unroll
  for (int i = 0; i < 96; i++) b[threadIdx.x + i * n] = x[i];
}
void go(float* a) { small<3><<<1, 32>>>(a); spilling<<<1, 1024>>>(a, a, 3); }
"""

CPP = """\
#include <cmath>
void scale(const float* a, float* b, long n) {
#pragma omp parallel for
  for (long i = 0; i < n; i++) b[i] = a[i] * 2;
}
void exponentials(const float* a, float* b, long n) {
  for (long i = 0; i < n; i++) b[i] = std::exp(a[i]);
}
void chain(float* a, long n) {
  for (long i = 1; i < n; i++) a[i] = a[i - 1] * 0.5f + a[i];
}
"""


def log(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout + done.stderr


@pytest.mark.skipif(NVCC is None, reason="no nvcc")
def test_registers_spills_and_shared_memory_of_each_kernel(tmp_path: Path) -> None:
    (tmp_path / "kernel.cu").write_text(CUDA, encoding="utf-8")
    text = log([str(NVCC), "-arch=sm_90a", "-O3", "-Xptxas", "-v", "-cubin", "kernel.cu"], tmp_path)
    found = {
        remark.message.split(":")[-2].split("::")[-1].strip(): remark for remark in remarks(text, "kernel.cu", CUDA)
    }
    assert set(found) == {"small<3>", "spilling"}
    assert found["small<3>"].line == 1
    assert "no spills" in found["small<3>"].message
    assert (found["spilling"].line, found["spilling"].kind) == (4, "resource")
    assert "32 registers per thread" in found["spilling"].message
    assert "256 bytes of static shared memory" in found["spilling"].message
    assert "bytes in stores" in found["spilling"].message


@pytest.mark.skipif(NVCC is None, reason="no nvcc")
def test_entry_functions_are_the_names_in_the_binary(tmp_path: Path) -> None:
    (tmp_path / "kernel.cu").write_text(CUDA, encoding="utf-8")
    command = [str(NVCC), "-arch=sm_90a", "-Xptxas", "-v", "-cubin", "-o", "k.cubin", "kernel.cu"]
    names = entry_functions(log(command, tmp_path))
    assert len(names) == 2
    assert "_Z8spillingPKfPfi" in names
    binary = (tmp_path / "k.cubin").read_bytes()
    assert all(name.encode() in binary for name in names)


def test_ptxas_hints_become_notes() -> None:
    text = (
        "ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized due to "
        "insufficient register resources for the wgmma pipeline in the function '_Z4gemmPf'\n"
    )
    (note,) = remarks(text, "kernel.cu")
    assert note.kind == "note"
    assert "'gemm'" in note.message


@pytest.mark.skipif(GXX is None, reason="no g++")
def test_loops_are_vectorized_or_missed_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "kernel.cpp").write_text(CPP, encoding="utf-8")
    text = log([str(GXX), "-O3", "-mavx2", "-fopenmp", "-fopt-info-vec-all", "-c", "kernel.cpp"], tmp_path)
    found = remarks(text, "kernel.cpp")
    assert {remark.file for remark in found} == {"kernel.cpp"}
    lines = {(remark.line, remark.kind): remark.message for remark in found}
    assert "32 byte vectors" in lines[4, "vectorized"]
    assert "expf" in lines[7, "missed"]
    assert (10, "missed") in lines
    assert (4, "missed") not in lines
    assert len(lines) == len(found)
    # What can be acted on stands first.
    assert [remark.kind for remark in found][:2] == ["missed", "missed"]


BY_HAND = """\
typedef float Vec __attribute__((vector_size(32)));
typedef float Loose __attribute__((vector_size(32), aligned(4), may_alias));
void squares(const float* x, float* y, long n) {
#pragma omp parallel for
  for (long r = 0; r < n; r++) {
    Vec sum = {};
    for (long i = 0; i < 512; i += 8) sum += *(const Loose*)(x + r * 512 + i) * *(const Loose*)(x + r * 512 + i);
    float total = 0;
    for (int k = 0; k < 8; k++) total += sum[k];
    y[r] = total;
  }
}
"""


@pytest.mark.skipif(GXX is None, reason="no g++")
def test_hand_written_simd_is_not_remarked_upon(tmp_path: Path) -> None:
    (tmp_path / "kernel.cpp").write_text(BY_HAND, encoding="utf-8")
    text = log([str(GXX), "-O3", "-mavx2", "-fopenmp", "-fopt-info-vec-all", "-c", "kernel.cpp"], tmp_path)
    assert "kernel.cpp:7:64: missed: couldn't vectorize loop" in text
    assert not {4, 7, 9} & {remark.line for remark in remarks(text, "kernel.cpp") if remark.kind == "missed"}


def test_what_gxx_makes_of_an_openmp_region_itself_is_left_out() -> None:
    text = "kernel.cpp:4:9: note: op template: .omp_data_o.5.x = x_6(D);\n"
    text += "kernel.cpp:4:9: optimized: basic block part vectorized using 64 byte vectors\n"
    text += "kernel.cpp:7:9: optimized: basic block part vectorized using 64 byte vectors\n"
    text += "kernel.cpp:4:9: missed: couldn't vectorize loop\n"
    text += "kernel.cpp:4:9: missed: not vectorized: number of iterations cannot be computed.\n"
    assert [remark.line for remark in remarks(text, "kernel.cpp")] == [7]


def test_a_sum_that_gxx_must_keep_in_order_says_what_lifts_that() -> None:
    text = "kernel.cpp:3:61: missed: couldn't vectorize loop\n"
    text += "kernel.cpp:3:7: missed: not vectorized: unsupported use in stmt.\n"
    (remark,) = remarks(text, "kernel.cpp")
    assert "#pragma omp simd reduction" in remark.message


def test_vectorization_remarks_are_capped_and_of_one_file() -> None:
    text = "".join(f"kernel.cpp:{line}:3: missed: couldn't vectorize loop\n" for line in range(1, 100))
    text += "/usr/include/c++/12/bits/x.h:7:3: optimized: loop vectorized using 32 byte vectors\n"
    found = parse_vectorization(text, limit=10)
    assert [remark.line for remark in found] == list(range(1, 11))
    assert parse_vectorization(text, file="x.h")[0].kind == "vectorized"
