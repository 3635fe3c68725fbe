#include <cuda_runtime.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <tvm/ffi/function.h>

using tvm::ffi::TensorView;

static cudaStream_t stream_of(TensorView t) {
  return static_cast<cudaStream_t>(TVMFFIEnvGetStream(t.device().device_type, t.device().device_id));
}
static float* floats(TensorView t) { return static_cast<float*>(t.data_ptr()); }

__device__ float block_sum(float v, float* parts) {
  for (int step = 16; step; step /= 2) v += __shfl_xor_sync(~0u, v, step);
  __syncthreads();
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = v;
  __syncthreads();
  v = 0.f;
  for (int i = 0; i < 8; ++i) v += parts[i];
  return v;
}

// One block a row of 1024.
__global__ void norm_kernel(const float4* x, float4* out) {
  __shared__ float parts[8];
  float4 v = x[blockIdx.x * 256 + threadIdx.x];
  const float mean = block_sum((v.x + v.y) + (v.z + v.w), parts) / 1024;
  v = make_float4(v.x - mean, v.y - mean, v.z - mean, v.w - mean);
  const float scale = rsqrtf(block_sum((v.x * v.x + v.y * v.y) + (v.z * v.z + v.w * v.w), parts) / 1024 + 1e-5f);
  out[blockIdx.x * 256 + threadIdx.x] = make_float4(v.x * scale, v.y * scale, v.z * scale, v.w * scale);
}

void normalise(TensorView x, TensorView out) {
  norm_kernel<<<static_cast<int>(x.size(0)), 256, 0, stream_of(x)>>>(reinterpret_cast<const float4*>(floats(x)),
                                                                     reinterpret_cast<float4*>(floats(out)));
}
TVM_FFI_DLL_EXPORT_TYPED_FUNC(normalise, normalise);
