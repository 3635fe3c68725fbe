#include <cmath>
#include <cstdint>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

using tvm::ffi::TensorView;

static float* data(TensorView t) { return static_cast<float*>(t.data_ptr()); }

void linear_gelu(TensorView x, TensorView weight, TensorView bias, TensorView out) {
  const float *a = data(x), *w = data(weight), *b = data(bias);
  const int64_t rows = x.size(0), n = x.size(1), m = weight.size(0);
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t j = 0; j < m; ++j) {
      float sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t i = 0; i < n; ++i) sum += a[r * n + i] * w[j * n + i];
      sum += b[j];
      data(out)[r * m + j] = 0.5f * sum * (1.0f + std::erf(sum * 0.70710678f));
    }
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(linear_gelu, linear_gelu);
