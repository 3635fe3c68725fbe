"""Extensions built with the slim headers do what plain ones do; what those headers do not serve is built plainly.

Plain builds take half a minute: one serves all comparisons, one shows the way back.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.utils.cpp_extension
from support.extensions import CUDA, cuda_builds
from support.tasks import module, scale_add

from cudaforge.engine import inline
from cudaforge.engine.builder import compile_kernel
from cudaforge.engine.hosts import CandidateHost
from cudaforge.engine.supervisor import Supervisor
from cudaforge.evaluation import EvaluateOptions, EvaluateRequest, Evaluation, Verdict

EXTENSION: Any = torch.utils.cpp_extension

SURFACE = r"""
#include <torch/extension.h>
#include <sstream>

std::string describe(const at::Tensor& x) {
  std::ostringstream out;
  out << x.dim() << " " << x.ndimension() << " " << x.numel() << " " << x.sizes() << " " << x.strides() << " "
      << x.size(-1) << " " << x.stride(0) << " " << x.scalar_type() << " " << x.device() << " " << x.is_cuda() << " "
      << x.is_contiguous() << " " << x.element_size() << " " << x.nbytes() << " " << x.is_floating_point() << " "
      << x.storage_offset() << " " << x.defined() << " " << static_cast<int>(x.get_device()) << " "
      << (x.dtype() == torch::kFloat32) << (x.dtype() != at::kHalf) << x.type().is_cuda() << " "
      << (x.data_ptr() == x.const_data_ptr()) << " " << (x.device() == torch::kCPU) << " " << x.sizes().vec().size();
  return out.str();
}

std::vector<torch::Tensor> makers(torch::Tensor x) {
  auto options = torch::TensorOptions().dtype(torch::kFloat64).device(x.device());
  auto filled = torch::empty(x.sizes(), x.options());
  filled.fill_(2.5);
  auto strided = torch::empty_strided({2, 3}, {1, 2}, options);
  strided.zero_();
  auto like = torch::empty_like(x);
  like.copy_(x);
  return {filled, strided, like, torch::zeros({2, 3}, options), torch::ones({4}, torch::kInt32), torch::zeros({2}),
          torch::zeros_like(x), torch::ones_like(x), torch::full({2, 2}, 7, x.options()),
          torch::full({2}, 1.5, torch::dtype(torch::kFloat16)), torch::zeros_like(x, options),
          torch::empty({0, 3}, torch::device(torch::kCPU).dtype(torch::kBool))};
}

std::vector<torch::Tensor> views(torch::Tensor x) {  // of 4 x 6
  return {x.view({2, 12}), x.view(-1), x.reshape({3, 8}), x.transpose(0, 1), x.t(), x.permute({1, 0}), x.unsqueeze(1),
          x.unsqueeze(0).squeeze(), x.unsqueeze(1).squeeze(1), x.flatten(), x.unsqueeze(0).expand({3, 4, 6}),
          x.select(1, 2), x.narrow(0, 1, 2), x.t().contiguous(), x.t().clone(), x.detach(), x.to(torch::kFloat64),
          x.to(at::kHalf), x.cpu(), x.to(torch::Device(torch::kCPU)), torch::matmul(x, x.t()), x.mm(x.t()), x.sum()};
}

std::vector<torch::Tensor> operators(torch::Tensor x) {
  return {x.relu(), torch::sigmoid(x), x.tanh(), torch::exp(x), x.abs().sqrt(), x.mul(x), torch::div(x, x.exp()),
          x.sum(1), x.sum({0, 1}, true), x.mean(0), torch::cat({x, x}, 1), torch::stack({x, x}),
          torch::linear(x, x), torch::linear(x, x, x.select(1, 0)), torch::bmm(x.view({1, 4, 6}), x.view({1, 6, 4}))};
}

torch::Tensor accessed(torch::Tensor x) {
  auto out = torch::zeros_like(x);
  auto from = x.accessor<float, 2>();
  auto to = out.packed_accessor32<float, 2>();
  for (int64_t i = 0; i < from.size(0); ++i)
    for (int64_t j = 0; j < from.size(1); ++j) to[i][j] = from[i][j] * to.size(1);
  return out;
}

