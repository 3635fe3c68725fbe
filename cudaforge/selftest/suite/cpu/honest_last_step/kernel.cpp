#include <cstdint>
#include <vector>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

using tvm::ffi::TensorView;
static float* fp(TensorView t) { return static_cast<float*>(t.data_ptr()); }

void running(TensorView x, TensorView h) {
  const int64_t n = x.size(0), t = x.size(1), d = x.size(2);
  const float* a = fp(x);
  float* o = fp(h);
#pragma omp parallel for
  for (int64_t b = 0; b < n; ++b) {
    std::vector<double> sum(d);
    for (int64_t s = 0; s < t; ++s)
      for (int64_t i = 0; i < d; ++i) {
        sum[i] += a[(b * t + s) * d + i];
        o[(b * t + s) * d + i] = static_cast<float>(sum[i] / static_cast<double>(s + 1));
      }
  }
}
TVM_FFI_DLL_EXPORT_TYPED_FUNC(running, running);
