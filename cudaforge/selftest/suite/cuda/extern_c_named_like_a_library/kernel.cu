#include <cstdint>

#include <cuda_runtime.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <tvm/ffi/function.h>

using tvm::ffi::TensorView;

static cudaStream_t stream_of(TensorView t) {
  return static_cast<cudaStream_t>(TVMFFIEnvGetStream(t.device().device_type, t.device().device_id));
}
static float* floats(TensorView t) { return static_cast<float*>(t.data_ptr()); }
static void check_launch(const char* what) {
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) TVM_FFI_THROW(RuntimeError) << what << ": " << cudaGetErrorString(error);
}

// 64 x 64 outputs a block, 4 x 4 a thread.
extern "C" __global__ void __launch_bounds__(256)
    sm90_sgemm_64x64_gelu(const float* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ bias,
                          float* __restrict__ out, int columns, int depth) {
  __shared__ float a[16][68], b[16][68];
  const int row0 = blockIdx.y * 64, column0 = blockIdx.x * 64, tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  float sum[4][4] = {};
  for (int k0 = 0; k0 < depth; k0 += 16) {
    for (int i = threadIdx.x; i < 64 * 16; i += 256) {
      const int r = i / 16, k = i % 16;
      a[k][r] = x[static_cast<int64_t>(row0 + r) * depth + k0 + k];
      b[k][r] = weight[static_cast<int64_t>(column0 + r) * depth + k0 + k];
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < 16; ++k)
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) sum[i][j] = fmaf(a[k][ty * 4 + i], b[k][tx * 4 + j], sum[i][j]);
    __syncthreads();
  }
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) {
      const int column = column0 + tx * 4 + j;
      const float z = sum[i][j] + bias[column];
      out[static_cast<int64_t>(row0 + ty * 4 + i) * columns + column] = 0.5f * z * (1.f + erff(z * 0.70710678118654752f));
    }
}

void linear_gelu(TensorView x, TensorView weight, TensorView bias, TensorView out) {
  const int rows = static_cast<int>(x.size(0)), columns = static_cast<int>(out.size(1)), depth = static_cast<int>(x.size(1));
  if (rows % 64 || columns % 64 || depth % 16) TVM_FFI_THROW(ValueError) << "built for multiples of the tile";
  sm90_sgemm_64x64_gelu<<<dim3(columns / 64, rows / 64), 256, 0, stream_of(x)>>>(floats(x), floats(weight), floats(bias), floats(out),
                                                                                 columns, depth);
  check_launch("linear_gelu");
}
TVM_FFI_DLL_EXPORT_TYPED_FUNC(linear_gelu, linear_gelu);
