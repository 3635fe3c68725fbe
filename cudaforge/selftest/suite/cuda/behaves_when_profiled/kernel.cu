#include <cuda_runtime.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <tvm/ffi/function.h>

using tvm::ffi::TensorView;

static cudaStream_t stream_of(TensorView t) {
  return static_cast<cudaStream_t>(TVMFFIEnvGetStream(t.device().device_type, t.device().device_id));
}
static float* floats(TensorView t) { return static_cast<float*>(t.data_ptr()); }

// Right and slow: 16 x 16 tiles.
__global__ void linear_gelu_kernel(const float* x, const float* weight, const float* bias, float* out, int columns, int depth) {
  __shared__ float a[16][17], b[16][17];
  const int tx = threadIdx.x, ty = threadIdx.y, r = blockIdx.y * 16 + ty, c = blockIdx.x * 16 + tx;
  float sum = 0.f;
  for (int k0 = 0; k0 < depth; k0 += 16) {
    a[ty][tx] = x[static_cast<long long>(r) * depth + k0 + tx];
    b[ty][tx] = weight[static_cast<long long>(blockIdx.x * 16 + ty) * depth + k0 + tx];
    __syncthreads();
    for (int k = 0; k < 16; ++k) sum = fmaf(a[ty][k], b[tx][k], sum);
    __syncthreads();
  }
  const float z = sum + bias[c];
  out[static_cast<long long>(r) * columns + c] = 0.5f * z * (1.f + erff(z * 0.70710678118654752f));
}

void linear_gelu(TensorView x, TensorView weight, TensorView bias, TensorView out) {
  const int rows = static_cast<int>(x.size(0)), columns = static_cast<int>(out.size(1));
  linear_gelu_kernel<<<dim3(columns / 16, rows / 16), dim3(16, 16), 0, stream_of(x)>>>(
      floats(x), floats(weight), floats(bias), floats(out), columns, static_cast<int>(x.size(1)));
}
TVM_FFI_DLL_EXPORT_TYPED_FUNC(linear_gelu, linear_gelu);
