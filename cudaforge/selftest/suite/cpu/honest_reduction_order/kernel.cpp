#include <cmath>
#include <cstdint>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

using tvm::ffi::TensorView;

static float* data(TensorView t) { return static_cast<float*>(t.data_ptr()); }

constexpr int64_t PARTS = 4;

void row_mean(TensorView x, TensorView out) {
  const float* a = data(x);
  float* o = data(out);
  const int64_t rows = x.size(0), columns = x.size(1);
  for (int64_t r = 0; r < rows; ++r) o[r] = 0;
#pragma omp parallel for schedule(dynamic, 1) collapse(2)
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t part = 0; part < PARTS; ++part) {
      float sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t c = part * columns / PARTS; c < (part + 1) * columns / PARTS; ++c) sum += a[r * columns + c];
      sum /= columns;
#pragma omp atomic
      o[r] += sum;
    }
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(row_mean, row_mean);
