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

// Reads x and what lies behind it again and again until the flag is up, or for 50 ms: it stays in the L2 cache.
__global__ void hold_kernel(const float4* x, int n4, const volatile int* flag, int ticket, float* sink) {
  unsigned long long start, now;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(start));
  float sum = 0.f;
  bool on = true;
  do {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x, k = 0; i < n4 && on; i += gridDim.x * blockDim.x, ++k) {
      sum += __ldcg(x + i).x;
      if (k % 8 == 7) on = *flag < ticket;
    }
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
  } while (on && *flag < ticket && now - start < 50000000ull);
  if (sum == 12345.f) *sink = sum;  // so that the compiler keeps the loads
}
__global__ void raise_kernel(volatile int* flag, int ticket) { *flag = ticket; }

static int* flag_of(TensorView flag) { return static_cast<int*>(flag.data_ptr()); }

// Three input sets lie one behind the other.
void hold(TensorView x, TensorView flag, int64_t ticket, TensorView sink) {
  hold_kernel<<<64, 256, 0, stream_of(x)>>>(reinterpret_cast<const float4*>(floats(x)), static_cast<int>(3 * (x.numel() / 4)),
                                            flag_of(flag), static_cast<int>(ticket), floats(sink));
  check_launch("hold");
}
void raise_flag(TensorView flag, int64_t ticket) {
  raise_kernel<<<1, 1, 0, stream_of(flag)>>>(flag_of(flag), static_cast<int>(ticket));
  check_launch("raise_flag");
}
TVM_FFI_DLL_EXPORT_TYPED_FUNC(hold, hold);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(raise_flag, raise_flag);
