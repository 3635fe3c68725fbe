#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <tvm/ffi/function.h>

using tvm::ffi::TensorView;

static cudaStream_t stream_of(TensorView t) {
  return static_cast<cudaStream_t>(TVMFFIEnvGetStream(t.device().device_type, t.device().device_id));
}
static float* floats(TensorView t) { return static_cast<float*>(t.data_ptr()); }

__global__ void scale_add_kernel(const float2* x, const float2* w, const float2* y, __half2* out, int n2, int columns2) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n2) return;
  const float2 a = x[i], b = w[i % columns2], c = y[i];
  out[i] = __floats2half2_rn(a.x * b.x + c.x, a.y * b.y + c.y);
}

void scale_add(TensorView x, TensorView w, TensorView y, TensorView out) {
  const int n2 = static_cast<int>(x.numel() / 2);
  scale_add_kernel<<<(n2 + 255) / 256, 256, 0, stream_of(x)>>>(
      reinterpret_cast<const float2*>(floats(x)), reinterpret_cast<const float2*>(floats(w)),
      reinterpret_cast<const float2*>(floats(y)), static_cast<__half2*>(out.data_ptr()), n2, static_cast<int>(x.size(1) / 2));
}
TVM_FFI_DLL_EXPORT_TYPED_FUNC(scale_add, scale_add);