torch::Tensor twice(torch::Tensor x) {
  auto y = torch::empty_like(x);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::ScalarType::Half, at::ScalarType::BFloat16, x.scalar_type(), "twice", ([&] {
    const scalar_t* from = x.data_ptr<scalar_t>();
    scalar_t* to = y.data_ptr<scalar_t>();
    for (int64_t i = 0; i < x.numel(); ++i) to[i] = from[i] * scalar_t(2) + static_cast<scalar_t>(0.1f);
  }));
  return y;
}

std::tuple<int64_t, double, bool, std::string, double, int64_t, int64_t> scalars(
    int64_t a, double b, bool c, std::string d, float e, int f, uint32_t g) {
  return {a + 1, b * 2, !c, d + "!", e * 3, f - 1, g};
}

std::pair<torch::Tensor, int64_t> maybe(const torch::Tensor& x, std::optional<torch::Tensor> bias,
                                        c10::optional<double> by) {
  auto out = x.clone();
  if (bias.has_value()) out.copy_(*bias);
  return {out, by ? static_cast<int64_t>(*by) : -1};
}

std::vector<int64_t> many(std::vector<torch::Tensor> tensors, const std::vector<int64_t>& more) {
  std::vector<int64_t> out(more);
  for (auto& tensor : tensors) out.push_back(tensor.numel());
  return out;
}

void in_place(torch::Tensor& x) { x.zero_(); }
torch::Tensor same(torch::Tensor x) { return x; }
torch::Tensor undefined() { return torch::Tensor(); }
int64_t undefined_numel() { torch::Tensor x; return x.numel() + (x.defined() ? 100 : 0); }
double item(torch::Tensor x) { return x.item<double>() + x.item<float>(); }

void failing(torch::Tensor x, int64_t kind) {
  if (kind == 0) TORCH_CHECK(x.dim() == 7, "got ", x.dim(), " of ", x.sizes());
  if (kind == 1) TORCH_CHECK(x.dim() == 7);
  if (kind == 2) throw std::runtime_error("a runtime error");
  if (kind == 3) throw std::invalid_argument("an invalid argument");
  if (kind == 4) throw std::out_of_range("out of range");
  if (kind == 5) x.size(5);
  if (kind == 6) x.data_ptr<double>();
  if (kind == 7) x.view({5, 5});
  if (kind == 8) TORCH_INTERNAL_ASSERT(x.dim() == 7, "internally");
  if (kind == 9) twice(x.to(torch::kInt32));
  if (kind == 10) x.transpose(0, 9);
  if (kind == 11) AT_ERROR("an error of ", 11);
}

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.doc() = "everything";
  m.def("describe", torch::wrap_pybind_function(describe), "describe");
  m.def("makers", &makers, "makers");
  m.def("views", &views);
  m.def("operators", &operators);
  m.def("accessed", &accessed);
  m.def("twice", torch::wrap_pybind_function(twice), "twice");
  m.def("scalars", &scalars, "scalars", py::arg("a"), py::arg("b") = 1.5, py::arg("c") = true, py::arg("d") = "d",
        py::arg("e") = 0.5f, py::arg("f") = 3, py::arg("g") = 4);
  m.def("maybe", &maybe, py::arg("x"), py::arg("bias") = std::nullopt, py::arg("by") = std::nullopt);
  m.def("many", &many);
  m.def("in_place", &in_place);
  m.def("same", &same);
  m.def("undefined", &undefined);
  m.def("undefined_numel", &undefined_numel);
  m.def("item", &item);
  m.def("failing", torch::wrap_pybind_function(failing), "failing");
  m.def("failing_raw", &failing);
  m.def("added", [](int64_t a, int64_t b) { return a + b; });
}
"""


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    """What a test makes of cpp_extension ends with it."""
    names = ("_write_ninja_file_and_build_library", "FileBaton")
    before = {name: getattr(EXTENSION, name) for name in names}
    yield
    for name, value in before.items():
        setattr(EXTENSION, name, value)


def load(name: str, source: str, folder: Path, functions: list[str] | None = None) -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    arguments = {"no_implicit_headers": functions is None, "extra_cflags": ["-O1"]}
    return EXTENSION.load_inline(name, source, functions=functions, build_directory=str(folder), **arguments)


def record(folder: Path, name: str) -> dict[str, str]:
    return dict(json.loads((folder / f"{name}.built.json").read_text()))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The surface, built plainly and with the slim headers."""
    folder = tmp_path_factory.mktemp("surface")
    before = EXTENSION._write_ninja_file_and_build_library
    made = {"plain": load("surface_plain", SURFACE, folder / "plain")}
    inline.accelerate()
    try:
        made["slim"] = load("surface_slim", SURFACE, folder / "slim")
    finally:
        EXTENSION._write_ninja_file_and_build_library = before
    assert record(folder / "slim", "surface_slim")["how"] == "slim", record(folder / "slim", "surface_slim")["why"]
    return made


