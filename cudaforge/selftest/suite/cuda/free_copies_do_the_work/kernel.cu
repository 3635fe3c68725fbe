#include <cstdint>

#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <tvm/ffi/function.h>

using tvm::ffi::TensorView;

static cudaStream_t stream_of(TensorView t) {
  return static_cast<cudaStream_t>(TVMFFIEnvGetStream(t.device().device_type, t.device().device_id));
}
static void check_launch(const char* what) {
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) TVM_FFI_THROW(RuntimeError) << what << ": " << cudaGetErrorString(error);
}

__global__ void touch_kernel(__half* x) { x[0] = __hadd(x[0], __float2half(0.f)); }

void touch(TensorView x) {
  touch_kernel<<<1, 1, 0, stream_of(x)>>>(static_cast<__half*>(x.data_ptr()));
  check_launch("touch");
}
TVM_FFI_DLL_EXPORT_TYPED_FUNC(touch, touch);
