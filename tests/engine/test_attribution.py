"""Whose code did the work: names, files, and the rule that follows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.tasks import cpp, module, scale_add

from cudaforge.engine.attribution import (
    FREE,
    LIBRARY_NAMES,
    NEUTRAL_FILES,
    _behind_stub,
    _stands_in,
    _times,
    is_own,
    rule,
    starts_kernels_itself,
)
from cudaforge.engine.builder import Built
from cudaforge.engine.supervisor import Supervisor
from cudaforge.engine.symbols import Symbols
from cudaforge.evaluation import Attribution, Build, EvaluateOptions, EvaluateRequest, Share, Verdict
from cudaforge.kernel import Kernel, Language

QUICK = EvaluateOptions(trials=2, time_budget_s=0.02, run_timeout_s=20, compile_baseline=False)


def gpu(own: float, library: float, **more: float) -> Attribution:
    return Attribution(how="", own=own, library=library, free=1 - own - library, launches=1, **more)


@pytest.mark.parametrize(
    ("found", "time_us", "words"),
    [
        (gpu(1.0, 0.0, traced_us=10), 11.0, ""),
        (gpu(0.95, 0.05, traced_us=10), 11.0, ""),
        (gpu(0.05, 0.95, traced_us=10), 11.0, "95% of the device time"),
        (gpu(0.0, 0.0, traced_us=10), 11.0, "0% of the device time"),
        (gpu(1.0, 0.0, traced_us=100), 20.0, "what was traced is not what was timed"),
        (gpu(1.0, 0.0, traced_us=1), 2000.0, "what was traced is not what was timed"),
    ],
)
def test_the_rule_on_a_gpu(found: Attribution, time_us: float, words: str) -> None:
    why = rule(found, time_us, gpu=True)
    assert words in why and bool(why) == bool(words)


def cpu(own: float, library: float, samples: float = 100, watched: float = 100, timed: float = 100) -> Attribution:
    more = {"samples": samples, "traced_us": watched, "timed_cpu_us": timed}
    return Attribution(how="", own=own, library=library, free=1 - own - library, **more)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (cpu(0.9, 0.1), ""),
        (cpu(0.1, 0.9), "90% of the time"),
        (cpu(0.2, 0.2), "20% of the time"),
        (cpu(0.3, 0.05), ""),
        (cpu(0.1, 0.9, samples=3), ""),
        (cpu(0.0, 1.0, samples=2), ""),
        (cpu(0.0, 1.0, samples=3), "100% of the time"),
        (cpu(1.0, 0.0, watched=1000), "what was watched is not what was timed"),
    ],
)
def test_the_rule_on_the_cpu(found: Attribution, words: str) -> None:
    why = rule(found, 100.0, gpu=False)
    assert words in why and bool(why) == bool(words)


def test_a_call_that_only_costs_what_calling_torch_costs_is_not_held_against_it() -> None:
    assert rule(cpu(0.2, 0.8, watched=10, timed=10), 12.0, gpu=False) == ""


@pytest.mark.parametrize(
    "name",
    [
        "nvjet_hsh_128x128_64x4_1x2_h_bz_TNT",
        "sm80_xmma_gemm_f32f32",
        "ampere_sgemm_128x64_nn",
        "triton_poi_fused_add_mul_0",
        "triton_tem_fused_mm_3",
        "triton_red_7",
        *("triton_poi__0", "triton_", "triton_mm_11"),
        "_Z11regular_fftILj256EL3EPT16EL9CONST_VAL3EEvv",
        "_Z15regular_fft_c2rILj256EL3EPT16EEvv",
        "_ZN2at6native29vectorized_elementwise_kernelILi4E",
    ],
)
def test_names_of_libraries_are_nobody_elses(name: str) -> None:
    kernel = Kernel.of(Language.MODULE, {"model.py": f"__global__ void {name}() {{}}"})
    assert LIBRARY_NAMES.search(name) and not is_own(name, {name}, kernel)


@pytest.mark.parametrize(
    "name",
    [
        *("sm90_gemm_64x64_bf16", "hopper_gemm_128x128", "sgemm_128x128", "dot_kernel"),
        *("triton_mm_bias_kernel", "triton_red_kernel", "_Z13multi_row_fftPKfPf"),
    ],
)
def test_names_that_anybody_may_use_are_no_librarys(name: str) -> None:
    assert is_own(name, {name}, Kernel.of(Language.MODULE, {"model.py": "x = 1"}))


def test_own_kernels_are_those_in_a_binary_or_compiled_from_the_source_at_run_time() -> None:
    kernel = Kernel.of(Language.MODULE, {"model.py": "src = '''__global__ void twice(float* x) {}'''"})
    assert is_own("_Z5otherPf", {"_Z5otherPf"}, kernel)
    assert is_own("_Z5twicePf", set(), kernel) and is_own("twice", set(), kernel)
    assert not is_own("_Z6tricesPf", set(), kernel)
    nested = Kernel.of(
        Language.MODULE, {"model.py": "src = '__global__ void cub(float*); __global__ void scan(int* x)'"}
    )
    assert is_own("_ZN12_GLOBAL__N_14scanILi4EEEvPi", set(), nested)
    assert not is_own("_ZN3cub16DeviceScanKernelILi4EEEvPi", set(), nested)  # no name for what is in its namespace
    for name, own in (
        ("fused_mul_add_tanh_3", False),
        ("fused_gelu_mul", False),
        ("fused_mul_leaky_relu", False),
        ("fused_mul_add_sigmo_123456789012", False),
        ("fused_bias_mish", True),
        ("fused_rows", True),
    ):
        claims = Kernel.of(Language.MODULE, {"model.py": f"src = '__global__ void {name}(float* x)'"})
        assert is_own(name, set(), claims) is own  # what TorchScript makes is named by operators
    commented = Kernel.of(Language.MODULE, {"model.py": "# __global__ void twice(float* x)\nx = 1"})
    assert not is_own("twice", set(), commented)


def test_a_moment_is_the_librarys_where_one_of_its_launches_runs() -> None:
    """However many kernels of one's own idle on other streams meanwhile."""
    decoys = [(0, 9000)] * 16
    assert _times({"library": [(1000, 9000)], "own": decoys, "free": []}) == (8.0, 1.0, 0.0)
    assert _times({"library": [], "own": [(0, 2000), (1000, 3000)], "free": [(2000, 5000)]}) == (0.0, 3.0, 2.0)


