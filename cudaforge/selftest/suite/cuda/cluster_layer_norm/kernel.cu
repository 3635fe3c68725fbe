#include <cooperative_groups.h>
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

namespace cg = cooperative_groups;

constexpr int kBlocks = 8, kVectors = 4, kThreads = 256;
constexpr int kColumns = kBlocks * kVectors * kThreads * 4;

__device__ float block_sum(float v, float* parts) {
  for (int step = 16; step; step /= 2) v += __shfl_xor_sync(~0u, v, step);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = v;
  __syncthreads();
  v = 0.f;
  for (int i = 0; i < kThreads / 32; ++i) v += parts[i];
  return v;
}

// Sums of all blocks of the cluster; `mine` is read by the other blocks.
__device__ float cluster_sum(float v, float* parts, float* mine) {
  auto cluster = cg::this_cluster();
  v = block_sum(v, parts);
  if (threadIdx.x == 0) *mine = v;
  cluster.sync();
  v = 0.f;
  for (int rank = 0; rank < kBlocks; ++rank) v += *cluster.map_shared_rank(mine, rank);
  return v;
}

__global__ void __cluster_dims__(kBlocks, 1, 1) __launch_bounds__(kThreads)
    layer_norm_kernel(const float4* __restrict__ x, const float4* __restrict__ gamma, const float4* __restrict__ beta,
                      float4* __restrict__ out) {
  __shared__ float parts[2][kThreads / 32], sums[2];
  const int64_t row = blockIdx.x / kBlocks;
  const int first = blockIdx.x % kBlocks * (kVectors * kThreads) + threadIdx.x;  // within the row, in vectors
  x += row * (kColumns / 4);
  out += row * (kColumns / 4);
  float4 v[kVectors];
  float sum = 0.f;
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    v[i] = x[first + i * kThreads];
    sum += (v[i].x + v[i].y) + (v[i].z + v[i].w);
  }
  const float mean = cluster_sum(sum, parts[0], &sums[0]) / kColumns;
  float squares = 0.f;
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    v[i] = make_float4(v[i].x - mean, v[i].y - mean, v[i].z - mean, v[i].w - mean);
    squares += (v[i].x * v[i].x + v[i].y * v[i].y) + (v[i].z * v[i].z + v[i].w * v[i].w);
  }
  const float scale = 1.f / sqrtf(cluster_sum(squares, parts[1], &sums[1]) / kColumns + 1e-5f);
  cg::this_cluster().barrier_arrive();  // shared memory must live until all have read it: waited for at the end
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    const float4 g = gamma[first + i * kThreads], b = beta[first + i * kThreads];
    out[first + i * kThreads] = make_float4(fmaf(v[i].x * scale, g.x, b.x), fmaf(v[i].y * scale, g.y, b.y),
                                            fmaf(v[i].z * scale, g.z, b.z), fmaf(v[i].w * scale, g.w, b.w));
  }
  cg::this_cluster().barrier_wait();
}

void layer_norm(TensorView x, TensorView gamma, TensorView beta, TensorView out) {
  if (x.size(1) != kColumns) TVM_FFI_THROW(ValueError) << "built for rows of " << kColumns;
  layer_norm_kernel<<<static_cast<int>(x.size(0)) * kBlocks, kThreads, 0, stream_of(x)>>>(
      reinterpret_cast<const float4*>(floats(x)), reinterpret_cast<const float4*>(floats(gamma)),
      reinterpret_cast<const float4*>(floats(beta)), reinterpret_cast<float4*>(floats(out)));
  check_launch("layer_norm");
}
TVM_FFI_DLL_EXPORT_TYPED_FUNC(layer_norm, layer_norm);
