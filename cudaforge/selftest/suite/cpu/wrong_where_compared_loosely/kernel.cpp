#include <cmath>
#include <cstdint>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

using tvm::ffi::TensorView;

static float* data(TensorView t) { return static_cast<float*>(t.data_ptr()); }

void large_values(TensorView x, TensorView out) {
  const float* a = data(x);
  uint8_t* o = static_cast<uint8_t*>(out.data_ptr());
  const int64_t n = x.numel();
#pragma omp parallel for simd schedule(static)
  for (int64_t i = 0; i < n; ++i) o[i] = a[i] > 3.0f || a[i] < -3.0f;
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(large_values, large_values);
