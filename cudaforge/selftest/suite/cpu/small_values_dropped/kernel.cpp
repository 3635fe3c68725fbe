#include <cmath>
#include <cstdint>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

using tvm::ffi::TensorView;

static float* data(TensorView t) { return static_cast<float*>(t.data_ptr()); }

void bias_gelu(TensorView x, TensorView bias, TensorView out) {
  const float *a = data(x), *b = data(bias);
  const int64_t rows = x.size(0), columns = x.size(1);
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c) {
      const float v = a[r * columns + c] + b[c];
      const float gelu = 0.5f * v * (1.0f + std::erf(v * 0.70710678f));
      data(out)[r * columns + c] = std::fabs(v) < 0.01f ? 0.0f : gelu;
    }
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(bias_gelu, bias_gelu);
