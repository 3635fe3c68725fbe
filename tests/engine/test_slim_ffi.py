"""Kernels built with the slim tvm-ffi headers do what those built with its own do; what they lack is built plainly."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import tvm_ffi
from tvm_ffi import libinfo

from cudaforge import kernel_loader
from cudaforge.engine import slim_ffi
from cudaforge.engine.builder import BuildFailed, Built, compile_kernel
from cudaforge.kernel import Kernel, Language
from cudaforge_profiling.compilers import parse_gxx
from cudaforge_profiling.devices import cpu_device

ROOT = Path(__file__).parents[2]
MODEL = "from torch import nn\n\nclass ModelNew(nn.Module):\n    def forward(self, x):\n        return x\n"
HEAD = """#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>
using tvm::ffi::TensorView;
"""

SURFACE = (
    HEAD
    + """
#include <tvm/ffi/error.h>
#include <cmath>

static void write(TensorView out, std::initializer_list<double> values) {
  double* to = static_cast<double*>(out.data_ptr());
  for (double value : values) *to++ = value;
}

void look(TensorView x, TensorView out) {
  double shape = 0, strides = 0;
  for (int64_t each : x.shape()) shape = 10 * shape + each;
  for (int64_t each : x.strides()) strides = 10 * strides + each;
  const DLDataType half{kDLFloat, 16, 1}, single{kDLFloat, 32, 1};
  write(out, {double(x.ndim()), double(x.dim()), double(x.numel()), shape, strides, double(x.size(0)),
              double(x.size(-1)), double(x.stride(-1)), double(x.sizes()[0]), double(x.shape().size()),
              double(x.shape().back()), double(x.is_contiguous()), double(x.IsContiguous()), double(x.dtype() == half),
              double(x.dtype() != single), double(x.dtype().code), double(x.dtype().bits),
              double(x.device().device_type), double(x.device().device_id), double(x.byte_offset()),
              double(tvm::ffi::GetDataSize(x)), double(x.data_ptr() != nullptr)});
}

void scalars(int a, int64_t b, float c, double d, bool e, uint8_t f, const double& g, TensorView out) {
  write(out, {double(a), double(b), double(c), d, double(e), double(f), g});
}

int64_t whole(int64_t x) { return x / 2; }
double real(double x) { return std::sqrt(x); }
bool even(int x) { return x % 2 == 0; }
void nothing() {}
int64_t address(void* pointer) { return reinterpret_cast<int64_t>(pointer) ? 1 : 0; }
int64_t raw(DLTensor* x) { return x->ndim; }
const bool odd(const int64_t& x) { return x % 2 != 0; }
int64_t listed() { return tvm::ffi::ShapeView({0, 3}).size(); }
struct Of {
  static const int kRank = 2;
};

