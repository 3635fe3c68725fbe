#include <cmath>
#include <cstdint>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

using tvm::ffi::TensorView;

static float* data(TensorView t) { return static_cast<float*>(t.data_ptr()); }

void row_softmax(TensorView x, TensorView out) {
  const int64_t rows = x.size(0), columns = x.size(1);
  for (int64_t r = 0; r < rows; ++r) {
    const float* a = data(x) + r * columns;
    double top = a[0], sum = 0;
    for (int64_t c = 1; c < columns; ++c) top = a[c] > top ? a[c] : top;
    for (int64_t c = 0; c < columns; ++c) sum += std::exp(a[c] - top);
    for (int64_t c = 0; c < columns; ++c) data(out)[r * columns + c] = std::exp(a[c] - top) / sum;
  }
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(row_softmax, row_softmax);
