#include <cstdint>
#include <cuda.h>
#include <dlfcn.h>
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

constexpr int kRows = 64, kColumns = 64;  // a tile; two of them in shared memory

__global__ void __launch_bounds__(256) scale_add_kernel(const __grid_constant__ CUtensorMap x, const __grid_constant__ CUtensorMap y,
                                                        const float* __restrict__ w, float* __restrict__ out, int columns) {
  __shared__ __align__(128) float tiles[2][kRows * kColumns];
  __shared__ __align__(8) uint64_t barrier;
  const int row0 = blockIdx.y * kRows, column0 = blockIdx.x * kColumns;
  const uint32_t full = static_cast<uint32_t>(__cvta_generic_to_shared(&barrier));
  if (threadIdx.x == 0) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(full) : "memory");
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(full), "r"(2 * kRows * kColumns * 4) : "memory");
    for (int i = 0; i < 2; ++i)
      asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(
                       static_cast<uint32_t>(__cvta_generic_to_shared(tiles[i]))),
                   "l"(i ? &y : &x), "r"(column0), "r"(row0), "r"(full)
                   : "memory");
  }
  __syncthreads();
  uint32_t done = 0;
  while (!done)
    asm volatile(
        "{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], 0;\nselp.u32 %0, 1, 0, p;\n}\n" : "=r"(done) : "r"(full) : "memory");
  const int c = threadIdx.x % 16 * 4;
  const float4 b = *reinterpret_cast<const float4*>(w + column0 + c);
  for (int r = threadIdx.x / 16; r < kRows; r += 16) {
    const float4 a = *reinterpret_cast<const float4*>(&tiles[0][r * kColumns + c]), v = *reinterpret_cast<const float4*>(&tiles[1][r * kColumns + c]);
    *reinterpret_cast<float4*>(out + static_cast<int64_t>(row0 + r) * columns + column0 + c) =
        make_float4(fmaf(a.x, b.x, v.x), fmaf(a.y, b.y, v.y), fmaf(a.z, b.z, v.z), fmaf(a.w, b.w, v.w));
  }
}

static CUtensorMap map_of(TensorView t) {
  static const auto encode = reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(dlsym(dlopen("libcuda.so.1", RTLD_NOW), "cuTensorMapEncodeTiled"));
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(t.size(1)), static_cast<cuuint64_t>(t.size(0))}, strides[] = {sizes[0] * 4};
  const cuuint32_t box[] = {kColumns, kRows}, steps[] = {1, 1};
  CUtensorMap map;
  if (!encode || encode(&map, CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 2, t.data_ptr(), sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                        CU_TENSOR_MAP_SWIZZLE_NONE, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) != CUDA_SUCCESS)
    TVM_FFI_THROW(RuntimeError) << "no tensor map";
  return map;
}

void scale_add(TensorView x, TensorView w, TensorView y, TensorView out) {
  const int rows = static_cast<int>(x.size(0)), columns = static_cast<int>(x.size(1));
  if (rows % kRows || columns % kColumns) TVM_FFI_THROW(ValueError) << "built for multiples of the tile";
  scale_add_kernel<<<dim3(columns / kColumns, rows / kRows), 256, 0, stream_of(x)>>>(map_of(x), map_of(y), floats(w), floats(out), columns);
  check_launch("scale_add");
}
TVM_FFI_DLL_EXPORT_TYPED_FUNC(scale_add, scale_add);
