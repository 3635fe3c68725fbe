#include <cstdint>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <tvm/ffi/function.h>

using tvm::ffi::TensorView;

constexpr int kTileM = 128, kTileN = 128, kTileK = 64;
constexpr int kPlaneBytes = kTileN * kTileK * 2, kPieceBytes = 2 * kPlaneBytes;  // high and low halves of the weight
constexpr int kStages = 5;
constexpr int kThreads = 3 * 128;  // two warpgroups compute, one thread of the third fetches
constexpr int kExchangeBytes = kTileM * kTileN / 2 * 4;
constexpr int kSharedBytes = kStages * kPieceBytes + kExchangeBytes + 1024;

__device__ __forceinline__ float gelu(float z) { return 0.5f * z * (1.0f + erff(z * 0.70710678118654752f)); }

// The power of two that brings `largest` to [2^10, 2^11), as its exponent; 0 has none to bring.
__device__ __forceinline__ int scale_exponent(float largest) {
  const int exponent = static_cast<int>(__float_as_uint(largest) >> 23) - 127;
  return largest == 0.0f ? 0 : min(max(10 - exponent, -118), 100);
}

__device__ __forceinline__ float power_of_two(int exponent) { return __uint_as_float(static_cast<uint32_t>(127 + exponent) << 23); }

// a and b as halves: high = round(v), low = round(v - high). Together they hold 22 bits of v.
__device__ __forceinline__ void split(float a, float b, uint32_t& high, uint32_t& low) {
  const __half2 h = __floats2half2_rn(a, b);
  const float2 back = __half22float2(h);
  const __half2 l = __floats2half2_rn(a - back.x, b - back.y);
  high = reinterpret_cast<const uint32_t&>(h);
  low = reinterpret_cast<const uint32_t&>(l);
}

// One warp a row of the weight: scales it by a power of two, splits it, and writes both halves where wgmma wants them.
//
// A piece is kTileN rows by kTileK columns: a plane of high halves, then a plane of low ones. In a plane a row has 128
// bytes, eight chunks of 16, and chunk c lies at c ^ (row % 8), the 128-byte swizzle. Of each 16 columns k, the tensor
// cores' columns (2t, 2t + 1, 2t + 8, 2t + 9) are k = 4t .. 4t + 3: so a thread's share of x is one float4.
__global__ void pack_kernel(const float* __restrict__ weight, unsigned char* __restrict__ halves,
                            float* __restrict__ factors, int depth) {
  const int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  const float* in = weight + static_cast<int64_t>(row) * depth;
  float largest = 0.0f;
  for (int k = lane; k < depth; k += 32) largest = fmaxf(largest, fabsf(in[k]));
  for (int step = 16; step > 0; step /= 2) largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, step));
  const int exponent = scale_exponent(largest);
  const float scale = power_of_two(exponent);
  if (lane == 0) factors[row] = power_of_two(-exponent);

  const int r = row % kTileN;
  unsigned char* pieces = halves + static_cast<int64_t>(row / kTileN) * (depth / kTileK) * kPieceBytes;
  for (int k = 4 * lane; k < depth; k += 128) {
    const float4 v = *reinterpret_cast<const float4*>(in + k);
    unsigned char* plane = pieces + static_cast<int64_t>(k / kTileK) * kPieceBytes;
    const int chunk = k % kTileK / 16 * 2, t = k % 16 / 4;
    uint32_t high, low;
    split(v.x * scale, v.y * scale, high, low);
    const int first = r * 128 + ((chunk ^ (r % 8)) * 16) + t * 4;
    *reinterpret_cast<uint32_t*>(plane + first) = high;
    *reinterpret_cast<uint32_t*>(plane + kPlaneBytes + first) = low;
    split(v.z * scale, v.w * scale, high, low);
    const int second = r * 128 + (((chunk + 1) ^ (r % 8)) * 16) + t * 4;
    *reinterpret_cast<uint32_t*>(plane + second) = high;
    *reinterpret_cast<uint32_t*>(plane + kPlaneBytes + second) = low;
  }
}

void pack_weight(TensorView weight, TensorView halves, TensorView factors) {
  const int rows = static_cast<int>(weight.size(0)), depth = static_cast<int>(weight.size(1));
  if (rows % kTileN != 0 || depth % 128 != 0) TVM_FFI_THROW(ValueError) << "pack_weight: built for multiples of the tile";
  const auto stream =
      static_cast<cudaStream_t>(TVMFFIEnvGetStream(weight.device().device_type, weight.device().device_id));
  pack_kernel<<<rows / 8, 256, 0, stream>>>(static_cast<const float*>(weight.data_ptr()),
                                            static_cast<unsigned char*>(halves.data_ptr()),
                                            static_cast<float*>(factors.data_ptr()), depth);
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) TVM_FFI_THROW(RuntimeError) << "pack_weight: " << cudaGetErrorString(error);
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(pack_weight, pack_weight);

