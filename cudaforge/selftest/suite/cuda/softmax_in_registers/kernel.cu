#include <cstdint>
#include <cuda_runtime.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <tvm/ffi/function.h>

using tvm::ffi::TensorView;

// Lines of x are read once: they are to leave the L2 cache first, before anything that is still of use.
__device__ __forceinline__ uint64_t evict_first() {
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

__device__ __forceinline__ float4 load_once(const float4* p, uint64_t policy) {
  float4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::cache_hint.v4.f32 {%0, %1, %2, %3}, [%4], %5;"
               : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
               : "l"(p), "l"(policy));
  return v;
}

constexpr int kColumns = 2048;
constexpr int kWarps = 2;
constexpr int kVectors = kColumns / 4 / 32;  // float4 a lane: the whole row lies in the registers of one warp
constexpr float kLog2e = 1.4426950408889634f;

__device__ __forceinline__ float exp2_approx(float v) {
  float r;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(v));
  return r;
}

// 12 blocks of 2 warps fit a multiprocessor, so a grid of up to 1584 blocks runs as one wave.
__global__ void __launch_bounds__(kWarps * 32, 12)
    softmax_kernel(const float* __restrict__ x, float* __restrict__ y, int rows) {
  const int lane = threadIdx.x % 32;
  const int row = blockIdx.x * kWarps + threadIdx.x / 32;
  if (row >= rows) return;
  const float4* in = reinterpret_cast<const float4*>(x + static_cast<int64_t>(row) * kColumns) + lane;
  float4* out = reinterpret_cast<float4*>(y + static_cast<int64_t>(row) * kColumns) + lane;
  const uint64_t policy = evict_first();

  float4 v[kVectors];
#pragma unroll
  for (int i = 0; i < kVectors; ++i) v[i] = load_once(in + 32 * i, policy);

  float maximum = -INFINITY;
#pragma unroll
  for (int i = 0; i < kVectors; ++i) maximum = fmaxf(maximum, fmaxf(fmaxf(v[i].x, v[i].y), fmaxf(v[i].z, v[i].w)));
#pragma unroll
  for (int step = 16; step > 0; step /= 2) maximum = fmaxf(maximum, __shfl_xor_sync(0xffffffffu, maximum, step));

  // exp(v - maximum) as one multiply-add and one ex2. The rounding of `shift` is common to all terms and cancels.
  const float shift = -maximum * kLog2e;
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    v[i].x = exp2_approx(fmaf(v[i].x, kLog2e, shift));
    v[i].y = exp2_approx(fmaf(v[i].y, kLog2e, shift));
    v[i].z = exp2_approx(fmaf(v[i].z, kLog2e, shift));
    v[i].w = exp2_approx(fmaf(v[i].w, kLog2e, shift));
    sum += (v[i].x + v[i].y) + (v[i].z + v[i].w);
  }
#pragma unroll
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);

  const float scale = 1.0f / sum;
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    const float4 result = make_float4(v[i].x * scale, v[i].y * scale, v[i].z * scale, v[i].w * scale);
    out[32 * i] = result;
  }
}

void softmax(TensorView x, TensorView y) {
  if (x.size(1) != kColumns || reinterpret_cast<uintptr_t>(x.data_ptr()) % 16 != 0 ||
      reinterpret_cast<uintptr_t>(y.data_ptr()) % 16 != 0) {
    TVM_FFI_THROW(ValueError) << "softmax: built for aligned rows of " << kColumns << " floats";
  }
  const int rows = static_cast<int>(x.size(0));
  const auto stream = static_cast<cudaStream_t>(TVMFFIEnvGetStream(x.device().device_type, x.device().device_id));
  softmax_kernel<<<(rows + kWarps - 1) / kWarps, kWarps * 32, 0, stream>>>(
      static_cast<const float*>(x.data_ptr()), static_cast<float*>(y.data_ptr()), rows);
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) TVM_FFI_THROW(RuntimeError) << "softmax: " << cudaGetErrorString(error);
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(softmax, softmax);
