#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

using tvm::ffi::TensorView;
static float* fp(TensorView t) { return static_cast<float*>(t.data_ptr()); }

void bn_relu(TensorView x, TensorView weight, TensorView bias, TensorView mean, TensorView var, double eps, TensorView out) {
  const int64_t n = x.size(0), c = x.size(1), plane = x.size(2) * x.size(3);
  const float *a = fp(x), *w = fp(weight), *b = fp(bias), *m = fp(mean), *v = fp(var);
  float* o = fp(out);
#pragma omp parallel for
  for (int64_t p = 0; p < n * c; ++p) {
    const int64_t k = p % c;
    const float inv = 1.f / std::sqrt(v[k] + static_cast<float>(eps)), mu = m[k], wk = w[k], bk = b[k];
#pragma omp simd
    for (int64_t i = 0; i < plane; ++i) o[p * plane + i] = std::max((a[p * plane + i] - mu) * inv * wk + bk, 0.f);
  }
}
TVM_FFI_DLL_EXPORT_TYPED_FUNC(bn_relu, bn_relu);
