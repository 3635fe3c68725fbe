#include <cuda_runtime.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <tvm/ffi/function.h>

using tvm::ffi::TensorView;

static cudaStream_t stream_of(TensorView t) {
  return static_cast<cudaStream_t>(TVMFFIEnvGetStream(t.device().device_type, t.device().device_id));
}
static float* floats(TensorView t) { return static_cast<float*>(t.data_ptr()); }

// Returns when the last elements of both inputs have changed, or after 20 ms.
__global__ void wait_kernel(const volatile float* x, const volatile float* y, float* seen) {
  unsigned long long start, now;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(start));
  do {
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
  } while ((*x == seen[0] || *y == seen[1]) && now - start < 20000000ull);
  seen[0] = *x;
  seen[1] = *y;
}

void wait_for_change(TensorView x, TensorView y, TensorView seen) {
  wait_kernel<<<1, 1, 0, stream_of(x)>>>(floats(x) + x.numel() - 1, floats(y) + y.numel() - 1, floats(seen));
}
TVM_FFI_DLL_EXPORT_TYPED_FUNC(wait_for_change, wait_for_change);
