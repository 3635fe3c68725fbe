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

__global__ void __launch_bounds__(256) total_kernel(const float4* __restrict__ x, float* out, int n4) {
  __shared__ float parts[8];
  float sum = 0.f;
#pragma unroll 4
  for (int i = blockIdx.x * 256 + threadIdx.x; i < n4; i += gridDim.x * 256) {
    const float4 v = x[i];
    sum += (v.x + v.y) + (v.z + v.w);
  }
  for (int step = 16; step; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int i = 1; i < 8; ++i) sum += parts[i];
    atomicAdd(out, sum);
  }
}

void total_sum(TensorView x, TensorView out) {
  total_kernel<<<528, 256, 0, stream_of(x)>>>(reinterpret_cast<const float4*>(floats(x)), floats(out), static_cast<int>(x.numel() / 4));
  check_launch("total_sum");
}
TVM_FFI_DLL_EXPORT_TYPED_FUNC(total_sum, total_sum);
