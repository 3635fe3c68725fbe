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

__global__ void relu_kernel(const float4* __restrict__ x, float4* __restrict__ out, int n4) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n4; i += gridDim.x * blockDim.x) {
    const float4 v = x[i];
    out[i] = make_float4(fmaxf(v.x, 0.f), fmaxf(v.y, 0.f), fmaxf(v.z, 0.f), fmaxf(v.w, 0.f));
  }
}

void relu(TensorView x, TensorView out) {
  const int n4 = static_cast<int>(x.numel() / 4);
  relu_kernel<<<(n4 + 255) / 256, 256, 0, stream_of(x)>>>(reinterpret_cast<const float4*>(floats(x)),
                                                          reinterpret_cast<float4*>(floats(out)), n4);
  check_launch("relu");
}
TVM_FFI_DLL_EXPORT_TYPED_FUNC(relu, relu);

// Runs until the word has reached this number, or for so many milliseconds: its context has work for the GPU all the time.
__global__ void linger_kernel(const volatile int* word, int number, unsigned long long nanoseconds) {
  unsigned long long start, now;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(start));
  do {
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
  } while (*word - number < 0 && now - start < nanoseconds);
}

// `on`: any tensor of the device. `word`: address of pinned memory.
void linger(TensorView on, int64_t word, int64_t number, int64_t milliseconds) {
  linger_kernel<<<1, 1, 0, stream_of(on)>>>(reinterpret_cast<const int*>(word), static_cast<int>(number),
                                            static_cast<unsigned long long>(milliseconds) * 1000000ull);
  check_launch("linger");
}
TVM_FFI_DLL_EXPORT_TYPED_FUNC(linger, linger);