void complain(TensorView x, int how) {
  enum Colour { red, green };
  const char* words = "words";
  if (how == 0) TVM_FFI_THROW(ValueError) << "x has " << x.size(0) << " rows, " << words << std::string(" and ") << 1.5f
      << ' ' << 1e-9 << ' ' << true << ' ' << 3000000000u << ' ' << int8_t(65) << ' ' << green << ' ' << size_t(7);
  if (how == 1) TVM_FFI_ICHECK(x.ndim() == 5) << "five dimensions";
  if (how == 2) TVM_FFI_ICHECK_EQ(x.size(0), 5) << "rows";
  if (how == 3) TVM_FFI_CHECK(x.ndim() > 5, RuntimeError) << "more";
  if (how == 4) TVM_FFI_CHECK_LT(x.size(1), 2, IndexError) << "columns of " << x.ndim();
  if (how == 5) x.size(7);
  if (how == 6) x.shape().at(9);
  if (how == 7) throw std::runtime_error("of the standard library");
  TVM_FFI_ICHECK_EQ(x.ndim(), Of::kRank) << "a constant without a definition";
  if (how == 8) TVM_FFI_THROW(NotImplementedError);
  if (how == 9) TVM_FFI_CHECK_GE(1.25, 2.5, ValueError);
  if (how == 10) {
    try {
      TVM_FFI_THROW(KeyError) << "inner";
    } catch (const tvm::ffi::Error& error) {
      TVM_FFI_THROW(ValueError) << error.kind() << " " << error.message() << " " << error.what();
    }
  }
  if (how == 11)
    TVM_FFI_ICHECK_NE(x.ndim(), 2);
  else
    TVM_FFI_ICHECK_LE(how, 3);
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(look, look);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(scalars, scalars);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(whole, whole);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(real, real);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(even, even);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(nothing, nothing);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(address, address);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(raw, raw);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(odd, odd);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(listed, listed);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(complain, complain);
TVM_FFI_DLL_EXPORT_TYPED_FUNC_DOC(complain, "Raises.");
"""
)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any]]:
    """The same source with the slim headers and with tvm-ffi's own, loaded."""
    folder = tmp_path_factory.mktemp("pair")
    source = folder / "kernel.cpp"
    source.write_text(SURFACE)
    assert slim_ffi.serves(SURFACE)
    for name in ("slim", "plain"):
        command = kernel_loader.compile_command(source, folder / f"{name}.so", [], "native")
        command = slim_ffi.with_slim_headers(command) if name == "slim" else command
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert not [m for m in parse_gxx(done.stderr) if m.severity != "note"]
    yield tvm_ffi.load_module(str(folder / "slim.so")), tvm_ffi.load_module(str(folder / "plain.so"))


def outcome(call: Any, *arguments: Any) -> tuple[Any, ...]:
    """What a call gives: its result with its type, or its error's type, text and the lines of C++ that it names."""
    try:
        result = call(*arguments)
    except Exception as error:
        frames, trace = [], error.__traceback__
        while trace:
            if trace.tb_frame.f_code.co_filename.endswith("kernel.cpp"):
                frames.append((trace.tb_lineno, trace.tb_frame.f_code.co_name.partition("(")[0]))
            trace = trace.tb_next
        # Where the helpers of a check stand is each one's own business.
        return type(error).__name__, str(error), [frame for frame in frames if "complain" in frame[1]]
    return type(result).__name__, result


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(3, 4),
        torch.zeros(3, 4).t(),
        torch.zeros(2, 1, 5, dtype=torch.float16),
        torch.zeros(2, 0, 5, dtype=torch.bfloat16)[:, :, ::2],
        torch.zeros(6, dtype=torch.int64)[1:],
        torch.zeros(4, 4)[::2],
        torch.zeros(1, 4, 1)[:, ::2],
        torch.zeros(3, dtype=torch.bool),
    ],
    ids=lambda x: f"{str(x.dtype).removeprefix('torch.')}-{tuple(x.shape)}-{x.stride()}",
)
def test_tensors_look_the_same(pair: tuple[Any, Any], x: torch.Tensor) -> None:
    seen = [torch.full((32,), -7.0, dtype=torch.float64) for _ in pair]
    for library, out in zip(pair, seen, strict=True):
        library.look(x, out)
    assert torch.equal(*seen)
    assert int(seen[0][0]) == x.dim()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("whole", (7,)),
        ("whole", (True,)),
        ("whole", (2.0,)),
        ("whole", ("7",)),
        ("whole", (None,)),
        ("whole", ()),
        ("whole", (1, 2)),
        ("real", (2,)),
        ("real", (2.25,)),
        ("real", (torch.zeros(2),)),
        ("even", (4,)),
        ("even", (2**32 + 1,)),
        ("nothing", ()),
        ("nothing", (1,)),
        ("address", (None,)),
        ("address", (5,)),
        ("raw", (torch.zeros(2, 3),)),
        ("raw", ([1],)),
        ("odd", (3,)),
        ("odd", ("3",)),
        ("listed", ()),
        ("look", (torch.zeros(2),)),
        ("look", (torch.zeros(2), 3)),
        ("look", (torch.zeros(()), "out")),
        *(("complain", (torch.zeros(3, 4), how)) for how in range(13)),
    ],
)
def test_results_and_errors_are_the_same(pair: tuple[Any, Any], name: str, arguments: tuple[Any, ...]) -> None:
    slim, plain = (outcome(getattr(library, name), *arguments) for library in pair)
    assert slim == plain


def test_scalars_arrive(pair: tuple[Any, Any]) -> None:
    seen = [torch.zeros(7, dtype=torch.float64) for _ in pair]
    for library, out in zip(pair, seen, strict=True):
        library.scalars(-5, 2**40, 0.1, 0.1, True, 300, 2, out)
    assert torch.equal(*seen)
    assert seen[0][1] == 2**40


def test_no_header_of_the_standard_library_is_there_that_is_not_with_the_plain_ones() -> None:
    def files(*includes: str) -> set[str]:
        command = ["g++", "-std=c++17", "-M", *includes, "-x", "c++", "-"]
        listed = subprocess.run(command, input=HEAD, capture_output=True, text=True, check=True).stdout
        return {part for part in listed.split() if part.startswith("/") and "tvm_" not in part}

    plain = [f"-I{path}" for path in map(str, libinfo.include_paths())]
    slim = files(f"-I{slim_ffi.SLIM}", *plain)
    assert any(path.endswith("/string") for path in slim)
    assert slim <= files(*plain)


