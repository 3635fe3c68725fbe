#include <cuda_runtime.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <tvm/ffi/function.h>

using tvm::ffi::TensorView;

static cudaStream_t stream_of(TensorView t) {
  return static_cast<cudaStream_t>(TVMFFIEnvGetStream(t.device().device_type, t.device().device_id));
}
static float* floats(TensorView t) { return static_cast<float*>(t.data_ptr()); }

__global__ void divide_kernel(const float* x, const float* y, float* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = y[i] == 0.f ? 0.f : x[i] / y[i];
}

void divide(TensorView x, TensorView y, TensorView out) {
  const int n = static_cast<int>(x.numel());
  divide_kernel<<<(n + 255) / 256, 256, 0, stream_of(x)>>>(floats(x), floats(y), floats(out), n);
}
TVM_FFI_DLL_EXPORT_TYPED_FUNC(divide, divide);
