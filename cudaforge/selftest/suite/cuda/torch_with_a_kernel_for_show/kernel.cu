#include <cuda_runtime.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <tvm/ffi/function.h>

using tvm::ffi::TensorView;

static cudaStream_t stream_of(TensorView t) {
  return static_cast<cudaStream_t>(TVMFFIEnvGetStream(t.device().device_type, t.device().device_id));
}
static float* floats(TensorView t) { return static_cast<float*>(t.data_ptr()); }

__global__ void touch_kernel(float* p) { p[0] += 0.f; }

void touch(TensorView t) { touch_kernel<<<1, 1, 0, stream_of(t)>>>(floats(t)); }
TVM_FFI_DLL_EXPORT_TYPED_FUNC(touch, touch);
