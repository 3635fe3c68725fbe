#include <cmath>
#include <cstdint>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

using tvm::ffi::TensorView;

static float* data(TensorView t) { return static_cast<float*>(t.data_ptr()); }

void layer_norm(TensorView x, TensorView out) {
  const int64_t rows = x.size(0), columns = x.size(1);
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < rows; ++r) {
    const float* a = data(x) + r * columns;
    float *o = data(out) + r * columns, sum = 0, squares = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < columns; ++c) sum += a[c];
    const float mean = sum / columns;
#pragma omp simd reduction(+ : squares)
    for (int64_t c = 0; c < columns; ++c) squares += (a[c] - mean) * (a[c] - mean);
    const float scale = 1.0f / std::sqrt(squares / columns + 1e-5f);
#pragma omp simd
    for (int64_t c = 0; c < columns; ++c) o[c] = (a[c] - mean) * scale;
  }
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(layer_norm, layer_norm);
