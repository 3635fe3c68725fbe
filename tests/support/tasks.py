"""Small tasks and kernels for tests of the engine."""

from __future__ import annotations

from cudaforge.kernel import Kernel, Language
from cudaforge.task import Task

SCALE_ADD = """
import torch
from torch import nn

rows, columns = 64, 100

class Model(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n))

    def forward(self, x, y):
        return x * self.weight + y

def get_inputs():
    return [torch.randn(rows, columns), torch.randn(rows, columns)]

def get_init_inputs():
    return [columns]
"""

KERNEL_CPP = """
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>
using tvm::ffi::TensorView;
void scale_add(TensorView x, TensorView w, TensorView y, TensorView out) {
  const float *a = (const float*)x.data_ptr(), *b = (const float*)w.data_ptr(), *c = (const float*)y.data_ptr();
  float* o = (float*)out.data_ptr();
  const int64_t rows = x.size(0), columns = x.size(1);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < columns; ++i) o[r * columns + i] = a[r * columns + i] * b[i] + c[r * columns + i];
}
TVM_FFI_DLL_EXPORT_TYPED_FUNC(scale_add, scale_add);
"""

MODEL_PY = """
import torch
from torch import nn
from .kernel import scale_add

class ModelNew(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n))

    def forward(self, x, y):
        out = torch.empty_like(x)
        scale_add(x, self.weight, y, out)
        return out
"""


def scale_add(**meta: object) -> Task:
    """x * weight + y over 64 x 100, one parameter."""
    return Task.parse(SCALE_ADD, name="scale_add", beside=meta or None)


def cpp(kernel: str = KERNEL_CPP, model: str = MODEL_PY, flags: tuple[str, ...] = ()) -> Kernel:
    """A cpp kernel for `scale_add`."""
    return Kernel.of(Language.CPP, {"kernel.cpp": kernel, "model.py": model}, flags)


def module(forward: str, *, before: str = "", init: str = "") -> Kernel:
    """A `module` kernel for `scale_add` whose forward(self, x, y) has this body."""
    body = "\n".join("        " + line for line in forward.strip().splitlines())
    more = "\n".join("        " + line for line in init.strip().splitlines())
    return Kernel.of(
        Language.MODULE,
        {
            "model.py": f"""
import torch
from torch import nn
{before}

class ModelNew(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n))
{more}

    def forward(self, x, y):
{body}
"""
        },
    )
