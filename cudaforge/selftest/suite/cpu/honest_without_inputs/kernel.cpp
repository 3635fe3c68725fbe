#include <cmath>
#include <cstdint>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

using tvm::ffi::TensorView;
static float* fp(TensorView t) { return static_cast<float*>(t.data_ptr()); }

void table(TensorView frequency, TensorView out) {
  const int64_t length = out.size(0), half = out.size(1);
  const float* f = fp(frequency);
  float* o = fp(out);
#pragma omp parallel for
  for (int64_t p = 0; p < length; ++p)
    for (int64_t i = 0; i < half; ++i) {
      const float angle = static_cast<float>(p) * f[i];  // rounded as the reference rounds it
      o[(p * half + i) * 2] = std::cos(angle);
      o[(p * half + i) * 2 + 1] = std::sin(angle);
    }
}
TVM_FFI_DLL_EXPORT_TYPED_FUNC(table, table);
