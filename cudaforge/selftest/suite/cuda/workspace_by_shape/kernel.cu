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

// A block sums 128 columns over a share of the rows; share s goes to row s of the workspace, or is added to out.
__global__ void __launch_bounds__(256) partial_kernel(const float4* __restrict__ x, float* __restrict__ to, int rows, int columns, int add) {
  __shared__ float4 parts[8][32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, share = rows / gridDim.y;
  const int column4 = blockIdx.x * 32 + lane;
  float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll 8
  for (int r = blockIdx.y * share + warp; r < (blockIdx.y + 1) * share; r += 8) {
    const float4 v = x[static_cast<int64_t>(r) * (columns / 4) + column4];
    sum = make_float4(sum.x + v.x, sum.y + v.y, sum.z + v.z, sum.w + v.w);
  }
  parts[warp][lane] = sum;
  __syncthreads();
  if (threadIdx.x >= 128) return;
  const int c = threadIdx.x;  // of the block's 128 columns
  float total = 0.f;
  for (int i = 0; i < 8; ++i) total += reinterpret_cast<const float*>(parts[i])[c];
  const int column = blockIdx.x * 128 + c;
  if (add) atomicAdd(to + column, total);
  else to[static_cast<int64_t>(blockIdx.y) * columns + column] = total;
}

__global__ void final_kernel(const float* workspace, float* out, int columns) {
  const int c = blockIdx.x * blockDim.x + threadIdx.x;
  float sum = 0.f;
  for (int i = 0; i < 16; ++i) sum += workspace[static_cast<int64_t>(i) * columns + c];
  out[c] = sum;
}

void column_sum(TensorView x, TensorView workspace, TensorView out) {
  const int rows = static_cast<int>(x.size(0)), columns = static_cast<int>(x.size(1));
  if (rows % 128 || columns % 128) TVM_FFI_THROW(ValueError) << "built for multiples of 128";
  partial_kernel<<<dim3(columns / 128, 16), 256, 0, stream_of(x)>>>(reinterpret_cast<const float4*>(floats(x)), floats(workspace), rows, columns, 0);
  final_kernel<<<columns / 128, 128, 0, stream_of(x)>>>(floats(workspace), floats(out), columns);
  check_launch("column_sum");
}
TVM_FFI_DLL_EXPORT_TYPED_FUNC(column_sum, column_sum);