def test_copying_and_filling_are_free_and_waiting_is_nobodys() -> None:
    assert FREE.search("_ZN2at6native25unrolled_elementwise_kernelIZZZNS0_23direct_copy_kernel_cuda") and FREE.search(
        "[memset]"
    )
    for name in ("libgomp-98e2abe1.so.1.0.0", "libc.so.6", "libpython3.11.so.1.0", "python3.11", "[vdso]"):
        assert NEUTRAL_FILES.match(name), name
    for name in ("libtorch_cpu.so", "libmkl_core.so.2", "libopenblas.so.0", "kernel-native-12.so"):
        assert not NEUTRAL_FILES.match(name), name


def test_symbols_of_a_library_are_read_and_found_by_offset(tmp_path: Path) -> None:
    source = tmp_path / "s.cpp"
    source.write_text('extern "C" int first(int x) { return x + 1; }\nint second(int x) { return first(x) * 2; }\n')
    library = tmp_path / "s.so"
    subprocess.run(["g++", "-O0", "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    symbols = Symbols(library)
    assert {"first", "_Z6secondi"} <= symbols.functions()
    i = [symbols._name(k) for k in range(len(symbols.addresses))].index("first")
    offset = next(
        o + symbols.addresses[i] - a for o, e, a in symbols._segments if a <= symbols.addresses[i] < a + e - o
    )
    assert symbols.at(offset + 2) == "first"
    assert Symbols(source).functions() == set()


def test_a_kernels_name_is_that_of_its_stub() -> None:
    """Host names of static kernels and of CUB's differ from those on the device; both are nvcc's own for such files."""
    scan = "_ZN3cub17CUB_300001_SM_9006detail4scan20DeviceScanInitKernelINS2_13ScanTileStateIiLb1EEEEEvT_i"
    assert scan in _behind_stub(f"_Z{len(scan) + 14}__device_stub_{scan}RN3cub17CUB_300001_SM_9006detail4scanE")
    assert "_Z15softsign_kernelPKfPfl" in _behind_stub("_ZL39__device_stub__Z15softsign_kernelPKfPflPKfPfl")
    assert "_Z11soft_kernelPKfPfi" in _behind_stub("_ZGVZL35__device_stub__Z11soft_kernelPKfPfiPKfPfiE5__tmp")
    assert "scale" in _behind_stub("_Z20__device_stub__scalePf")
    assert _behind_stub("_Z5scalePf") == _behind_stub("softsign_kernel") == ()


def test_the_word_for_device_side_launches_is_one_among_flags() -> None:
    commented = {"kernel.cu": "// -rdc=true\n__global__ void f() {}", "model.py": "class ModelNew: pass  # -rdc=true"}
    assert not starts_kernels_itself(Kernel.of(Language.CUDA, commented))
    assert starts_kernels_itself(Kernel.of(Language.CUDA, commented, ("-rdc=true",)))
    assert not starts_kernels_itself(Kernel.of(Language.MODULE, {"model.py": commented["model.py"]}))
    inline = "class ModelNew: pass\nload_inline(extra_cuda_cflags=['-rdc=true'])"
    assert starts_kernels_itself(Kernel.of(Language.MODULE, {"model.py": inline}))


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/usr/lib/x86_64-linux-gnu/libm.so.6", ""),
        (str(Path(torch.__file__).resolve().parent / "lib/libc10.so"), ""),
        (str(Path(sys.executable).resolve()), ""),
        ("[vdso]", ""),
        ("/tmp/libc10-1.so", "library"),
        ("/var/cache/elsewhere/libc.so.6", "library"),
        ("/usr/lib/x86_64-linux-gnu/libopenblas.so.0", "library"),
        ("", "library"),
        ("/dev/shm/libc10-1.so", "library"),
        ("/memfd:libc10.so (deleted)", "library"),
        ("/home/someone/libgomp.so.1 (deleted)", "library"),
        ("/scratch/libc10.so", "library"),
    ],
)
def test_a_file_is_waiting_by_its_name_only_where_it_was_installed(path: str, kind: str, tmp_path: Path) -> None:
    built = Built(package=tmp_path, build=Build(), caches={}, settings={})
    assert _stands_in(0x1500, [(0x1000, 0x2000, 0, path)], built, "/scratch")[0] == kind


