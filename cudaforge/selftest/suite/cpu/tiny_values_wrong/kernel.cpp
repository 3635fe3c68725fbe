#include <cmath>
#include <cstdint>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

using tvm::ffi::TensorView;

static float* data(TensorView t) { return static_cast<float*>(t.data_ptr()); }

void small(TensorView x, TensorView weight, TensorView out) {
  const float *a = data(x), *w = data(weight);
  float* o = data(out);
  const int64_t rows = x.size(0), columns = x.size(1);
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < rows; ++r)
#pragma omp simd
    for (int64_t c = 0; c < columns; ++c) {
      const float v = a[r * columns + c];
      o[r * columns + c] = (v - v * v * v / 6.0f) * w[c] * 1e-6f;
    }
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(small, small);
