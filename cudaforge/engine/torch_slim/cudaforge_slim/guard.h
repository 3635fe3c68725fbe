// Device guards: c10/cuda/CUDAGuard.h.
#pragma once

#include <cudaforge_slim/cuda.h>

extern "C" {
struct CUDAGuardOpaque;
int32_t aoti_torch_create_cuda_guard(int32_t device_index, CUDAGuardOpaque** guard);
int32_t aoti_torch_delete_cuda_guard(CUDAGuardOpaque* guard);
}

namespace cudaforge_slim {

inline std::optional<Device> device_of(const Tensor& tensor) {
  return tensor.defined() ? std::optional<Device>(tensor.device()) : std::nullopt;
}

namespace cuda {

class CUDAGuard {
 public:
  explicit CUDAGuard(int device_index) { CUDAFORGE_SHIM(aoti_torch_create_cuda_guard(device_index, &guard_)); }
  explicit CUDAGuard(Device device) {
    if (!device.is_cuda()) fail("Expected a CUDA device, but got " + device.str());
    CUDAFORGE_SHIM(aoti_torch_create_cuda_guard(device.index(), &guard_));
  }
  CUDAGuard(const CUDAGuard&) = delete;
  CUDAGuard& operator=(const CUDAGuard&) = delete;
  ~CUDAGuard() { aoti_torch_delete_cuda_guard(guard_); }

 private:
  CUDAGuardOpaque* guard_ = nullptr;
};

class OptionalCUDAGuard {
 public:
  OptionalCUDAGuard() = default;
  explicit OptionalCUDAGuard(std::optional<Device> device) {
    if (device) guard_ = std::make_unique<CUDAGuard>(*device);
  }

 private:
  std::unique_ptr<CUDAGuard> guard_;
};

}  // namespace cuda
}  // namespace cudaforge_slim

namespace c10::cuda {
using ::cudaforge_slim::cuda::CUDAGuard;
using ::cudaforge_slim::cuda::OptionalCUDAGuard;
}  // namespace c10::cuda
namespace at::cuda {
using ::cudaforge_slim::cuda::CUDAGuard;
using ::cudaforge_slim::cuda::OptionalCUDAGuard;
}  // namespace at::cuda
