// Streams and error checks: what ATen/cuda/CUDAContext.h and c10/cuda/CUDAStream.h are included for.
#pragma once

#include <cuda_runtime_api.h>
#include <cudaforge_slim/core.h>

extern "C" int32_t aoti_torch_get_current_cuda_stream(int32_t device_index, void** stream);

namespace c10::cuda {
// torch's own: throws a genuine c10::AcceleratorError.
void c10_cuda_check_implementation(const int32_t error, const char* file, const char* function, const uint32_t line,
                                   const bool include_device_assertions);
}  // namespace c10::cuda

namespace at::cuda {
cudaDeviceProp* getCurrentDeviceProperties();  // torch's own
}

namespace cudaforge_slim::cuda {

class CUDAStream {
 public:
  explicit CUDAStream(cudaStream_t stream) : stream_(stream) {}
  operator cudaStream_t() const { return stream_; }
  cudaStream_t stream() const { return stream_; }

 private:
  cudaStream_t stream_;
};

inline CUDAStream getCurrentCUDAStream(int device_index = -1) {
  void* stream = nullptr;
  CUDAFORGE_SHIM(aoti_torch_get_current_cuda_stream(device_index, &stream));
  return CUDAStream(static_cast<cudaStream_t>(stream));
}

}  // namespace cudaforge_slim::cuda

namespace c10::cuda {
using ::cudaforge_slim::cuda::CUDAStream;
using ::cudaforge_slim::cuda::getCurrentCUDAStream;
}  // namespace c10::cuda
namespace at::cuda {
using ::cudaforge_slim::cuda::CUDAStream;
using ::cudaforge_slim::cuda::getCurrentCUDAStream;
}  // namespace at::cuda

#define C10_CUDA_CHECK(EXPR)                                                                             \
  do {                                                                                                   \
    const cudaError_t __err = EXPR;                                                                      \
    c10::cuda::c10_cuda_check_implementation(static_cast<int32_t>(__err), __FILE__, __func__,            \
                                             static_cast<uint32_t>(__LINE__), true);                     \
  } while (0)
#define C10_CUDA_KERNEL_LAUNCH_CHECK() C10_CUDA_CHECK(cudaGetLastError())
#define AT_CUDA_CHECK(EXPR) C10_CUDA_CHECK(EXPR)
