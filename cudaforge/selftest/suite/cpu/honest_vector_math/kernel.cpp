#include <cmath>
#include <cstdint>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

using tvm::ffi::TensorView;

static float* data(TensorView t) { return static_cast<float*>(t.data_ptr()); }

void row_softmax(TensorView x, TensorView out) {
  const int64_t rows = x.size(0), columns = x.size(1);
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < rows; ++r) {
    const float* row = data(x) + r * columns;
    float* result = data(out) + r * columns;
    float highest = row[0], sum = 0.0f;
#pragma omp simd reduction(max : highest)
    for (int64_t c = 1; c < columns; ++c) highest = highest > row[c] ? highest : row[c];
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < columns; ++c) {
      result[c] = expf(row[c] - highest);
      sum += result[c];
    }
    const float scale = 1.0f / sum;
#pragma omp simd
    for (int64_t c = 0; c < columns; ++c) result[c] *= scale;
  }
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(row_softmax, row_softmax);
