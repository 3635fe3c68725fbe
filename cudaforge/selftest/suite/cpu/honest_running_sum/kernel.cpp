#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

using tvm::ffi::TensorView;
static float* fp(TensorView t) { return static_cast<float*>(t.data_ptr()); }

// Each block of 64 is scanned by itself; the carries are scanned in blocks of 64, too: chains of at most 64 additions.
void scan(TensorView x, TensorView out) {
  const int64_t n = x.size(0), d = x.size(1), blocks = (d + 63) / 64;
  const float* a = fp(x);
  float* o = fp(out);
#pragma omp parallel for
  for (int64_t r = 0; r < n; ++r) {
    std::vector<float> total(blocks), carry(blocks);
    const float* row = a + r * d;
    float* to = o + r * d;
    for (int64_t b = 0; b < blocks; ++b) {
      float sum = 0.f;
      for (int64_t i = 64 * b; i < std::min(d, 64 * b + 64); ++i) to[i] = sum += row[i];
      total[b] = sum;
    }
    float outer = 0.f;
    for (int64_t s = 0; s < blocks; s += 64) {
      float inner = 0.f;
      for (int64_t b = s; b < std::min(blocks, s + 64); ++b) {
        carry[b] = outer + inner;
        inner += total[b];
      }
      outer += inner;
    }
    for (int64_t b = 1; b < blocks; ++b)
#pragma omp simd
      for (int64_t i = 64 * b; i < std::min(d, 64 * b + 64); ++i) to[i] += carry[b];
  }
}
TVM_FFI_DLL_EXPORT_TYPED_FUNC(scan, scan);