def test_a_file_may_be_called_what_is_no_text(tmp_path: Path) -> None:
    built = Built(package=tmp_path, build=Build(), caches={}, settings={})
    _, name = _stands_in(0x1500, [(0x1000, 0x2000, 0, "/dev/shm/lib\udcff.so")], built, "/scratch")
    assert Share(name=name, kind="library", share=1.0).name == "lib?.so"


def test_strings_of_a_file_are_found_by_a_part_of_them(tmp_path: Path) -> None:
    file = tmp_path / "some.so"
    file.write_bytes(b"\0_ZZL12__device_stub__fE1x\0other\0__device_stub_" + b"\0" + b"a__device_stub_b")
    wanted = {"_ZZL12__device_stub__fE1x", "__device_stub_", "a__device_stub_b"}
    assert Symbols(file).strings_with("__device_stub_") == wanted
    assert Symbols(tmp_path / "none.so").strings_with("__device_stub_") == set()


def test_the_work_of_pytorch_is_no_custom_kernel(supervisor: Supervisor) -> None:
    large = scale_add().source.replace("rows, columns = 64, 100", "rows, columns = 1024, 1024")
    task = scale_add().model_copy(update={"source": large})
    request = EvaluateRequest(key="k", task=task, kernel=module("return x * self.weight + y"), options=QUICK)
    found = supervisor.handle(request)
    assert (found.verdict, found.rule) == (Verdict.REJECTED, "no custom kernel"), found.reason
    assert "library code" in found.reason


def test_a_kernel_of_its_own_is_seen_to_do_the_work(supervisor: Supervisor) -> None:
    found = supervisor.handle(EvaluateRequest(key="k", task=scale_add(), kernel=cpp(), options=QUICK))
    assert found.passed, found.reason
    attribution = found.workloads[0].attribution
    assert attribution is not None and attribution.own > attribution.library