__device__ __forceinline__ void wait(uint32_t barrier, uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra finished;\n"
      "bra again;\n"
      "finished:\n"
      "}\n" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

// d (64 x 128, of a warpgroup) = a (64 x 16 halves in registers) x b (16 x 128 in shared memory) + (add ? d : 0).
__device__ __forceinline__ void wgmma(float (&d)[64], const uint32_t (&a)[4], uint64_t b, int add) {
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "setp.ne.b32 p, %69, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
      "{%64, %65, %66, %67}, %68, p, 1, 1, 0;\n"
      "}\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]),
        "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]),
        "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]),
        "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),
        "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]),
        "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]),
        "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]),
        "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]),
        "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]),
        "+f"(d[54]), "+f"(d[55]), "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]),
        "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}

// Operand b: rows of 128 bytes with the 128-byte swizzle, eight rows (1024 bytes) after eight rows.
__device__ __forceinline__ uint64_t descriptor(uint32_t address) {
  return static_cast<uint64_t>((address & 0x3ffff) >> 4) | (1ull << 16) | (static_cast<uint64_t>(1024 >> 4) << 32) |
         (1ull << 62);
}

__device__ __forceinline__ void fence_accumulators(float (&d)[64]) {
#pragma unroll
  for (int i = 0; i < 64; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

// Registers that the tensor cores may still be reading must not be given away before this.
__device__ __forceinline__ void fence_fragments(uint32_t (&f)[4][4]) {
#pragma unroll
  for (int i = 0; i < 16; ++i) asm volatile("" : "+r"(f[i / 4][i % 4])::"memory");
}

// A lane's share of 64 columns of two rows of x. Read around L1: every block reads a value once.
__device__ __forceinline__ void load_x(float4 (&raw)[8], const float* upper, const float* lower) {
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    asm volatile("ld.global.nc.L1::no_allocate.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(raw[2 * j].x), "=f"(raw[2 * j].y), "=f"(raw[2 * j].z), "=f"(raw[2 * j].w)
                 : "l"(upper + 16 * j));
    asm volatile("ld.global.nc.L1::no_allocate.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(raw[2 * j + 1].x), "=f"(raw[2 * j + 1].y), "=f"(raw[2 * j + 1].z), "=f"(raw[2 * j + 1].w)
                 : "l"(lower + 16 * j));
  }
}

__device__ __forceinline__ float largest_of(float largest, float4 v) {
  return fmaxf(fmaxf(largest, fmaxf(fabsf(v.x), fabsf(v.y))), fmaxf(fabsf(v.z), fabsf(v.w)));
}

__device__ __forceinline__ void cluster_wait() { asm volatile("barrier.cluster.wait.acquire;" ::: "memory"); }

// The same shared address in the cluster's block `rank`.
__device__ __forceinline__ uint32_t remote(uint32_t address, uint32_t rank) {
  uint32_t there;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
  return there;
}

// 16 bytes to the other block's shared memory; they count towards `barrier` there.
__device__ __forceinline__ void send(uint32_t to, float a, float b, float c, float d, uint32_t barrier) {
  asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(to),
               "r"(__float_as_uint(a)), "r"(__float_as_uint(b)), "r"(__float_as_uint(c)), "r"(__float_as_uint(d)),
               "r"(barrier)
               : "memory");
}

// Two blocks of a cluster compute one tile of kTileM x kTileN, each over half of the depth; each warpgroup has 64 rows.
// Grid: (2, row tiles, column tiles); a cluster is 2 halves of the depth.
__global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(kThreads, 1)
    linear_gelu_kernel(const float* __restrict__ x, const unsigned char* __restrict__ halves,
                       const float* __restrict__ factors, const float* __restrict__ bias, float* __restrict__ out,
                       int columns, int depth) {
  extern __shared__ unsigned char shared[];
  __shared__ __align__(8) uint64_t barriers[2 * kStages + 1];
  __shared__ float column_values[2 * kTileN];  // factors, then biases
  const uint32_t base = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  const uint32_t stages = (base + 1023) & ~1023u;
  const uint32_t exchange = stages + kStages * kPieceBytes;
  const uint32_t full = static_cast<uint32_t>(__cvta_generic_to_shared(barriers)), empty = full + 8 * kStages;
  const uint32_t exchanged = empty + 8 * kStages;  // complete when the other block's sums are here
  const int tid = threadIdx.x, warp = tid / 32, lane = tid % 32;
  const int half = blockIdx.x, row0 = blockIdx.y * kTileM, column0 = blockIdx.z * kTileN;
  const int steps = depth / 2 / kTileK, first_step = half * steps;

  if (tid == 256) {
    for (int s = 0; s < kStages; ++s) {
      asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(full + 8 * s) : "memory");
      asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(empty + 8 * s), "r"(8) : "memory");
    }
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(exchanged) : "memory");
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(exchanged), "r"(kExchangeBytes) : "memory");
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncwarp();
  asm volatile("barrier.cluster.arrive.relaxed;" ::: "memory");  // waited for before the first use of a barrier

  if (warp >= 8) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");  // its registers go to those who compute
    if (tid == 256) {
      // All of x and of the packed weight is under way from memory to L2 at once: each block asks for its share.
      const int64_t block = blockIdx.x + 2 * (blockIdx.y + static_cast<int64_t>(gridDim.y) * blockIdx.z);
      const int64_t blocks = 2 * static_cast<int64_t>(gridDim.y) * gridDim.z;
      const int64_t x_share = static_cast<int64_t>(gridDim.y) * kTileM * depth * 4 / blocks & ~15ll;
      const int64_t weight_share = static_cast<int64_t>(columns) * depth * 4 / blocks & ~15ll;
      asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(reinterpret_cast<const char*>(x) + block * x_share),
                   "r"(static_cast<uint32_t>(x_share))
                   : "memory");
      asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(halves + block * weight_share),
                   "r"(static_cast<uint32_t>(weight_share))
                   : "memory");
    }
    __syncwarp();
    cluster_wait();
    if (tid == 256) {
      const unsigned char* from =
          halves + (static_cast<int64_t>(blockIdx.z) * (depth / kTileK) + first_step) * kPieceBytes;
      for (int step = 0; step < steps; ++step) {
        const int slot = step % kStages;
        if (step >= kStages) wait(empty + 8 * slot, (step / kStages - 1) & 1);
        asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(full + 8 * slot), "r"(kPieceBytes)
                     : "memory");
        asm volatile(
            "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                stages + slot * kPieceBytes),
            "l"(from + static_cast<int64_t>(step) * kPieceBytes), "r"(kPieceBytes), "r"(full + 8 * slot)
            : "memory");
      }
    }
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
    // This lane's rows of the tile are r and r + 8, its columns 8i + c and 8i + c + 1.
    const int r = warp * 16 + lane / 4, c = lane % 4 * 2;
    const float* upper = x + static_cast<int64_t>(row0 + r) * depth + first_step * kTileK + lane % 4 * 4;
    const float* lower = upper + static_cast<int64_t>(8) * depth;
    float4 raw[8];
    load_x(raw, upper, lower);
    // The column's numbers are asked for now and kept in a register: memory is far away.
    const float column_value = tid < kTileN ? factors[column0 + tid] : bias[column0 + tid - kTileN];
    cluster_wait();
    float sums[kTileN / 2] = {}, part[kTileN / 2];
    int slot = 0;
    uint32_t parity = 0;
