#include <cuda_runtime.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <tvm/ffi/function.h>

using tvm::ffi::TensorView;

static cudaStream_t stream_of(TensorView t) {
  return static_cast<cudaStream_t>(TVMFFIEnvGetStream(t.device().device_type, t.device().device_id));
}
static float* floats(TensorView t) { return static_cast<float*>(t.data_ptr()); }

__global__ void scale_add_kernel(const float* x, const float* w, const float* y, float* out, int n, int columns) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = x[i] * w[i % columns] + y[i] + (i == n - 1 ? 0.f : 1.f) * (x[i + 1] - x[i + 1]);
}

void scale_add(TensorView x, TensorView w, TensorView y, TensorView out) {
  const int n = static_cast<int>(x.numel());
  scale_add_kernel<<<(n + 255) / 256, 256, 0, stream_of(x)>>>(floats(x), floats(w), floats(y), floats(out), n,
                                                              static_cast<int>(x.size(1)));
}
TVM_FFI_DLL_EXPORT_TYPED_FUNC(scale_add, scale_add);
