// Operators and makers of tensors, through torch's dispatcher.
#pragma once

#include <cudaforge_slim/tensor.h>

namespace cudaforge_slim {

// Arguments as the dispatcher's C interface has them: 64 bits each, lists and optional values on the heap.
inline uint64_t encode(const Tensor& tensor) { return reinterpret_cast<uint64_t>(tensor.share()); }
inline uint64_t encode(int64_t value) { return static_cast<uint64_t>(value); }
inline uint64_t encode(bool value) { return value ? 1 : 0; }
inline uint64_t encode(ScalarType type) { return static_cast<uint32_t>(type); }
inline uint64_t encode(Device device) {
  return static_cast<uint64_t>(static_cast<uint32_t>(device.type())) << 32 |
         static_cast<uint32_t>(static_cast<int32_t>(device.index()));
}
inline uint64_t encode(MemoryFormat format) {
  switch (format) {
    case MemoryFormat::Contiguous: return static_cast<uint32_t>(aoti_torch_memory_format_contiguous_format());
    case MemoryFormat::Preserve: return static_cast<uint32_t>(aoti_torch_memory_format_preserve_format());
    case MemoryFormat::ChannelsLast: return static_cast<uint32_t>(aoti_torch_memory_format_channels_last());
    default: return static_cast<uint32_t>(aoti_torch_memory_format_channels_last_3d());
  }
}
template <typename T> uint64_t encode(ArrayRef<T> values) {
  StableListOpaque* list;
  CUDAFORGE_SHIM(torch_new_list_reserve_size(values.size(), &list));
  for (const T& value : values) CUDAFORGE_SHIM(torch_list_push_back(list, encode(value)));
  return reinterpret_cast<uint64_t>(list);
}
inline uint64_t encode(std::nullopt_t) { return 0; }
template <typename T> uint64_t encode(const std::optional<T>& value) {
  return value ? reinterpret_cast<uint64_t>(new uint64_t(encode(*value))) : 0;
}

template <typename... Arguments>
Tensor dispatch(const char* name, const char* overload, const Arguments&... arguments) {
  uint64_t stack[] = {encode(arguments)...};
  if (torch_call_dispatcher(name, overload, stack, aoti_torch_abi_version()) != 0) shim_failed(name);
  return Tensor::steal(reinterpret_cast<CudaforgeTensor>(stack[0]));
}

inline Tensor Tensor::contiguous(MemoryFormat format) const { return dispatch("aten::contiguous", "", *this, format); }
inline Tensor Tensor::view(IntArrayRef size) const { return dispatch("aten::view", "", *this, size); }
inline Tensor Tensor::reshape(IntArrayRef shape) const { return dispatch("aten::reshape", "", *this, shape); }
inline Tensor Tensor::flatten(int64_t start, int64_t end) const {
  return dispatch("aten::flatten", "using_ints", *this, start, end);
}
inline Tensor Tensor::expand(IntArrayRef size) const { return dispatch("aten::expand", "", *this, size, false); }
inline Tensor Tensor::permute(IntArrayRef dims) const { return dispatch("aten::permute", "", *this, dims); }
inline Tensor Tensor::transpose(int64_t a, int64_t b) const { return dispatch("aten::transpose", "int", *this, a, b); }
inline Tensor Tensor::t() const { return dispatch("aten::t", "", *this); }
inline Tensor Tensor::unsqueeze(int64_t d) const { return dispatch("aten::unsqueeze", "", *this, d); }
inline Tensor Tensor::squeeze() const { return dispatch("aten::squeeze", "", *this); }
inline Tensor Tensor::squeeze(int64_t d) const { return dispatch("aten::squeeze", "dim", *this, d); }
inline Tensor Tensor::select(int64_t d, int64_t index) const {
  return dispatch("aten::select", "int", *this, d, index);
}
inline Tensor Tensor::narrow(int64_t d, int64_t start, int64_t length) const {
  return dispatch("aten::narrow", "", *this, d, start, length);
}
inline Tensor Tensor::clone() const { return dispatch("aten::clone", "", *this, std::nullopt); }
inline Tensor Tensor::detach() const { return dispatch("aten::detach", "", *this); }
inline Tensor Tensor::to(ScalarType type) const {
  return dispatch("aten::to", "dtype", *this, type, false, false, std::nullopt);
}
inline Tensor Tensor::to(Device device) const {
  return dispatch("aten::to", "dtype_layout", *this, std::nullopt, std::nullopt, std::optional<Device>(device),
                  std::nullopt, false, false, std::nullopt);
}
inline Tensor Tensor::matmul(const Tensor& other) const { return dispatch("aten::matmul", "", *this, other); }
inline Tensor Tensor::mm(const Tensor& other) const { return dispatch("aten::mm", "", *this, other); }
inline Tensor Tensor::bmm(const Tensor& other) const { return dispatch("aten::bmm", "", *this, other); }
inline Tensor Tensor::mul(const Tensor& other) const { return dispatch("aten::mul", "Tensor", *this, other); }
inline Tensor Tensor::div(const Tensor& other) const { return dispatch("aten::div", "Tensor", *this, other); }
inline Tensor Tensor::sum() const { return dispatch("aten::sum", "", *this, std::nullopt); }
inline Tensor Tensor::sum(IntArrayRef dims, bool keepdim) const {
  return dispatch("aten::sum", "dim_IntList", *this, std::optional<IntArrayRef>(dims), keepdim, std::nullopt);
}
inline Tensor Tensor::mean(IntArrayRef dims, bool keepdim) const {
  return dispatch("aten::mean", "dim", *this, std::optional<IntArrayRef>(dims), keepdim, std::nullopt);
}
inline const Tensor& Tensor::copy_(const Tensor& source, bool non_blocking) const {
  dispatch("aten::copy_", "", *this, source, non_blocking);
  return *this;
}
inline const Tensor& Tensor::zero_() const {
  dispatch("aten::zero_", "", *this);
  return *this;
}

// Makers hand on dtype and device where they are given; layout and pinning are torch's defaults.
inline Tensor empty(IntArrayRef size, const TensorOptions& options = {}) {
  return dispatch("aten::empty", "memory_format", size, options.dtype_opt(), std::nullopt, options.device_opt(),
                  std::nullopt, std::nullopt);
}
inline Tensor zeros(IntArrayRef size, const TensorOptions& options = {}) {
  return dispatch("aten::zeros", "", size, options.dtype_opt(), std::nullopt, options.device_opt(), std::nullopt);
}
inline Tensor ones(IntArrayRef size, const TensorOptions& options = {}) {
  return dispatch("aten::ones", "", size, options.dtype_opt(), std::nullopt, options.device_opt(), std::nullopt);
}
#define CUDAFORGE_LIKE(name)                                                                                \
  inline Tensor name(const Tensor& self, const TensorOptions& options = {}) {                               \
    return dispatch("aten::" #name, "", self, options.dtype_opt(), std::nullopt, options.device_opt(),      \
                    std::nullopt, std::nullopt);                                                            \
  }
CUDAFORGE_LIKE(empty_like)
CUDAFORGE_LIKE(zeros_like)
CUDAFORGE_LIKE(ones_like)
#undef CUDAFORGE_LIKE
inline Tensor empty_strided(IntArrayRef size, IntArrayRef stride, const TensorOptions& options = {}) {
  return dispatch("aten::empty_strided", "", size, stride, options.dtype_opt(), std::nullopt, options.device_opt(),
                  std::nullopt);
}
// A double and an option for the type, as extensions have it; what torch would infer from the value is left to it.
template <typename T, typename = std::enable_if_t<std::is_floating_point_v<T> || std::is_same_v<T, int>>>
Tensor full(IntArrayRef size, T value, const TensorOptions& options) {
  int32_t dtype = static_cast<int32_t>(options.dtype_opt().value_or(kLong));
  const bool given = options.dtype_opt().has_value() || std::is_same_v<T, int>;
  int32_t type = options.device_opt() ? static_cast<int32_t>(options.device_opt()->type()) : 0;
  const int32_t index = options.device_opt() ? options.device_opt()->index() : 0;
  CudaforgeTensor made;
  CUDAFORGE_SHIM(aoti_torch_aten_full(size.data(), static_cast<int64_t>(size.size()), static_cast<double>(value),
                                      given ? &dtype : nullptr, nullptr, options.device_opt() ? &type : nullptr,
                                      index, nullptr, &made));
  return Tensor::steal(made);
}
#define CUDAFORGE_UNARY(name)                                                              \
  inline Tensor Tensor::name() const { return dispatch("aten::" #name, "", *this); }       \
  inline Tensor name(const Tensor& self) { return self.name(); }
CUDAFORGE_UNARY(relu)
CUDAFORGE_UNARY(sigmoid)
CUDAFORGE_UNARY(tanh)
CUDAFORGE_UNARY(exp)
CUDAFORGE_UNARY(sqrt)
CUDAFORGE_UNARY(abs)
#undef CUDAFORGE_UNARY
inline Tensor cat(ArrayRef<Tensor> tensors, int64_t dim = 0) { return dispatch("aten::cat", "", tensors, dim); }
inline Tensor stack(ArrayRef<Tensor> tensors, int64_t dim = 0) { return dispatch("aten::stack", "", tensors, dim); }
inline Tensor linear(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias = {}) {
  return dispatch("aten::linear", "", input, weight, bias && bias->defined() ? bias : std::nullopt);
}
inline Tensor bmm(const Tensor& a, const Tensor& b) { return a.bmm(b); }
inline Tensor mul(const Tensor& a, const Tensor& b) { return a.mul(b); }
inline Tensor div(const Tensor& a, const Tensor& b) { return a.div(b); }
inline Tensor matmul(const Tensor& a, const Tensor& b) { return a.matmul(b); }
inline Tensor mm(const Tensor& a, const Tensor& b) { return a.mm(b); }
inline Tensor transpose(const Tensor& x, int64_t a, int64_t b) { return x.transpose(a, b); }
inline Tensor sum(const Tensor& x) { return x.sum(); }

inline ScalarType scalar_type_of(ScalarType type) { return type; }
inline ScalarType scalar_type_of(const DeprecatedTypeProperties& type) { return type.scalarType(); }

}  // namespace cudaforge_slim
