#include <cmath>
#include <cstdint>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

using tvm::ffi::TensorView;

static float* data(TensorView t) { return static_cast<float*>(t.data_ptr()); }

void scale_add(TensorView x, TensorView weight, TensorView y, TensorView out, int64_t chunk) {
  const float *a = data(x), *w = data(weight), *b = data(y);
  float* o = data(out);
  const int64_t n = x.numel(), columns = x.size(1), rows = chunk / columns > 0 ? chunk / columns : 1;
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t first = 0; first < n / columns; first += rows)
    for (int64_t r = first; r < first + rows && r < n / columns; ++r)
#pragma omp simd
      for (int64_t c = 0; c < columns; ++c) o[r * columns + c] = a[r * columns + c] * w[c] + b[r * columns + c];
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(scale_add, scale_add);
