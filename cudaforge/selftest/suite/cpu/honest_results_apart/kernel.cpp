#include <cstdint>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

using tvm::ffi::TensorView;

static float* data(TensorView t) { return static_cast<float*>(t.data_ptr()); }

void row_sum(TensorView x, TensorView apart) {
  const int64_t rows = x.size(0), columns = x.size(1);
  const float* a = data(x);
  float* o = data(apart);
#pragma omp parallel for schedule(dynamic, 16)
  for (int64_t r = 0; r < rows; ++r) {
    const float* row = a + r * columns;
    float parts[16] = {};
    int64_t i = 0;
    for (; i + 16 <= columns; i += 16)
#pragma omp simd
      for (int j = 0; j < 16; ++j) parts[j] += row[i + j];
    float sum = 0.0f;
    for (float part : parts) sum += part;
    for (; i < columns; ++i) sum += row[i];
    o[r * apart.size(1)] = sum;
  }
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(row_sum, row_sum);