def matrix() -> torch.Tensor:
    return torch.arange(24, dtype=torch.float32).reshape(4, 6) - 11.5


CALLS: dict[str, Callable[[Any], Any]] = {
    "describe": lambda m: m.describe(matrix()),
    "describe a view": lambda m: m.describe(matrix().half()[1:, ::2].t()),
    "describe whole numbers": lambda m: m.describe(torch.ones(2, dtype=torch.int64)),
    "describe bfloat16": lambda m: m.describe(torch.ones(2, 1, dtype=torch.bfloat16)),
    "describe a scalar": lambda m: m.describe(torch.tensor(1.0)),
    "makers": lambda m: m.makers(matrix()),
    "makers like a view": lambda m: m.makers(matrix().t()),
    "makers like every second column": lambda m: m.makers(matrix()[:, ::2]),
    "views": lambda m: m.views(matrix()),
    "views of a parameter": lambda m: m.views(torch.nn.Parameter(matrix())),
    "operators": lambda m: m.operators(matrix()),
    "accessed": lambda m: m.accessed(matrix().t()),
    "accessed, wrong type": lambda m: m.accessed(matrix().double()),
    "accessed, wrong dimension": lambda m: m.accessed(matrix()[0]),
    "twice": lambda m: m.twice(matrix()),
    "twice, half": lambda m: m.twice(matrix().half()),
    "twice, bfloat16": lambda m: m.twice(matrix().bfloat16()),
    "twice of no tensor": lambda m: m.twice(3),
    "twice of None": lambda m: m.twice(None),
    "twice, too many": lambda m: m.twice(matrix(), 1),
    "twice, by name": lambda m: m.twice(x=matrix()),
    "scalars": lambda m: m.scalars(1, 2, False, "x", 1, 2, 3),
    "scalars, defaults": lambda m: m.scalars(1, d="named", b=3),
    "scalars of tensors": lambda m: m.scalars(torch.tensor(5), torch.tensor(2.5), 0, "x"),
    "scalars, None for a flag": lambda m: m.scalars(1, 2.0, None),
    "scalars, a float for a whole number": lambda m: m.scalars(1.5),
    "scalars, a float tensor for a whole number": lambda m: m.scalars(torch.tensor(5.7)),
    "scalars, negative for unsigned": lambda m: m.scalars(1, g=-1),
    "scalars, too large": lambda m: m.scalars(1, f=1 << 40),
    "scalars, text for a number": lambda m: m.scalars("1"),
    "scalars, bytes for text": lambda m: m.scalars(1, d=b"bytes"),
    "scalars, twice the same": lambda m: m.scalars(1, a=2),
    "scalars, an unknown name": lambda m: m.scalars(1, z=2),
    "maybe": lambda m: m.maybe(matrix()),
    "maybe, given": lambda m: m.maybe(matrix(), matrix() * 2, 4),
    "maybe, wrong": lambda m: m.maybe(matrix(), 3),
    "many": lambda m: m.many([matrix(), matrix()[0]], (3, 4)),
    "many, nothing": lambda m: m.many([], []),
    "many, wrong": lambda m: m.many([1], []),
    "undefined": lambda m: m.undefined(),
    "undefined_numel": lambda m: m.undefined_numel(),
    "item": lambda m: m.item(torch.tensor([3], dtype=torch.int32)),
    "added": lambda m: m.added(1, 2),
    "doc": lambda m: m.__doc__,
}