# -- the builder ---------------------------------------------------------------------------------------------------


def build(tmp_path: Path, source: str) -> Built:
    """A C++ kernel of one source, built anew."""
    kernel = Kernel.of(Language.CPP, {"kernel.cpp": source, "model.py": MODEL})
    return compile_kernel(kernel, cpu_device(), tmp_path, 120.0)


def used_slim(built: Built) -> bool:
    """Whether the binary was made with the slim headers."""
    return f"-I{slim_ffi.SLIM}" in built.build.command


def test_a_kernel_that_needs_no_more_is_built_with_the_slim_headers(tmp_path: Path) -> None:
    assert used_slim(build(tmp_path, HEAD + "void f(TensorView x) {}\nTVM_FFI_DLL_EXPORT_TYPED_FUNC(f, f);"))


@pytest.mark.parametrize(
    "source",
    [
        "#include <tvm/ffi/container/array.h>\nint64_t f(tvm::ffi::Array<int64_t> x) { return x.size(); }",
        "int64_t f(tvm::ffi::Tensor x) { return x.numel(); }",
        "std::string f(std::string x) { return x; }",
        "uint64_t f(uint64_t x) { return x; }",
        "using namespace tvm::ffi;\nint64_t f(int64_t x) { return x; }",
        "#ifndef TVM_FFI_INLINE\n#endif\nint64_t f(int64_t x) { return x; }",
        "#if __has_include(<cudaforge_slim/ffi.h>)\n#endif\nint64_t f(int64_t x) { return x; }",
    ],
    ids=[
        *("a header that is not served", "a class that is not", "an argument that is not", "a range that is checked"),
        *("names that are missing might clash", "it looks for a macro", "it looks for a header"),
    ],
)
def test_whatever_else_is_built_plainly(tmp_path: Path, source: str) -> None:
    assert not used_slim(build(tmp_path, HEAD + source + "\nTVM_FFI_DLL_EXPORT_TYPED_FUNC(f, f);"))


@pytest.mark.parametrize(
    ("source", "flags"),
    [
        ("#include <tvm/ffi/function.h>\nvoid f(tvm::ffi::TensorView x) {}", ()),
        ("// #include <tvm/ffi/container/tensor.h>\n#include <tvm/ffi/function.h>\nvoid f() {}", ()),
        ("#define N 1024\n" + HEAD, ()),
        ("#define H <tvm/ffi/any.h>\n#include H\n" + HEAD, ()),
        (HEAD + "#include WHAT\n", ()),
        (HEAD, ("-Wall", "-Werror")),
        (HEAD, ("-DN=4",)),
    ],
)
def test_what_the_two_might_see_otherwise_is_not_served(source: str, flags: tuple[str, ...]) -> None:
    assert not slim_ffi.serves(source, flags)
    assert slim_ffi.serves("#include <cmath>\n" + HEAD + "#define N 1024\n", ("-O3", "-ffast-math"))


def test_what_is_verified_is_built_as_its_user_will_build_it(tmp_path: Path) -> None:
    source = HEAD + "void f(TensorView x) {}\nTVM_FFI_DLL_EXPORT_TYPED_FUNC(f, f);"
    kernel = Kernel.of(Language.CPP, {"kernel.cpp": source, "model.py": MODEL})
    assert used_slim(compile_kernel(kernel, cpu_device(), tmp_path, 120.0))
    plain = compile_kernel(kernel, cpu_device(), tmp_path, 120.0, as_it_leaves=True)
    assert not used_slim(plain) and not plain.build.cached
    assert compile_kernel(kernel, cpu_device(), tmp_path, 120.0, as_it_leaves=True).build.cached


def test_a_mistake_is_told_as_with_the_plain_headers(tmp_path: Path) -> None:
    source = HEAD + "void f(TensorView x) { float* p = x.data_ptr(); }\nTVM_FFI_DLL_EXPORT_TYPED_FUNC(f, f);"
    with pytest.raises(BuildFailed) as failed:
        build(tmp_path, source)
    assert failed.value.reason.startswith("kernel.cpp:4: invalid conversion from")
    assert f"-I{slim_ffi.SLIM}" not in failed.value.build.command


SHIPPED = sorted(
    path
    for folder in ("cudaforge/selftest/suite", "prompts/cudaforge_prompts/examples", "examples")
    for suffix in ("cu", "cpp")
    for path in (ROOT / folder).rglob(f"kernel.{suffix}")
)


def test_all_kernels_that_are_shipped_include_only_what_is_served() -> None:
    assert len(SHIPPED) > 50
    others = [str(path.relative_to(ROOT)) for path in SHIPPED if not slim_ffi.serves(path.read_text())]
    assert not others
