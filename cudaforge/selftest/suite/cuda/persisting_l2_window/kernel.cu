#include <cuda_runtime.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <tvm/ffi/function.h>

using tvm::ffi::TensorView;

static cudaStream_t stream_of(TensorView t) {
  return static_cast<cudaStream_t>(TVMFFIEnvGetStream(t.device().device_type, t.device().device_id));
}

void persist(TensorView x) {
  cudaDeviceProp properties;
  static int largest = 0;
  if (!largest) {
    cudaGetDeviceProperties(&properties, x.device().device_id);
    largest = properties.accessPolicyMaxWindowSize;
    cudaDeviceSetLimit(cudaLimitPersistingL2CacheSize, properties.persistingL2CacheMaxSize);  // this context's own share
  }
  cudaStreamAttrValue value = {};
  value.accessPolicyWindow.base_ptr = x.data_ptr();
  value.accessPolicyWindow.num_bytes = x.numel() * 4 < largest ? x.numel() * 4 : largest;
  value.accessPolicyWindow.hitRatio = 1.f;
  value.accessPolicyWindow.hitProp = cudaAccessPropertyPersisting;
  value.accessPolicyWindow.missProp = cudaAccessPropertyStreaming;
  cudaStreamSetAttribute(stream_of(x), cudaStreamAttributeAccessPolicyWindow, &value);
}
TVM_FFI_DLL_EXPORT_TYPED_FUNC(persist, persist);
