"""A tiny CUDA program under ncu: commands, metric names, report and source lines, on the GPU that is here."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from cudaforge_profiling.metrics import METRIC_SETS, parse_query_metrics, resolve
from cudaforge_profiling.ncu import command, parse_failure, parse_version, query_command, version_command
from cudaforge_profiling.report import Report, read, to_frame
from cudaforge_profiling.resources import entry_functions

pytestmark = pytest.mark.gpu

ELEMENTS = 1 << 26
PROGRAM = f"""\
#include <nvtx3/nvToolsExt.h>
#include <cuda_runtime.h>
#include <cstdio>

__global__ void scale(const float* a, float* b, int n) {{
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {{
    float x = a[i];
    b[i] = x * 2.0f;
  }}
}}

__global__ void outside(float* a) {{ a[threadIdx.x] = 1.0f; }}

int main() {{
  const int n = {ELEMENTS};
  float *a, *b;
  cudaMalloc(&a, n * sizeof(float));
  cudaMalloc(&b, n * sizeof(float));
  outside<<<1, 32>>>(a);
  nvtxRangePushA("profiled");
  scale<<<dim3(264, 1, 1), 512>>>(a, b, n);
  cudaDeviceSynchronize();
  nvtxRangePop();
  cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) std::printf("%s\\n", cudaGetErrorString(error));
  return error != cudaSuccess;
}}
"""


@dataclass(frozen=True)
class Setup:
    ncu: str
    program: Path
    entries: tuple[str, ...]
    available: set[str]


def run(arguments: list[str], folder: Path) -> str:
    environment = {**os.environ, "TMPDIR": str(folder)}
    done = subprocess.run(
        arguments, cwd=folder, capture_output=True, text=True, timeout=180, check=False, env=environment
    )
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    folder = tmp_path_factory.mktemp("program")
    nvcc = os.environ.get("CUDACXX") or shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    ncu = shutil.which("ncu") or "/usr/local/cuda/bin/ncu"
    if not Path(ncu).exists():
        pytest.skip("no ncu")
    (folder / "kernel.cu").write_text(PROGRAM, encoding="utf-8")
    log = run([nvcc, "-arch=native", "-O3", "-lineinfo", "-Xptxas", "-v", "-o", "program", "kernel.cu"], folder)
    assert (folder / "program").exists(), log
    queried = run(query_command(ncu, device=0), folder)
    return Setup(ncu, folder / "program", entry_functions(log), parse_query_metrics(queried))


def profile(setup: Setup, folder: Path, metric_set: str, *, source: bool = True, nvtx: str = "profiled") -> Report:
    names, _ = resolve(metric_set, setup.available)
    path = folder / f"{metric_set}.ncu-rep"
    arguments = command(setup.ncu, path, names, nvtx_range=nvtx, source=source, launch_count=4)
    output = run([*arguments, str(setup.program)], folder)
    failure = parse_failure(output)
    if "administrators" in failure or "LibraryNotLoaded" in failure or "Another tool" in failure:
        pytest.skip(failure)
    assert failure == "", output
    report = read(path, entry_functions=setup.entries, metrics=names, sources={"kernel.cu": PROGRAM})
    (launch,) = [launch for launch in report.launches if launch.name == "scale"]
    assert [name for name in names if name not in launch.metrics] == [], output
    return report


def test_the_tools_answer(setup: Setup) -> None:
    assert parse_version(run(version_command(setup.ncu), setup.program.parent)) >= "2022"
    assert {"dram__bytes", "sm__warps_active", "lts__t_sector_hit_rate"} <= setup.available


def test_the_core_set_measures_the_range_and_its_lines(setup: Setup, tmp_path: Path) -> None:
    report = profile(setup, tmp_path, "core")
    (launch,) = report.launches
    assert launch.own
    assert launch.mangled in setup.entries
    assert (launch.grid, launch.block) == ((264, 1, 1), (512, 1, 1))
    assert launch.duration_us is not None and 10 < launch.duration_us < 10_000
    read_bytes = next(m.value for name, m in launch.metrics.items() if "bytes" in name and "read.sum" in name)
    assert isinstance(read_bytes, float | int)
    assert read_bytes == pytest.approx(4 * ELEMENTS, rel=0.1)
    assert 0.9 < sum(launch.stalls.values()) <= 1.001
    assert next(iter(launch.stalls)) == "long_scoreboard"
    lines = PROGRAM.splitlines()
    assert report.hot_lines[0].file == "kernel.cu"
    assert report.hot_lines[0].text == lines[report.hot_lines[0].line - 1].strip()
    # The load and the store that waits for it.
    assert sum(hot.share for hot in report.hot_lines if hot.line in (7, 8)) > 0.5
    frame = to_frame(report.launches)
    assert frame["duration_us"][0] == launch.duration_us


def test_the_papers_set_has_its_24_columns(setup: Setup, tmp_path: Path) -> None:
    (launch,) = profile(setup, tmp_path, "paper", source=False).launches
    assert len(launch.metrics) == len(METRIC_SETS["paper"])


def test_launches_of_others_are_not_the_candidates_own(setup: Setup, tmp_path: Path) -> None:
    path = tmp_path / "all.ncu-rep"
    run([*command(setup.ncu, path, ["gpu__time_duration.sum"], source=False), str(setup.program)], tmp_path)
    report = read(path, entry_functions=[name for name in setup.entries if "scale" in name])
    assert [(launch.name, launch.own) for launch in report.launches] == [("outside", False), ("scale", True)]


def test_an_unknown_metric_is_silently_left_out_by_ncu(setup: Setup, tmp_path: Path) -> None:
    """Why names are resolved against the chip before they are asked for: ncu 2025.3 neither fails nor warns."""
    wanted = ["no__such_metric.sum", "gpu__time_duration.sum"]
    asked = command(setup.ncu, tmp_path / "a", wanted, source=False, nvtx_range="profiled")
    assert parse_failure(run([*asked, str(setup.program)], tmp_path)) == ""
    (launch,) = read(tmp_path / "a.ncu-rep", metrics=wanted).launches
    assert launch.duration_us is not None and launch.duration_us > 0
    assert "no__such_metric.sum" not in launch.metrics


def test_an_empty_range_is_explained(setup: Setup, tmp_path: Path) -> None:
    nothing = command(setup.ncu, tmp_path / "b", ["gpu__time_duration.sum"], nvtx_range="elsewhere", source=False)
    assert "no kernel launch" in parse_failure(run([*nothing, str(setup.program)], tmp_path))
