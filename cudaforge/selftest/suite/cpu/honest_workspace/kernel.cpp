#include <cmath>
#include <cstdint>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

using tvm::ffi::TensorView;

static float* data(TensorView t) { return static_cast<float*>(t.data_ptr()); }

// exp by powers of two: a polynomial for the fraction, the exponent's bits for the rest. Vectorises, unlike std::exp.
static inline float fast_exp(float v) {
  v = v < -87.0f ? -87.0f : v;
  const float whole = std::rint(v * 1.44269504f), f = (v - whole * 0.693359375f) + whole * 2.12194440e-4f;
  const float tail = 0.041666667f + f * (0.0083333333f + f * 0.0013888889f);
  const float p = 1 + f * (1 + f * (0.5f + f * (0.16666667f + f * tail)));
  const int32_t bits = (static_cast<int32_t>(whole) + 127) << 23;
  float power;
  __builtin_memcpy(&power, &bits, 4);
  return p * power;
}

void row_softmax(TensorView x, TensorView workspace, TensorView out) {
  const int64_t rows = x.size(0), columns = x.size(1);
  float *tops = data(workspace), *sums = tops + rows;
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < rows; ++r) {
    const float* a = data(x) + r * columns;
    float *o = data(out) + r * columns, top = a[0], sum = 0;
#pragma omp simd reduction(max : top)
    for (int64_t c = 1; c < columns; ++c) top = a[c] > top ? a[c] : top;
    tops[r] = top;
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < columns; ++c) sum += o[c] = fast_exp(a[c] - tops[r]);
    sums[r] = sum;
    const float scale = 1.0f / sums[r];
#pragma omp simd
    for (int64_t c = 0; c < columns; ++c) o[c] *= scale;
  }
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(row_softmax, row_softmax);
