#include <mma.h>

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

using namespace nvcuda;

constexpr int kM = 128, kN = 64, kK = 32, kRow = kK + 4, kStages = 3, kThreads = 256;
constexpr int kStageFloats = (kM + kN) * kRow;
constexpr int kSharedBytes = kStages * kStageFloats * 4;
static_assert(8 * 32 * 36 <= kStages * kStageFloats, "the results reuse the stages");

using FragmentA = wmma::fragment<wmma::matrix_a, 16, 16, 8, wmma::precision::tf32, wmma::row_major>;
using FragmentB = wmma::fragment<wmma::matrix_b, 16, 16, 8, wmma::precision::tf32, wmma::col_major>;
using Sum = wmma::fragment<wmma::accumulator, 16, 16, 8, float>;

// v = high + low, each a TF32 number: together 22 bits of v.
template <class Fragment>
__device__ __forceinline__ void split(Fragment& high, Fragment& low) {
#pragma unroll
  for (int i = 0; i < high.num_elements; ++i) {
    const float v = high.x[i];
    high.x[i] = wmma::__float_to_tf32(v);
    low.x[i] = wmma::__float_to_tf32(v - high.x[i]);
  }
}

__device__ __forceinline__ void copy16(float* to, const float* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(static_cast<unsigned>(__cvta_generic_to_shared(to))), "l"(from) : "memory");
}

// One stage: kM rows of x and kN rows of the weight, kK columns of each.
__device__ __forceinline__ void fetch(float* stage, const float* x, const float* weight, int depth, int k0) {
#pragma unroll
  for (int i = threadIdx.x; i < (kM + kN) * (kK / 4); i += kThreads) {
    const int r = i / (kK / 4), k = i % (kK / 4) * 4;
    copy16(stage + r * kRow + k, (r < kM ? x + static_cast<int64_t>(r) * depth : weight + static_cast<int64_t>(r - kM) * depth) + k0 + k);
  }
}

__global__ void __launch_bounds__(kThreads, 2)
    linear_gelu_kernel(const float* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ bias,
                       float* __restrict__ out, int columns, int depth) {
  extern __shared__ __align__(128) float shared[];
  const int row0 = blockIdx.y * kM, column0 = blockIdx.x * kN, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int r0 = warp / 2 * 32, c0 = warp % 2 * 32, steps = depth / kK;
  x += static_cast<int64_t>(row0) * depth;
  weight += static_cast<int64_t>(column0) * depth;
  Sum sums[2][2];
#pragma unroll
  for (int i = 0; i < 4; ++i) wmma::fill_fragment(sums[i / 2][i % 2], 0.f);
  for (int s = 0; s < kStages - 1; ++s) {
    if (s < steps) fetch(shared + s * kStageFloats, x, weight, depth, s * kK);
    asm volatile("cp.async.commit_group;" ::: "memory");
  }
  for (int step = 0; step < steps; ++step) {
    asm volatile("cp.async.wait_group %0;" ::"n"(kStages - 2) : "memory");
    __syncthreads();  // this stage is here for all, and all have left the stage that is fetched next
    if (step + kStages - 1 < steps)
      fetch(shared + (step + kStages - 1) % kStages * kStageFloats, x, weight, depth, (step + kStages - 1) * kK);
    asm volatile("cp.async.commit_group;" ::: "memory");
    const float* a = shared + step % kStages * kStageFloats;
    const float* b = a + kM * kRow;
    Sum part[2][2];  // tensor cores truncate when they add: 32 columns at a time, then an addition that rounds
#pragma unroll
    for (int i = 0; i < 4; ++i) wmma::fill_fragment(part[i / 2][i % 2], 0.f);
#pragma unroll
    for (int k = 0; k < kK; k += 8) {
      FragmentA ah[2], al[2];
      FragmentB bh[2], bl[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        wmma::load_matrix_sync(ah[i], a + (r0 + 16 * i) * kRow + k, kRow);
        wmma::load_matrix_sync(bh[i], b + (c0 + 16 * i) * kRow + k, kRow);
        split(ah[i], al[i]);
        split(bh[i], bl[i]);
      }
#pragma unroll
      for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          wmma::mma_sync(part[i][j], al[i], bh[j], part[i][j]);
          wmma::mma_sync(part[i][j], ah[i], bl[j], part[i][j]);
          wmma::mma_sync(part[i][j], ah[i], bh[j], part[i][j]);
        }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int e = 0; e < sums[0][0].num_elements; ++e) sums[i / 2][i % 2].x[e] += part[i / 2][i % 2].x[e];
  }
  asm volatile("cp.async.wait_all;" ::: "memory");
  __syncthreads();
  float* tile = shared + warp * 32 * 36;  // each warp's own 32 x 32
#pragma unroll
  for (int i = 0; i < 4; ++i)
    wmma::store_matrix_sync(tile + i / 2 * 16 * 36 + i % 2 * 16, sums[i / 2][i % 2], 36, wmma::mem_row_major);
  __syncwarp();
  const float b = bias[column0 + c0 + lane];
  for (int r = 0; r < 32; ++r) {
    const float z = tile[r * 36 + lane] + b;
    out[static_cast<int64_t>(row0 + r0 + r) * columns + column0 + c0 + lane] = 0.5f * z * (1.f + erff(z * 0.70710678118654752f));
  }
}

void linear_gelu(TensorView x, TensorView weight, TensorView bias, TensorView out) {
  const int rows = static_cast<int>(x.size(0)), columns = static_cast<int>(out.size(1)), depth = static_cast<int>(x.size(1));
  if (rows % kM || columns % kN || depth % kK) TVM_FFI_THROW(ValueError) << "built for multiples of the tile";
  cudaFuncSetAttribute(linear_gelu_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
  linear_gelu_kernel<<<dim3(columns / kN, rows / kM), kThreads, kSharedBytes, stream_of(x)>>>(
      floats(x), floats(weight), floats(bias), floats(out), columns, depth);
  check_launch("linear_gelu");
}
TVM_FFI_DLL_EXPORT_TYPED_FUNC(linear_gelu, linear_gelu);
