#include <dlfcn.h>
#include <cuda_runtime.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <tvm/ffi/function.h>

using tvm::ffi::TensorView;

static cudaStream_t stream_of(TensorView t) {
  return static_cast<cudaStream_t>(TVMFFIEnvGetStream(t.device().device_type, t.device().device_id));
}
static float* floats(TensorView t) { return static_cast<float*>(t.data_ptr()); }

using Create = int (*)(void**);
using SetStream = int (*)(void*, cudaStream_t);
using Sgemm = int (*)(void*, int, int, int, int, int, const float*, const float*, int, const float*, int, const float*, float*, int);

__global__ void gelu_kernel(float* out, const float* bias, int n, int columns) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const float z = out[i] + bias[i % columns];
  out[i] = 0.5f * z * (1.f + erff(z * 0.70710678f));
}

void linear_gelu(TensorView x, TensorView weight, TensorView bias, TensorView out) {
  static void* handle = nullptr;
  static void* library = dlopen("libcublas.so.13", RTLD_NOW) ? dlopen("libcublas.so.13", RTLD_NOW) : dlopen("libcublas.so.12", RTLD_NOW);
  if (!library) TVM_FFI_THROW(RuntimeError) << "no cuBLAS";
  if (!handle) reinterpret_cast<Create>(dlsym(library, "cublasCreate_v2"))(&handle);
  reinterpret_cast<SetStream>(dlsym(library, "cublasSetStream_v2"))(handle, stream_of(x));
  const int rows = static_cast<int>(x.size(0)), depth = static_cast<int>(x.size(1)), columns = static_cast<int>(out.size(1));
  const float one = 1.f, zero = 0.f;
  // Row-major out = x weight^T is column-major out^T = weight x^T.
  reinterpret_cast<Sgemm>(dlsym(library, "cublasSgemm_v2"))(handle, 1, 0, columns, rows, depth, &one, floats(weight), depth, floats(x),
                                                            depth, &zero, floats(out), columns);
  gelu_kernel<<<(rows * columns + 255) / 256, 256, 0, stream_of(x)>>>(floats(out), floats(bias), rows * columns, columns);
}
TVM_FFI_DLL_EXPORT_TYPED_FUNC(linear_gelu, linear_gelu);