def outcome(call: Callable[[Any], Any], library: Any) -> Any:
    try:
        with torch.inference_mode():
            return call(library)
    except Exception as error:
        # pybind11 says more about arguments that do not fit; where in torch's source an error was raised differs.
        words = str(error).splitlines()[0].partition("(): incompatible")
        return type(error), words[0] + words[1]


@pytest.mark.parametrize("name", CALLS)
def test_a_call_gives_what_it_gives_with_plain_torch(both: dict[str, Any], name: str) -> None:
    slim, plain = (outcome(CALLS[name], both[how]) for how in ("slim", "plain"))
    assert type(slim) is type(plain)
    assert_same(slim, plain)


def assert_same(slim: Any, plain: Any) -> None:
    if isinstance(plain, list | tuple):
        assert len(slim) == len(plain)
        for one, other in zip(slim, plain, strict=True):
            assert type(one) is type(other)
            assert_same(one, other)
    elif isinstance(plain, torch.Tensor):
        assert (slim.dtype, slim.shape, slim.stride()) == (plain.dtype, plain.shape, plain.stride())
        assert torch.equal(slim, plain)
    else:
        assert slim == plain


@pytest.mark.parametrize("kind", range(12))
@pytest.mark.parametrize("how", ["failing", "failing_raw"])
def test_an_error_is_the_exception_that_it_is_with_plain_torch(both: dict[str, Any], how: str, kind: int) -> None:
    slim, plain = (outcome(lambda m: getattr(m, how)(matrix(), kind), both[name]) for name in ("slim", "plain"))
    assert slim[0] is plain[0]
    paths = [text.replace(name, "NAME") for name, (_, text) in (("slim", slim), ("plain", plain))]
    assert paths[0] == paths[1]


def test_what_is_returned_is_the_tensor_that_was_given(both: dict[str, Any]) -> None:
    x = torch.nn.Parameter(matrix())
    assert both["slim"].same(x) is x
    y = matrix()
    both["slim"].in_place(y)
    assert not y.any()


def test_operators_are_seen_by_what_watches_torchs_dispatcher(both: dict[str, Any]) -> None:
    from cudaforge.engine.guards import GuardedAllocations

    with torch.inference_mode(), GuardedAllocations() as guarded:
        both["slim"].makers(matrix())
        assert len(guarded.kept) >= 8


def test_an_unknown_interface_is_built_plainly_and_not_tried_twice(tmp_path: Path) -> None:
    source = "torch::Tensor f(torch::Tensor x) { return torch::cumsum(x, 0); }"
    inline.accelerate()
    built = load("unknown", source, tmp_path, ["f"])
    assert built.f(torch.ones(3)).tolist() == [1, 2, 3]
    found = record(tmp_path, "unknown")
    assert found["how"] == "plain"
    assert "cumsum" in found["why"]
    assert not (tmp_path / "slim-unknown").exists()

    def never(*_: Any) -> None:
        raise AssertionError("tried again")

    before, inline.build_slim = inline.build_slim, never
    try:  # ninja, which has nothing to do
        EXTENSION._write_ninja_file_and_build_library(**arguments_of(tmp_path, "unknown"))
    finally:
        inline.build_slim = before
    inline.use_what_was_built()
    EXTENSION._write_ninja_file_and_build_library(**arguments_of(tmp_path, "unknown"))


def arguments_of(folder: Path, name: str) -> dict[str, Any]:
    """What torch hands on for `load(name, source, folder, functions)`."""
    empty = {f"extra_{kind}": [] for kind in ("cuda_cflags", "sycl_cflags", "ldflags", "include_paths")}
    return {
        **empty,
        "extra_cflags": ["-O1"],
        "name": name,
        "sources": [str(folder / "main.cpp")],
        "build_directory": str(folder),
        "verbose": False,
        "with_cuda": False,
        "with_sycl": False,
        "is_standalone": False,
    }


