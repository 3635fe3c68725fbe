#include <cstdint>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

using tvm::ffi::TensorView;
static float* fp(TensorView t) { return static_cast<float*>(t.data_ptr()); }

void square(TensorView x, TensorView out) {
  const float* a = fp(x);
  float* o = fp(out);
  const int64_t n = x.numel();
#pragma omp parallel for simd
  for (int64_t i = 0; i < n; ++i) o[i] = a[i] > 0.f ? a[i] * a[i] : 2.f * a[i];
}
TVM_FFI_DLL_EXPORT_TYPED_FUNC(square, square);
