#include <cmath>
#include <cstdint>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

using tvm::ffi::TensorView;

static float* data(TensorView t) { return static_cast<float*>(t.data_ptr()); }

static void tile(const float* x, const float* weight, float* out, int64_t n, int64_t m) {
  float sums[4][64] = {};
  for (int64_t k = 0; k < n; ++k)
    for (int i = 0; i < 4; ++i) {
      const float v = x[i * n + k];
#pragma omp simd
      for (int j = 0; j < 64; ++j) sums[i][j] += v * weight[k * m + j];
    }
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 64; ++j) out[i * m + j] = sums[i][j] > 0.0f ? sums[i][j] : 0.0f;
}

void matmul_relu(TensorView x, TensorView weight, TensorView out) {
  const int64_t rows = x.size(0), n = x.size(1), m = weight.size(1);
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < rows; r += 4)
    for (int64_t j = 0; j < m; j += 64) tile(data(x) + r * n, data(weight) + j, data(out) + r * m + j, n, m);
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(matmul_relu, matmul_relu);