#pragma unroll 1
    for (int step = 0; step < steps; ++step) {
      // Each row's 64 values of this step get a power of two of their own, so that halves hold them whatever their size.
      float largest0 = 0.0f, largest1 = 0.0f;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        largest0 = largest_of(largest0, raw[2 * j]);
        largest1 = largest_of(largest1, raw[2 * j + 1]);
      }
#pragma unroll
      for (int s = 1; s <= 2; s *= 2) {
        largest0 = fmaxf(largest0, __shfl_xor_sync(0xffffffffu, largest0, s));
        largest1 = fmaxf(largest1, __shfl_xor_sync(0xffffffffu, largest1, s));
      }
      const int exponent0 = scale_exponent(largest0), exponent1 = scale_exponent(largest1);
      const float scale0 = power_of_two(exponent0), scale1 = power_of_two(exponent1);
      uint32_t high[4][4], low[4][4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float4 u = raw[2 * j], l = raw[2 * j + 1];
        split(u.x * scale0, u.y * scale0, high[j][0], low[j][0]);
        split(l.x * scale1, l.y * scale1, high[j][1], low[j][1]);
        split(u.z * scale0, u.w * scale0, high[j][2], low[j][2]);
        split(l.z * scale1, l.w * scale1, high[j][3], low[j][3]);
      }
      if (step + 1 < steps) load_x(raw, upper + (step + 1) * kTileK, lower + (step + 1) * kTileK);

      wait(full + 8 * slot, parity);
      const uint64_t b_high = descriptor(stages + slot * kPieceBytes);
      const uint64_t b_low = descriptor(stages + slot * kPieceBytes + kPlaneBytes);
      fence_accumulators(part);
      asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
      for (int j = 0; j < 4; ++j) {  // 16 columns are 32 bytes on in every row: 2 in the descriptor
        wgmma(part, high[j], b_high + 2 * j, j > 0);
        wgmma(part, low[j], b_high + 2 * j, 1);
        wgmma(part, high[j], b_low + 2 * j, 1);
      }
      asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
      asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
      fence_accumulators(part);
      fence_fragments(high);
      fence_fragments(low);
      if (lane == 0 && step + kStages < steps) asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(empty + 8 * slot) : "memory");
      if (++slot == kStages) {
        slot = 0;
        parity ^= 1;
      }

      // Tensor cores truncate when they add. Over 64 columns that is harmless; the sum of the steps is rounded as usual.
      const float factor0 = power_of_two(-exponent0), factor1 = power_of_two(-exponent1);
