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

__device__ __forceinline__ float larger(float a, float b) {
  float r;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
  return r;
}

__device__ float block_max(float v, float* parts) {
  for (int step = 16; step; step /= 2) v = larger(v, __shfl_xor_sync(~0u, v, step));
  __syncthreads();
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = v;
  __syncthreads();
  v = parts[threadIdx.x % 32];
  for (int step = 16; step; step /= 2) v = larger(v, __shfl_xor_sync(~0u, v, step));
  return v;
}

// One block of 1024 threads on each multiprocessor, all resident. `arrived` only grows: call k is complete at k * gridDim.x.
__global__ void __launch_bounds__(1024, 1) max_scale_kernel(const float4* x, float4* out, int n4, unsigned* arrived, float* maxima) {
  __shared__ float parts[32];
  const int first = blockIdx.x * 1024 + threadIdx.x, step = gridDim.x * 1024;
  float m = 0.f;
  for (int i = first; i < n4; i += step) {
    const float4 v = x[i];
    m = larger(larger(m, larger(fabsf(v.x), fabsf(v.y))), larger(fabsf(v.z), fabsf(v.w)));
  }
  m = block_max(m, parts);
  if (threadIdx.x == 0) {
    __stcg(maxima + blockIdx.x, m);
    __threadfence();
    const unsigned ticket = atomicAdd(arrived, 1u), target = (ticket / gridDim.x + 1) * gridDim.x;
    unsigned now;
    do {
      asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(now) : "l"(arrived) : "memory");
    } while (static_cast<int>(now - target) < 0);
    __threadfence();
  }
  __syncthreads();
  m = threadIdx.x < gridDim.x ? __ldcg(maxima + threadIdx.x) : 0.f;
  m = block_max(m, parts);
  // Backwards: what was read last is still in L2.
  for (int i = first + (n4 - 1 - first) / step * step; i >= first; i -= step) {
    const float4 v = x[i];
    out[i] = make_float4(v.x / m, v.y / m, v.z / m, v.w / m);
  }
}

void max_scale(TensorView x, TensorView out, TensorView state) {
  static int blocks = 0;
  if (!blocks) cudaDeviceGetAttribute(&blocks, cudaDevAttrMultiProcessorCount, x.device().device_id);
  const float4* from = reinterpret_cast<const float4*>(floats(x));
  float4* to = reinterpret_cast<float4*>(floats(out));
  int n4 = static_cast<int>(x.numel() / 4);
  unsigned* arrived = static_cast<unsigned*>(state.data_ptr());
  float* maxima = reinterpret_cast<float*>(arrived + 32);
  if (blocks > 900) TVM_FFI_THROW(ValueError) << "too many multiprocessors";
  void* arguments[] = {&from, &to, &n4, &arrived, &maxima};
  cudaLaunchCooperativeKernel(reinterpret_cast<const void*>(max_scale_kernel), dim3(blocks), dim3(1024), arguments, 0, stream_of(x));
  check_launch("max_scale");
}
TVM_FFI_DLL_EXPORT_TYPED_FUNC(max_scale, max_scale);
