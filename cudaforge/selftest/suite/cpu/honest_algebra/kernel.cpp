#include <cmath>
#include <cstdint>
#include <vector>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

using tvm::ffi::TensorView;

static float* data(TensorView t) { return static_cast<float*>(t.data_ptr()); }

void linear_sum(TensorView x, TensorView weight, TensorView bias, TensorView out) {
  const float *a = data(x), *w = data(weight), *b = data(bias);
  const int64_t rows = x.size(0), n = x.size(1), m = weight.size(0);
  std::vector<double> sums(n, 0.0);
  double offset = 0;
  for (int64_t j = 0; j < m; ++j) {
    offset += b[j];
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) sums[i] += w[j * n + i];
  }
  for (int64_t r = 0; r < rows; ++r) {
    double sum = offset;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; ++i) sum += a[r * n + i] * sums[i];
    data(out)[r] = static_cast<float>(sum);
  }
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(linear_sum, linear_sum);
