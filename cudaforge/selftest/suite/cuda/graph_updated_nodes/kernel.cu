#include <cstdint>
#include <mutex>

#include <cuda_runtime.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <tvm/ffi/function.h>

using tvm::ffi::TensorView;

static cudaStream_t stream_of(TensorView t) {
  return static_cast<cudaStream_t>(TVMFFIEnvGetStream(t.device().device_type, t.device().device_id));
}
static float* fp(TensorView t) { return static_cast<float*>(t.data_ptr()); }
static void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) TVM_FFI_THROW(RuntimeError) << what << ": " << cudaGetErrorString(error);
}

__device__ __forceinline__ float2 merged(float2 a, float na, float2 b, float nb) {  // mean and M2 of two sets
  const float n = na + nb, d = b.x - a.x;
  return make_float2(a.x + d * (nb / n), a.y + b.y + d * d * (na * nb / n));
}
__global__ void __launch_bounds__(256) row_statistics(const float* x, float2* stats, int columns) {
  __shared__ float2 parts[8];
  const float* row = x + static_cast<int64_t>(blockIdx.x) * columns;
  float mean = 0.f, m2 = 0.f, n = 0.f;  // Welford
  for (int i = threadIdx.x; i < columns; i += 256) {
    n += 1.f;
    const float v = row[i], d = v - mean;
    mean += d / n;
    m2 += d * (v - mean);
  }
  float2 mine = make_float2(mean, m2);  // columns is a multiple of 256: all threads have as many
  for (int step = 1; step < 32; step *= 2) {
    const float2 other = make_float2(__shfl_xor_sync(~0u, mine.x, step), __shfl_xor_sync(~0u, mine.y, step));
    mine = merged(mine, n, other, n);
    n *= 2.f;
  }
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = mine;
  __syncthreads();
  if (threadIdx.x == 0) {
    float have = n;
    for (int i = 1; i < 8; ++i) {
      mine = merged(mine, have, parts[i], n);
      have += n;
    }
    stats[blockIdx.x] = make_float2(mine.x, rsqrtf(mine.y / columns + 1e-5f));
  }
}
__global__ void __launch_bounds__(256) normalise(const float* x, const float2* stats, float* out, int columns) {
  const float2 s = stats[blockIdx.x];
  const int64_t base = static_cast<int64_t>(blockIdx.x) * columns;
  for (int i = threadIdx.x; i < columns; i += 256) out[base + i] = (x[base + i] - s.x) * s.y;
}
struct Made {
  cudaGraphExec_t exec = nullptr;
  cudaGraphNode_t first = nullptr, second = nullptr;
};
static cudaKernelNodeParams node(void* function, int blocks, void** arguments) {
  cudaKernelNodeParams p = {};
  p.func = function;
  p.gridDim = dim3(blocks);
  p.blockDim = dim3(256);
  p.kernelParams = arguments;
  return p;
}
void group_norm(TensorView x, TensorView stats, TensorView out) {
  static std::mutex lock;
  static Made made;
  std::lock_guard<std::mutex> hold(lock);
  int rows = x.size(0), columns = x.size(1);
  if (columns % 256) TVM_FFI_THROW(ValueError) << "built for multiples of 256";
  const float* in = fp(x);
  float* to = fp(out);
  float2* s = reinterpret_cast<float2*>(fp(stats));
  const float2* s_in = s;
  void *a[] = {&in, &s, &columns}, *b[] = {&in, &s_in, &to, &columns};
  cudaKernelNodeParams p = node(reinterpret_cast<void*>(row_statistics), rows, a);
  cudaKernelNodeParams q = node(reinterpret_cast<void*>(normalise), rows, b);
  if (!made.exec) {
    cudaGraph_t graph;
    check(cudaGraphCreate(&graph, 0), "cudaGraphCreate");
    check(cudaGraphAddKernelNode(&made.first, graph, nullptr, 0, &p), "first node");
    check(cudaGraphAddKernelNode(&made.second, graph, &made.first, 1, &q), "second node");
    check(cudaGraphInstantiate(&made.exec, graph, 0), "cudaGraphInstantiate");
  } else {
    check(cudaGraphExecKernelNodeSetParams(made.exec, made.first, &p), "set first");
    check(cudaGraphExecKernelNodeSetParams(made.exec, made.second, &q), "set second");
  }
  check(cudaGraphLaunch(made.exec, stream_of(x)), "cudaGraphLaunch");
}
TVM_FFI_DLL_EXPORT_TYPED_FUNC(norm, group_norm);
