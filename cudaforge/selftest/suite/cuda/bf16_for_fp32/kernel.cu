#include <cuda_bf16.h>
#include <mma.h>

#include <cuda_runtime.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <tvm/ffi/function.h>

using tvm::ffi::TensorView;

static cudaStream_t stream_of(TensorView t) {
  return static_cast<cudaStream_t>(TVMFFIEnvGetStream(t.device().device_type, t.device().device_id));
}
static float* floats(TensorView t) { return static_cast<float*>(t.data_ptr()); }

using namespace nvcuda;

// A block computes 64 x 64 with four warps of 32 x 32; rows of shared memory are 48 values apart.
__global__ void linear_gelu_kernel(const float* x, const float* weight, const float* bias, float* out, int columns, int depth) {
  __shared__ __align__(32) __nv_bfloat16 a[64 * 48], b[64 * 48];
  __shared__ __align__(32) float results[64 * 68];
  const int row0 = blockIdx.y * 64, column0 = blockIdx.x * 64, warp = threadIdx.x / 32;
  const int r0 = warp / 2 * 32, c0 = warp % 2 * 32;
  wmma::fragment<wmma::accumulator, 16, 16, 16, float> sums[2][2];
  for (auto& line : sums) for (auto& sum : line) wmma::fill_fragment(sum, 0.f);
  for (int k0 = 0; k0 < depth; k0 += 32) {
    for (int i = threadIdx.x; i < 64 * 32; i += 128) {
      const int r = i / 32, k = i % 32;
      a[r * 48 + k] = __float2bfloat16(x[static_cast<long long>(row0 + r) * depth + k0 + k]);
      b[r * 48 + k] = __float2bfloat16(weight[static_cast<long long>(column0 + r) * depth + k0 + k]);
    }
    __syncthreads();
    for (int k = 0; k < 32; k += 16) {
      wmma::fragment<wmma::matrix_a, 16, 16, 16, __nv_bfloat16, wmma::row_major> fa[2];
      wmma::fragment<wmma::matrix_b, 16, 16, 16, __nv_bfloat16, wmma::col_major> fb[2];
      for (int i = 0; i < 2; ++i) {
        wmma::load_matrix_sync(fa[i], a + (r0 + 16 * i) * 48 + k, 48);
        wmma::load_matrix_sync(fb[i], b + (c0 + 16 * i) * 48 + k, 48);
      }
      for (int i = 0; i < 2; ++i)
        for (int j = 0; j < 2; ++j) wmma::mma_sync(sums[i][j], fa[i], fb[j], sums[i][j]);
    }
    __syncthreads();
  }
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < 2; ++j) wmma::store_matrix_sync(results + (r0 + 16 * i) * 68 + c0 + 16 * j, sums[i][j], 68, wmma::mem_row_major);
  __syncthreads();
  for (int i = threadIdx.x; i < 64 * 64; i += 128) {
    const int r = i / 64, c = i % 64;
    const float z = results[r * 68 + c] + bias[column0 + c];
    out[static_cast<long long>(row0 + r) * columns + column0 + c] = 0.5f * z * (1.f + erff(z * 0.70710678f));
  }
}

void linear_gelu(TensorView x, TensorView weight, TensorView bias, TensorView out) {
  const int rows = static_cast<int>(x.size(0)), columns = static_cast<int>(out.size(1));
  linear_gelu_kernel<<<dim3(columns / 64, rows / 64), 128, 0, stream_of(x)>>>(floats(x), floats(weight), floats(bias), floats(out),
                                                                              columns, static_cast<int>(x.size(1)));
}
TVM_FFI_DLL_EXPORT_TYPED_FUNC(linear_gelu, linear_gelu);
