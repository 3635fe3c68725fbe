"""What real compilers print about small broken kernels, read back. nvcc needs no GPU."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from cudaforge_profiling.compilers import CompilerMessage, parse_gxx, parse_nvcc

NVCC = os.environ.get("CUDACXX") or shutil.which("nvcc")
GXX = os.environ.get("CXX") or shutil.which("g++")
needs_nvcc = pytest.mark.skipif(NVCC is None, reason="no nvcc")
needs_gxx = pytest.mark.skipif(GXX is None, reason="no g++")


def compiled(folder: Path, name: str, source: str, *arguments: str) -> str:
    """Everything the compiler of `name` says about `source`."""
    (folder / name).write_text(source, encoding="utf-8")
    compiler = NVCC if name.endswith(".cu") else GXX
    done = subprocess.run(
        [str(compiler), *arguments, name], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout + done.stderr


def errors(messages: list[CompilerMessage]) -> list[CompilerMessage]:
    return [message for message in messages if message.severity == "error"]


@needs_nvcc
def test_errors_of_the_front_end_have_file_line_column_and_source(tmp_path: Path) -> None:
    source = "__global__ void k(float* a) {\n  int unused;\n  a[0] = unknown + 1;\n  missing(a);\n}\n"
    messages = parse_nvcc(compiled(tmp_path, "kernel.cu", source, "-arch=sm_90", "-cubin"))
    first, second = errors(messages)
    assert (first.file, first.line, first.column, first.tool) == ("kernel.cu", 3, 10, "nvcc")
    assert first.message == 'identifier "unknown" is undefined'
    assert first.source_line == "a[0] = unknown + 1;"
    assert second.line == 4
    assert [m.line for m in messages if m.severity == "warning"] == [2]


@needs_nvcc
def test_errors_of_a_template_name_the_instantiation(tmp_path: Path) -> None:
    source = (
        'template <class T> struct S { static_assert(sizeof(T) == 2, "half"); };\n'
        "template <class T> __global__ void k(T* a) { S<T> s; }\n"
        "void go(float* p) { k<float><<<1, 1>>>(p); }\n"
    )
    (error,) = errors(parse_nvcc(compiled(tmp_path, "kernel.cu", source, "-arch=sm_90", "-cubin")))
    assert error.line == 1
    assert "T=float" in error.message and "at line 3" in error.message


@needs_nvcc
def test_errors_of_ptxas_say_that_their_line_is_not_the_kernels(tmp_path: Path) -> None:
    source = '__global__ void k() { asm volatile("setmaxnreg.inc.sync.aligned.u32 232;"); asm("bogus.x;"); }\n'
    found = errors(parse_nvcc(compiled(tmp_path, "kernel.cu", source, "-arch=sm_90", "-cubin")))
    assert {(e.tool, e.file, e.line) for e in found} == {("ptxas", "", 0)}
    assert any("setmaxnreg" in e.message for e in found)
    assert all("of the generated PTX, not of kernel.cu" in e.message for e in found)


@needs_nvcc
def test_errors_of_ptxas_without_a_line_name_the_function_readably(tmp_path: Path) -> None:
    source = (
        "__global__ void fat(float* a) {\n"
        "  __shared__ float s[20000];\n"
        "  s[threadIdx.x] = a[0];\n  __syncthreads();\n  a[1] = s[3];\n}\n"
    )
    (error,) = errors(parse_nvcc(compiled(tmp_path, "kernel.cu", source, "-arch=sm_90", "-cubin")))
    assert error.tool == "ptxas"
    assert "'fat'" in error.message and "too much shared data" in error.message


@needs_nvcc
def test_hints_on_lost_performance_are_warnings(tmp_path: Path) -> None:
    source = '__global__ void k(float* a) { asm volatile("setmaxnreg.inc.sync.aligned.u32 232;"); a[1] = 1; }\n'
    messages = parse_nvcc(compiled(tmp_path, "kernel.cu", source, "-arch=sm_90a", "-Xptxas", "-v", "-cubin"))
    assert [(m.severity, m.tool) for m in messages] == [("warning", "ptxas")]
    assert "setmaxnreg" in messages[0].message


@needs_nvcc
def test_a_missing_header_comes_from_the_host_compiler(tmp_path: Path) -> None:
    text = compiled(tmp_path, "kernel.cu", '#include "nowhere.h"\n', "-arch=sm_90", "-cubin")
    (error,) = errors(parse_nvcc(text))
    assert (error.tool, error.file, error.line, error.column) == ("g++", "kernel.cu", 1, 10)
    assert error.source_line == '#include "nowhere.h"'


@needs_nvcc
def test_wrong_arguments_of_nvcc_are_reported(tmp_path: Path) -> None:
    (error,) = parse_nvcc(compiled(tmp_path, "kernel.cu", "", "-arch=sm_999", "-cubin"))
    assert (error.severity, error.tool) == ("error", "nvcc")
    assert "sm_999" in error.message


@needs_gxx
def test_errors_and_warnings_of_gxx(tmp_path: Path) -> None:
    source = 'int f() {\n  int x = "s";\n  return y;\n}\n'
    messages = parse_gxx(compiled(tmp_path, "kernel.cpp", source, "-Wall", "-c"))
    assert [(m.line, m.column, m.tool) for m in errors(messages)] == [(2, 11, "g++"), (3, 10, "g++")]
    assert errors(messages)[1].source_line == "return y;"
    assert [m.line for m in messages if m.severity == "warning"] == [2]


@needs_gxx
def test_an_undefined_function_is_an_error_of_the_linker(tmp_path: Path) -> None:
    source = 'void missing();\nextern "C" void f() { missing(); }\n'
    text = compiled(tmp_path, "kernel.cpp", source, "-shared", "-fPIC", "-Wl,--no-undefined", "-o", "k.so")
    (error,) = parse_gxx(text)
    assert error.tool == "ld"
    assert "missing()" in error.message


@needs_gxx
def test_wrong_arguments_of_gxx_are_reported(tmp_path: Path) -> None:
    (error,) = parse_gxx(compiled(tmp_path, "kernel.cpp", "", "-fno-such-flag", "-c"))
    assert (error.severity, error.tool, error.line) == ("error", "g++", 0)


def test_a_killed_compiler_is_reported() -> None:
    (error,) = parse_gxx("g++: fatal error: Killed signal terminated program cc1plus\ncompilation terminated.\n")
    assert "Killed" in error.message


@pytest.mark.parametrize("parse", [parse_nvcc, parse_gxx])
def test_clean_output_has_no_messages(parse: object) -> None:
    assert callable(parse)
    assert parse("") == []
    assert parse("kernel.cu\nptxas info    : 0 bytes gmem\nsomething: else\n") == []