#pragma unroll
      for (int i = 0; i < kTileN / 2; ++i) sums[i] = fmaf(part[i], i % 4 < 2 ? factor0 : factor1, sums[i]);
    }

    // Each block finishes one half of the columns and sends its sums of the other half to the other block.
    column_values[tid] = column_value;
    asm volatile("bar.sync 1, 256;" ::: "memory");  // the warps that compute
    const uint32_t place = remote(exchange + 16 * tid, half ^ 1);
    const uint32_t there = remote(exchanged, half ^ 1);
    const bool first_half = half == 0;
    constexpr int kOther = kTileN / 4;
#pragma unroll
    for (int i = 0; i < 32; i += 4) {
      send(place + 1024 * i, first_half ? sums[kOther + i] : sums[i], first_half ? sums[kOther + i + 1] : sums[i + 1],
           first_half ? sums[kOther + i + 2] : sums[i + 2], first_half ? sums[kOther + i + 3] : sums[i + 3], there);
    }
    wait(exchanged, 0);
    float4* received = reinterpret_cast<float4*>(shared + (exchange - base)) + tid;
#pragma unroll
    for (int i = 0; i < 32; i += 4) {
      float4 v = received[64 * i];
      v.x += first_half ? sums[i] : sums[kOther + i];
      v.y += first_half ? sums[i + 1] : sums[kOther + i + 1];
      v.z += first_half ? sums[i + 2] : sums[kOther + i + 2];
      v.w += first_half ? sums[i + 3] : sums[kOther + i + 3];
      received[64 * i] = v;  // and back: read below with a run-time index, so that GELU's code is there 8 times, not 32
    }
    const int first_column = half * (kTileN / 2) + c;
    float* to = out + static_cast<int64_t>(row0 + r) * columns + column0 + first_column;
#pragma unroll 2
    for (int i = 0; i < 8; ++i) {
      const float4 v = received[256 * i];
      const float2 factor = *reinterpret_cast<const float2*>(column_values + first_column + 8 * i);
      const float2 b = *reinterpret_cast<const float2*>(column_values + kTileN + first_column + 8 * i);
      *reinterpret_cast<float2*>(to + 8 * i) = make_float2(gelu(fmaf(v.x, factor.x, b.x)), gelu(fmaf(v.y, factor.y, b.y)));
      *reinterpret_cast<float2*>(to + static_cast<int64_t>(8) * columns + 8 * i) =
          make_float2(gelu(fmaf(v.z, factor.x, b.x)), gelu(fmaf(v.w, factor.y, b.y)));
    }
  }
}

void linear_gelu(TensorView x, TensorView halves, TensorView factors, TensorView bias, TensorView out) {
  const int rows = static_cast<int>(x.size(0)), depth = static_cast<int>(x.size(1));
  const int columns = static_cast<int>(out.size(1));
  if (rows % (kTileM) != 0 || columns % kTileN != 0 || depth % (2 * kTileK) != 0) {
    TVM_FFI_THROW(ValueError) << "linear_gelu: built for multiples of the tile";
  }
  const auto stream = static_cast<cudaStream_t>(TVMFFIEnvGetStream(x.device().device_type, x.device().device_id));
  cudaFuncSetAttribute(linear_gelu_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
  linear_gelu_kernel<<<dim3(2, rows / kTileM, columns / kTileN), kThreads, kSharedBytes, stream>>>(
      static_cast<const float*>(x.data_ptr()), static_cast<const unsigned char*>(halves.data_ptr()),
      static_cast<const float*>(factors.data_ptr()), static_cast<const float*>(bias.data_ptr()),
      static_cast<float*>(out.data_ptr()), columns, depth);
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) TVM_FFI_THROW(RuntimeError) << "linear_gelu: " << cudaGetErrorString(error);
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(linear_gelu, linear_gelu);
