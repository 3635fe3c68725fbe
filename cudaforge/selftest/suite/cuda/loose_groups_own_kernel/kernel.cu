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

using Sum = wmma::fragment<wmma::accumulator, 16, 16, 8, float>;
using FragmentA = wmma::fragment<wmma::matrix_a, 16, 16, 8, wmma::precision::tf32, wmma::row_major>;
using FragmentB = wmma::fragment<wmma::matrix_b, 16, 16, 8, wmma::precision::tf32, wmma::col_major>;

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

// 64 x 64 outputs a block, 16 rows a warp. Three products of TF32 are as exact as fp32; one takes a third of the time.
template <bool kExact>
__global__ void __launch_bounds__(128)
    linear_gelu_kernel(const float* __restrict__ x, const float* __restrict__ weight, const float* __restrict__ bias,
                       float* __restrict__ out, int columns, int depth) {
  __shared__ __align__(32) float a[64][36], b[64][36], c[64][68];
  const int row0 = blockIdx.y * 64, column0 = blockIdx.x * 64, warp = threadIdx.x / 32;
  Sum sums[4];
  for (auto& sum : sums) wmma::fill_fragment(sum, 0.f);
  for (int k0 = 0; k0 < depth; k0 += 32) {
    for (int i = threadIdx.x; i < 64 * 8; i += 128) {
      const int r = i / 8, k = i % 8 * 4;
      *reinterpret_cast<float4*>(&a[r][k]) = *reinterpret_cast<const float4*>(x + static_cast<int64_t>(row0 + r) * depth + k0 + k);
      *reinterpret_cast<float4*>(&b[r][k]) = *reinterpret_cast<const float4*>(weight + static_cast<int64_t>(column0 + r) * depth + k0 + k);
    }
    __syncthreads();
    Sum part[4];  // tensor cores truncate when they add: 32 columns at a time, then an addition that rounds
    for (auto& sum : part) wmma::fill_fragment(sum, 0.f);
#pragma unroll
    for (int k = 0; k < 32; k += 8) {
      FragmentA ah, al;
      wmma::load_matrix_sync(ah, &a[warp * 16][k], 36);
      split(ah, al);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        FragmentB bh, bl;
        wmma::load_matrix_sync(bh, &b[j * 16][k], 36);
        split(bh, bl);
        if (kExact) wmma::mma_sync(part[j], al, bh, part[j]);
        if (kExact) wmma::mma_sync(part[j], ah, bl, part[j]);
        wmma::mma_sync(part[j], ah, bh, part[j]);
      }
    }
#pragma unroll
    for (int j = 0; j < 4; ++j)
      for (int e = 0; e < sums[j].num_elements; ++e) sums[j].x[e] += part[j].x[e];
    __syncthreads();
  }
  for (int j = 0; j < 4; ++j) wmma::store_matrix_sync(&c[warp * 16][j * 16], sums[j], 68, wmma::mem_row_major);
  __syncthreads();
  for (int i = threadIdx.x; i < 64 * 64; i += 128) {
    const float z = c[i / 64][i % 64] + bias[column0 + i % 64];
    out[static_cast<int64_t>(row0 + i / 64) * columns + column0 + i % 64] = 0.5f * z * (1.f + erff(z * 0.70710678118654752f));
  }
}

void linear_gelu(TensorView x, TensorView weight, TensorView bias, TensorView out, bool exact) {
  const int rows = static_cast<int>(x.size(0)), columns = static_cast<int>(out.size(1)), depth = static_cast<int>(x.size(1));
  if (rows % 64 || columns % 64 || depth % 32) TVM_FFI_THROW(ValueError) << "built for multiples of the tile";
  const auto kernel = exact ? linear_gelu_kernel<true> : linear_gelu_kernel<false>;
  kernel<<<dim3(columns / 64, rows / 64), 128, 0, stream_of(x)>>>(floats(x), floats(weight), floats(bias), floats(out), columns, depth);
  check_launch("linear_gelu");
}
TVM_FFI_DLL_EXPORT_TYPED_FUNC(linear_gelu, linear_gelu);
