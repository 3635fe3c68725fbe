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

__global__ void total_kernel(const float4* x, double* total, int n4) {
  __shared__ double parts[8];
  double sum = 0.;
  for (int i = blockIdx.x * 256 + threadIdx.x; i < n4; i += gridDim.x * 256) {
    const float4 v = x[i];
    sum += (static_cast<double>(v.x) + v.y) + (static_cast<double>(v.z) + v.w);
  }
  for (int step = 16; step; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int i = 1; i < 8; ++i) sum += parts[i];
    atomicAdd(total, sum);
  }
}

__global__ void subtract_kernel(const float4* x, float4* out, int n4, float mean) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n4) return;
  const float4 v = x[i];
  out[i] = make_float4(v.x - mean, v.y - mean, v.z - mean, v.w - mean);
}

void mean_center(TensorView x, TensorView total, TensorView out) {
  const int n4 = static_cast<int>(x.numel() / 4);
  const float4* from = reinterpret_cast<const float4*>(floats(x));
  total_kernel<<<528, 256, 0, stream_of(x)>>>(from, static_cast<double*>(total.data_ptr()), n4);
  double sum = 0.;
  cudaMemcpyAsync(&sum, total.data_ptr(), sizeof sum, cudaMemcpyDeviceToHost, stream_of(x));
  cudaStreamSynchronize(stream_of(x));
  subtract_kernel<<<(n4 + 255) / 256, 256, 0, stream_of(x)>>>(from, reinterpret_cast<float4*>(floats(out)), n4,
                                                              static_cast<float>(sum / (4. * n4)));
  check_launch("mean_center");
}
TVM_FFI_DLL_EXPORT_TYPED_FUNC(mean_center, mean_center);
