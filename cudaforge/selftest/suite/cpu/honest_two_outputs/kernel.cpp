#include <cmath>
#include <cstdint>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

using tvm::ffi::TensorView;

static float* data(TensorView t) { return static_cast<float*>(t.data_ptr()); }

void two_outputs(TensorView x, TensorView weight, TensorView values, TensorView largest) {
  const float *a = data(x), *w = data(weight);
  float* v = data(values);
  const int64_t rows = x.size(0), columns = x.size(1);
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < rows; ++r) {
    float top[16];
    for (int64_t i = 0; i < 16; ++i) top[i] = -INFINITY;
    for (int64_t c = 0; c < columns; c += 16)
#pragma omp simd
      for (int64_t i = 0; i < 16; ++i) {
        const float value = a[r * columns + c + i] * w[c + i];
        v[r * columns + c + i] = value;
        top[i] = value > top[i] ? value : top[i];
      }
    for (int64_t i = 1; i < 16; ++i) top[0] = top[i] > top[0] ? top[i] : top[0];
    data(largest)[r] = top[0];
  }
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(two_outputs, two_outputs);
