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

// One warp a row: the dot product with the sums.
__global__ void dot_kernel(const float4* x, const float4* sums, float* out, int columns4) {
  const int row = blockIdx.x * 8 + threadIdx.x / 32;
  float sum = 0.f;
  for (int i = threadIdx.x % 32; i < columns4; i += 32) {
    const float4 a = x[static_cast<int64_t>(row) * columns4 + i], b = sums[i];
    sum += (a.x * b.x + a.y * b.y) + (a.z * b.z + a.w * b.w);
  }
  for (int step = 16; step; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  if (threadIdx.x % 32 == 0) out[row] = sum;
}

void matmul_row_sum(TensorView x, TensorView weight, TensorView sums, TensorView out) {
  const int rows = static_cast<int>(x.size(0)), depth = static_cast<int>(x.size(1)), features = static_cast<int>(weight.size(0));
  if (features % 128 || depth % 128 || rows % 8) TVM_FFI_THROW(ValueError) << "built for multiples of 128";
  partial_kernel<<<dim3(depth / 128, 16), 256, 0, stream_of(x)>>>(reinterpret_cast<const float4*>(floats(weight)), floats(sums), features, depth, 1);
  dot_kernel<<<rows / 8, 256, 0, stream_of(x)>>>(reinterpret_cast<const float4*>(floats(x)),
                                                 reinterpret_cast<const float4*>(floats(sums)), floats(out), depth / 4);
  check_launch("matmul_row_sum");
}
TVM_FFI_DLL_EXPORT_TYPED_FUNC(matmul_row_sum, matmul_row_sum);