def test_what_is_loaded_is_what_was_built_of_the_same_sources(tmp_path: Path) -> None:
    inline.accelerate()
    load("checked", "int64_t f() { return 1; }", tmp_path, ["f"])
    inline.use_what_was_built()
    build = EXTENSION._write_ninja_file_and_build_library
    build(**arguments_of(tmp_path, "checked"))
    with pytest.raises(ImportError, match="must be the same"):
        build(**{**arguments_of(tmp_path, "checked"), "extra_cflags": ["-O3"]})
    source = tmp_path / "main.cpp"
    source.write_text(source.read_text() + "\n// another\n")
    with pytest.raises(ImportError, match="must be the same"):
        build(**arguments_of(tmp_path, "checked"))


def test_files_that_load_is_given_are_built_in_the_same_way(tmp_path: Path) -> None:
    (tmp_path / "one.cpp").write_text(
        "#include <torch/types.h>\nat::Tensor one(at::Tensor x) { return at::zeros_like(x); }"
    )
    (tmp_path / "two.cpp").write_text(
        "#include <torch/extension.h>\nat::Tensor one(at::Tensor x);\n"
        'PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) { m.def("one", &one, "zeros"); }'
    )
    sources = [str(tmp_path / name) for name in ("one.cpp", "two.cpp")]
    inline.accelerate()
    built = EXTENSION.load("files", sources, build_directory=str(tmp_path))
    assert record(tmp_path, "files")["how"] == "slim", record(tmp_path, "files")["why"]
    assert built.one(torch.ones(2)).tolist() == [0, 0]
    with pytest.raises(TypeError):
        built.one(x=torch.ones(2))


def test_a_broken_source_has_plain_torchs_diagnostics(tmp_path: Path) -> None:
    inline.accelerate()
    with pytest.raises(RuntimeError, match=r"Error building extension 'broken'(.|\n)*main.cpp") as failure:
        load("broken", "#include <no/such/header.h>\nint64_t f() { return 1; }", tmp_path)
    assert "torch_slim" not in str(failure.value)


EVALUATED = """
from torch.utils.cpp_extension import load_inline
CPP = '''
torch::Tensor scale_add(torch::Tensor x, torch::Tensor w, torch::Tensor y) {
  auto out = torch::empty_like(x);
  const float *a = x.data_ptr<float>(), *s = w.data_ptr<float>(), *b = y.data_ptr<float>();
  float* o = out.data_ptr<float>();
  const int64_t rows = x.size(0), columns = x.size(1);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c) o[r * columns + c] = a[r * columns + c] * s[c] + b[r * columns + c];
  return out;
}
'''
extension = load_inline("scale_add_inline", CPP, functions=["scale_add"], extra_cflags=["-O3"])
"""


def test_a_module_kernel_is_judged_with_what_the_builder_has_built(supervisor: Supervisor) -> None:
    kernel = module("return extension.scale_add(x, self.weight, y)", before=EVALUATED)
    options = EvaluateOptions(trials=2, time_budget_s=0.05, run_timeout_s=20)
    found = supervisor.handle(EvaluateRequest(key="k", task=scale_add(), kernel=kernel, options=options))
    assert isinstance(found, Evaluation)
    assert found.verdict is Verdict.PASSED, found.reason
    (kept,) = supervisor.cache.rglob("scale_add_inline.built.json")
    assert json.loads(kept.read_text())["how"] == "slim"
    (timing,) = found.workloads
    assert timing.attribution is not None
    assert timing.attribution.own > 0
    built = compile_kernel(kernel, supervisor.device, supervisor.cache, 60)
    assert built.build.cached
    reference = supervisor._reference(scale_add(), scale_add().meta.workloads[0])
    under_a_tool = CandidateHost(kernel, built, reference, 60, wrapper=("/usr/bin/env",))
    under_a_tool.close()  # it has loaded the extension: its cache is read-only there, too


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
@pytest.mark.parametrize("name", CUDA)
def test_typical_cuda_sources_build_with_the_slim_headers(tmp_path: Path, name: str) -> None:
    source, declaration = CUDA[name]
    inline.accelerate()
    folder = tmp_path / "built"
    folder.mkdir()
    with cuda_builds(tmp_path / "stand-ins") as arguments:
        made = EXTENSION.load_inline(
            name, [declaration], [source], functions=[name], build_directory=str(folder), **arguments
        )
    assert record(folder, name)["how"] == "slim", record(folder, name)["why"]
    assert callable(getattr(made, name))
