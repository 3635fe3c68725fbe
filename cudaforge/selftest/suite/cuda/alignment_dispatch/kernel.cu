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

__global__ void vector_kernel(const float* x, const float* w, const float* y, float* out, int n, int columns) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x, at = 4 * i;
  if (at + 3 < n) {
    const float4 a = reinterpret_cast<const float4*>(x)[i], b = reinterpret_cast<const float4*>(y)[i];
    int c = at % columns;
    float4 r;
    r.x = a.x * w[c] + b.x;
    c = c + 1 == columns ? 0 : c + 1;
    r.y = a.y * w[c] + b.y;
    c = c + 1 == columns ? 0 : c + 1;
    r.z = a.z * w[c] + b.z;
    c = c + 1 == columns ? 0 : c + 1;
    r.w = a.w * w[c] + b.w;
    reinterpret_cast<float4*>(out)[i] = r;
  } else {
    for (int k = at; k < n; ++k) out[k] = x[k] * w[k % columns] + y[k];
  }
}

__global__ void scalar_kernel(const float* x, const float* w, const float* y, float* out, int n, int columns) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = x[i] * w[i % columns] + y[i];
}

void scale_add(TensorView x, TensorView w, TensorView y, TensorView out) {
  const int n = static_cast<int>(x.numel()), columns = static_cast<int>(x.size(1));
  const auto bits = reinterpret_cast<uintptr_t>(x.data_ptr()) | reinterpret_cast<uintptr_t>(y.data_ptr()) |
                    reinterpret_cast<uintptr_t>(out.data_ptr());
  if (bits % 16 == 0) {
    vector_kernel<<<(n / 4 + 256) / 256, 256, 0, stream_of(x)>>>(floats(x), floats(w), floats(y), floats(out), n, columns);
  } else {
    scalar_kernel<<<(n + 255) / 256, 256, 0, stream_of(x)>>>(floats(x), floats(w), floats(y), floats(out), n, columns);
  }
  check_launch("scale_add");
}
TVM_FFI_DLL_EXPORT_TYPED_FUNC(scale_add, scale_add);
