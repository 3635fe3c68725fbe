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
static void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) TVM_FFI_THROW(RuntimeError) << what << ": " << cudaGetErrorString(error);
}

constexpr int kThreads = 256, kEach = 16, kTile = kThreads * kEach;
using Word = unsigned long long;  // of a tile: the call's number * 4 + kind, and in the low half a sum
constexpr unsigned kOwn = 1, kWhole = 2;  // of the tile alone; of all before it as well

// The sum of all tiles before this one, by a warp: 32 predecessors at a time, back to one that knows its whole sum.
__device__ float look_back(const volatile Word* words, int tile, unsigned call) {
  const int lane = threadIdx.x % 32;
  const unsigned own = call * 4 + kOwn, whole = call * 4 + kWhole;
  float sum = 0.f;
  for (int t = tile - 1; t >= 0; t -= 32) {
    const int at = t - lane;
    Word word;
    unsigned kind;
    do {
      word = at >= 0 ? words[at] : 0;
      kind = static_cast<unsigned>(word >> 32);
    } while (!__all_sync(~0u, at < 0 || kind == own || kind == whole));
    const unsigned ends = __ballot_sync(~0u, at >= 0 && kind == whole);
    const int end = ends ? __ffs(ends) - 1 : 31;
    float part = at >= 0 && lane <= end ? __uint_as_float(static_cast<unsigned>(word)) : 0.f;
    for (int o = 16; o; o /= 2) part += __shfl_xor_sync(~0u, part, o);
    sum += part;
    if (ends) break;
  }
  return sum;
}

__global__ void __launch_bounds__(kThreads) scan_kernel(const float4* __restrict__ x, float4* __restrict__ out, Word* state, unsigned* ticket, unsigned call) {
  __shared__ float sums[kThreads / 32], before;
  __shared__ unsigned mine;
  if (threadIdx.x == 0) mine = atomicAdd(ticket, 1) % gridDim.x;  // in the order in which blocks start
  __syncthreads();
  const unsigned tile = mine;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t at = static_cast<int64_t>(tile) * (kTile / 4) + threadIdx.x * (kEach / 4);
  __align__(16) float v[kEach];
  for (int i = 0; i < kEach / 4; ++i) *reinterpret_cast<float4*>(v + 4 * i) = x[at + i];
  for (int i = 1; i < kEach; ++i) v[i] += v[i - 1];
  float total = v[kEach - 1];
  for (int o = 1; o < 32; o *= 2) {
    const float left = __shfl_up_sync(~0u, total, o);
    if (lane >= o) total += left;
  }
  if (lane == 31) sums[warp] = total;
  const float up = __shfl_up_sync(~0u, total, 1);
  __syncthreads();
  float ahead = lane ? up : 0.f, all = 0.f;
  for (int i = 0; i < kThreads / 32; ++i) {
    if (i < warp) ahead += sums[i];
    all += sums[i];
  }
  if (warp == 0) {
    volatile Word* words = state;
    auto tell = [&](unsigned kind, float sum) {
      __threadfence();
      words[tile] = static_cast<Word>(call * 4 + kind) << 32 | __float_as_uint(sum);
    };
    if (lane == 0) tell(tile ? kOwn : kWhole, all);
    const float sum = look_back(words, static_cast<int>(tile), call);
    if (lane == 0 && tile) tell(kWhole, sum + all);
    if (lane == 0) before = sum;
  }
  __syncthreads();
  for (int i = 0; i < kEach; ++i) v[i] += before + ahead;
  for (int i = 0; i < kEach / 4; ++i) out[at + i] = *reinterpret_cast<float4*>(v + 4 * i);
}

void running_sum(TensorView x, TensorView out) {
  static Word* state = nullptr;
  static unsigned *ticket = nullptr, call = 0;
  const unsigned tiles = static_cast<unsigned>(x.numel() / kTile);
  if (!state) {
    check(cudaMalloc(&state, tiles * sizeof(Word) + 8), "cudaMalloc");
    check(cudaMemset(state, 0, tiles * sizeof(Word) + 8), "cudaMemset");
    ticket = reinterpret_cast<unsigned*>(state + tiles);
  }
  scan_kernel<<<tiles, kThreads, 0, stream_of(x)>>>(reinterpret_cast<const float4*>(floats(x)), reinterpret_cast<float4*>(floats(out)), state, ticket, ++call);
  check_launch("running_sum");
}
TVM_FFI_DLL_EXPORT_TYPED_FUNC(running_sum, running_sum);
