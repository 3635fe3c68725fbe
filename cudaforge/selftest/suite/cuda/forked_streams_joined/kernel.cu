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

__global__ void add_kernel(const float4* x, const float4* y, float4* out, int n4) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n4) return;
  const float4 a = x[i], b = y[i];
  out[i] = make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

__global__ void dot_kernel(const float4* x, const float4* y, float* dots, int columns4) {
  __shared__ float parts[8];
  float sum = 0.f;
  for (int i = threadIdx.x; i < columns4; i += 256) {
    const int64_t at = static_cast<int64_t>(blockIdx.x) * columns4 + i;
    const float4 a = x[at], b = y[at];
    sum += (a.x * b.x + a.y * b.y) + (a.z * b.z + a.w * b.w);
  }
  for (int step = 16; step; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int i = 1; i < 8; ++i) sum += parts[i];
    dots[blockIdx.x] = sum;
  }
}

void add(TensorView x, TensorView y, TensorView out) {
  const int n4 = static_cast<int>(x.numel() / 4);
  add_kernel<<<(n4 + 255) / 256, 256, 0, stream_of(x)>>>(reinterpret_cast<const float4*>(floats(x)),
                                                         reinterpret_cast<const float4*>(floats(y)),
                                                         reinterpret_cast<float4*>(floats(out)), n4);
  check_launch("add");
}

void dot(TensorView x, TensorView y, TensorView dots) {
  dot_kernel<<<static_cast<int>(x.size(0)), 256, 0, stream_of(x)>>>(reinterpret_cast<const float4*>(floats(x)),
                                                                    reinterpret_cast<const float4*>(floats(y)), floats(dots),
                                                                    static_cast<int>(x.size(1) / 4));
  check_launch("dot");
}
TVM_FFI_DLL_EXPORT_TYPED_FUNC(add, add);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(dot, dot);
