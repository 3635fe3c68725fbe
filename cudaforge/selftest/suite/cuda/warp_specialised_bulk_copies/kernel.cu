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

static const float4* vectors(TensorView t) { return reinterpret_cast<const float4*>(floats(t)); }
static float4* vectors_out(TensorView t) { return reinterpret_cast<float4*>(floats(t)); }
static int count4(TensorView t) { return static_cast<int>(t.numel() / 4); }

__device__ __forceinline__ float4 scaled(float4 a, float4 w, float4 b) {
  return make_float4(fmaf(a.x, w.x, b.x), fmaf(a.y, w.y, b.y), fmaf(a.z, w.z, b.z), fmaf(a.w, w.w, b.w));
}

constexpr int kTile = 1024, kStages = 4;  // a row's vectors, and how many rows of x and y are under way
__device__ unsigned next_row, blocks_done;

using Barrier = unsigned long long;
__device__ __forceinline__ unsigned shared_address(const void* p) { return static_cast<unsigned>(__cvta_generic_to_shared(p)); }
__device__ __forceinline__ void wait(Barrier* barrier, unsigned parity) {
  asm volatile("{\n.reg .pred p;\nAGAIN:\nmbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n@p bra DONE;\nbra AGAIN;\nDONE:\n}" ::"r"(shared_address(barrier)), "r"(parity) : "memory");
}
__device__ __forceinline__ void arrive(Barrier* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
__device__ __forceinline__ void copy(float4* to, const float4* from, Barrier* barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(shared_address(to)), "l"(from), "r"(kTile * 16), "r"(shared_address(barrier)) : "memory");
}

__global__ void __launch_bounds__(384, 1) scale_add_kernel(const float4* x, const float4* w, const float4* y, float4* out, int rows) {
  extern __shared__ __align__(128) float4 stages[];
  __shared__ Barrier full[kStages], empty[kStages];
  __shared__ int which[kStages];
  if (threadIdx.x == 0)
    for (int i = 0; i < kStages; ++i) {
      asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(&full[i])));
      asm volatile("mbarrier.init.shared::cta.b64 [%0], 256;" ::"r"(shared_address(&empty[i])));
    }
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  __syncthreads();
  if (threadIdx.x >= 256) {  // one thread fetches rows, taken from a counter
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
    for (int n = 0; threadIdx.x == 256; ++n) {
      const int s = n % kStages;
      if (n >= kStages) wait(&empty[s], (n / kStages - 1) & 1);
      const int row = static_cast<int>(atomicAdd(&next_row, 1));
      which[s] = row < rows ? row : -1;
      if (row >= rows) {
        arrive(&full[s]);
        break;
      }
      asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&full[s])), "r"(kTile * 32) : "memory");
      copy(stages + s * 2 * kTile, x + static_cast<int64_t>(row) * kTile, &full[s]);
      copy(stages + (s * 2 + 1) * kTile, y + static_cast<int64_t>(row) * kTile, &full[s]);
    }
  } else {  // two warpgroups compute
    asm volatile("setmaxnreg.inc.sync.aligned.u32 200;");
    for (int n = 0;; ++n) {
      const int s = n % kStages;
      wait(&full[s], (n / kStages) & 1);
      const int row = which[s];
      if (row < 0) break;
      for (int i = threadIdx.x; i < kTile; i += 256)
        out[static_cast<int64_t>(row) * kTile + i] = scaled(stages[s * 2 * kTile + i], w[i], stages[(s * 2 + 1) * kTile + i]);
      arrive(&empty[s]);
    }
  }
  __syncthreads();
  __threadfence();
  if (threadIdx.x == 0 && atomicAdd(&blocks_done, 1) == gridDim.x - 1) next_row = blocks_done = 0;  // for the next launch
}

void scale_add(TensorView x, TensorView w, TensorView y, TensorView out) {
  if (x.size(1) != 4 * kTile) TVM_FFI_THROW(ValueError) << "built for rows of 4096";
  const int bytes = kStages * 2 * kTile * 16;
  check(cudaFuncSetAttribute(scale_add_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "shared memory");
  scale_add_kernel<<<132, 384, bytes, stream_of(x)>>>(vectors(x), vectors(w), vectors(y), vectors_out(out), static_cast<int>(x.size(0)));
  check(cudaGetLastError(), "scale_add");
}
TVM_FFI_DLL_EXPORT_TYPED_FUNC(scale_add, scale_add);
