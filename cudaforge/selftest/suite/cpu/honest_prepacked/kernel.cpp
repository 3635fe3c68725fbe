#include <cmath>
#include <cstdint>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

using tvm::ffi::TensorView;

static float* data(TensorView t) { return static_cast<float*>(t.data_ptr()); }

constexpr int64_t BLOCK = 32;

// Columns of the transposed weight in blocks of 32: the inner loop reads one line after another.
void pack(TensorView weight, TensorView packed) {
  const int64_t m = weight.size(0), n = weight.size(1);
  for (int64_t j = 0; j < m; ++j)
    for (int64_t i = 0; i < n; ++i) data(packed)[(j / BLOCK * n + i) * BLOCK + j % BLOCK] = data(weight)[j * n + i];
}

void linear_gelu(TensorView x, TensorView packed, TensorView bias, TensorView out) {
  const float *a = data(x), *w = data(packed), *b = data(bias);
  const int64_t rows = x.size(0), n = x.size(1), m = bias.size(0);
#pragma omp parallel for schedule(static) collapse(2)
  for (int64_t block = 0; block < m / BLOCK; ++block)
    for (int64_t r = 0; r < rows; r += 4) {
      float sums[4][BLOCK] = {};
      for (int64_t i = 0; i < n; ++i)
        for (int64_t k = 0; k < 4; ++k)
#pragma omp simd
          for (int64_t j = 0; j < BLOCK; ++j) sums[k][j] += a[(r + k) * n + i] * w[(block * n + i) * BLOCK + j];
      for (int64_t k = 0; k < 4; ++k)
        for (int64_t j = 0; j < BLOCK; ++j) {
          const float v = sums[k][j] + b[block * BLOCK + j];
          data(out)[(r + k) * m + block * BLOCK + j] = 0.5f * v * (1.0f + std::erf(v * 0.70710678f));
        }
    }
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(pack, pack);

TVM_FFI_DLL_EXPORT_TYPED_FUNC(linear_gelu, linear_gelu);
