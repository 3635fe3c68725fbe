// Tensor: a shared handle of torch's C shim. Its operators are defined in operators.h.
#pragma once

#include <cudaforge_slim/types.h>

namespace cudaforge_slim {

class Tensor;

// What the deprecated Tensor::type() is used for in extensions.
class DeprecatedTypeProperties {
 public:
  DeprecatedTypeProperties(ScalarType type, Device device) : type_(type), device_(device) {}
  ScalarType scalarType() const { return type_; }
  bool is_cuda() const { return device_.is_cuda(); }

 private:
  ScalarType type_;
  Device device_;
};

class Tensor {
 public:
  Tensor() = default;
  Tensor(const Tensor&) = default;
  Tensor(Tensor&&) noexcept = default;
  // Only to lvalues: assigning to what an expression gives copies elements in torch.
  Tensor& operator=(const Tensor&) & = default;
  Tensor& operator=(Tensor&&) & noexcept = default;

  static Tensor steal(CudaforgeTensor handle) {
    Tensor made;
    made.handle_ =
        std::shared_ptr<AtenTensorOpaque>(handle, [](CudaforgeTensor h) { aoti_torch_delete_tensor_object(h); });
    return made;
  }
  // A handle of its own for whoever takes it over.
  CudaforgeTensor share() const {
    CudaforgeTensor made = nullptr;
    CUDAFORGE_SHIM(aoti_torch_new_tensor_handle(get(), &made));
    return made;
  }

  bool defined() const {
    bool value = false;
    if (handle_) CUDAFORGE_SHIM(aoti_torch_is_defined(handle_.get(), &value));
    return value;
  }
  void reset() { handle_.reset(); }
  int64_t dim() const { int64_t value; CUDAFORGE_SHIM(aoti_torch_get_dim(get(), &value)); return value; }
  int64_t ndimension() const { return dim(); }
  int64_t numel() const { int64_t value; CUDAFORGE_SHIM(aoti_torch_get_numel(get(), &value)); return value; }
  IntArrayRef sizes() const {
    int64_t* values;
    CUDAFORGE_SHIM(aoti_torch_get_sizes(get(), &values));
    return IntArrayRef(values, static_cast<size_t>(dim()));
  }
  IntArrayRef strides() const {
    int64_t* values;
    CUDAFORGE_SHIM(aoti_torch_get_strides(get(), &values));
    return IntArrayRef(values, static_cast<size_t>(dim()));
  }
  int64_t size(int64_t d) const { return sizes()[wrapped(d)]; }
  int64_t stride(int64_t d) const { return strides()[wrapped(d)]; }
  int64_t storage_offset() const {
    int64_t value;
    CUDAFORGE_SHIM(aoti_torch_get_storage_offset(get(), &value));
    return value;
  }
  ScalarType scalar_type() const {
    int32_t value;
    CUDAFORGE_SHIM(aoti_torch_get_dtype(get(), &value));
    return static_cast<ScalarType>(value);
  }
  TypeMeta dtype() const { return scalar_type(); }
  size_t element_size() const { return dtype().itemsize(); }
  size_t itemsize() const { return element_size(); }
  size_t nbytes() const { return static_cast<size_t>(numel()) * element_size(); }
  Device device() const {
    int32_t type, index;
    CUDAFORGE_SHIM(aoti_torch_get_device_type(get(), &type));
    CUDAFORGE_SHIM(aoti_torch_get_device_index(get(), &index));
    return Device(static_cast<DeviceType>(type), index);
  }
  int64_t get_device() const { return device().index(); }
  bool is_cuda() const { return device().is_cuda(); }
  bool is_cpu() const { return device().is_cpu(); }
  bool is_contiguous() const {
    bool value;
    CUDAFORGE_SHIM(aoti_torch_is_contiguous(get(), &value));
    return value;
  }
  bool is_floating_point() const {
    const int type = static_cast<int>(scalar_type());  // with the types of 8 bits (23 to 26, 44) and 4 bits (45)
    return (type >= 5 && type <= 7) || type == 15 || (type >= 23 && type <= 26) || type == 44 || type == 45;
  }
  TensorOptions options() const { return TensorOptions().dtype(scalar_type()).device(device()); }
  DeprecatedTypeProperties type() const { return {scalar_type(), device()}; }

  void* data_ptr() const { void* data; CUDAFORGE_SHIM(aoti_torch_get_data_ptr(get(), &data)); return data; }
  void* mutable_data_ptr() const { return data_ptr(); }
  const void* const_data_ptr() const {
    const void* data;
    CUDAFORGE_SHIM(torch_get_const_data_ptr(get(), &data));
    return data;
  }
  template <typename T> T* data_ptr() const { check_type<T>(); return static_cast<T*>(data_ptr()); }
  template <typename T> T* mutable_data_ptr() const { return data_ptr<T>(); }
  template <typename T> const std::remove_const_t<T>* const_data_ptr() const {
    check_type<std::remove_const_t<T>>();
    return static_cast<const T*>(const_data_ptr());
  }
  template <typename T> T* data() const { return data_ptr<T>(); }
  template <typename T> T item() const {
    static_assert(std::is_same_v<T, double> || std::is_same_v<T, float> || std::is_same_v<T, int64_t> ||
                  std::is_same_v<T, int32_t> || std::is_same_v<T, bool>);
    T value;
    if constexpr (std::is_same_v<T, double>) CUDAFORGE_SHIM(aoti_torch_item_float64(get(), &value));
    else if constexpr (std::is_same_v<T, float>) CUDAFORGE_SHIM(aoti_torch_item_float32(get(), &value));
    else if constexpr (std::is_same_v<T, int64_t>) CUDAFORGE_SHIM(aoti_torch_item_int64(get(), &value));
    else if constexpr (std::is_same_v<T, int32_t>) CUDAFORGE_SHIM(aoti_torch_item_int32(get(), &value));
    else CUDAFORGE_SHIM(aoti_torch_item_bool(get(), &value));
    return value;
  }

  template <typename T, size_t N> TensorAccessor<T, N> accessor() const& {
    return TensorAccessor<T, N>(pointer<T, N>(), sizes().data(), strides().data());
  }
  template <typename T, size_t N> TensorAccessor<T, N> accessor() && = delete;
  template <typename T, size_t N, template <typename U> class PtrTraits = DefaultPtrTraits>
  PackedTensorAccessor32<T, N, PtrTraits> packed_accessor32() const& {
    if (numel() > static_cast<int64_t>(std::numeric_limits<int32_t>::max())) {
      fail("numel needs to be smaller than int32_t max; otherwise, please use packed_accessor64");
    }
    return {static_cast<typename PtrTraits<T>::PtrType>(pointer<T, N>()), sizes().data(), strides().data()};
  }
  template <typename T, size_t N, template <typename U> class PtrTraits = DefaultPtrTraits>
  PackedTensorAccessor32<T, N, PtrTraits> packed_accessor32() && = delete;
  template <typename T, size_t N, template <typename U> class PtrTraits = DefaultPtrTraits>
  PackedTensorAccessor64<T, N, PtrTraits> packed_accessor64() const& {
    return {static_cast<typename PtrTraits<T>::PtrType>(pointer<T, N>()), sizes().data(), strides().data()};
  }
  template <typename T, size_t N, template <typename U> class PtrTraits = DefaultPtrTraits>
  PackedTensorAccessor64<T, N, PtrTraits> packed_accessor64() && = delete;

  Tensor contiguous(MemoryFormat format = MemoryFormat::Contiguous) const;
  Tensor view(IntArrayRef size) const;
  Tensor reshape(IntArrayRef shape) const;
  Tensor flatten(int64_t start = 0, int64_t end = -1) const;
  Tensor expand(IntArrayRef size) const;
  Tensor permute(IntArrayRef dims) const;
  Tensor transpose(int64_t a, int64_t b) const;
  Tensor t() const;
  Tensor unsqueeze(int64_t d) const;
  Tensor squeeze() const;
  Tensor squeeze(int64_t d) const;
  Tensor select(int64_t d, int64_t index) const;
  Tensor narrow(int64_t d, int64_t start, int64_t length) const;
  Tensor clone() const;
  Tensor detach() const;
  Tensor to(ScalarType type) const;
  Tensor to(Device device) const;
  Tensor to(DeviceType type) const { return to(Device(type)); }
  Tensor cuda() const { return to(Device(kCUDA)); }
  Tensor cpu() const { return to(Device(kCPU)); }
  Tensor toType(ScalarType type) const { return to(type); }
  Tensor matmul(const Tensor& other) const;
  Tensor mm(const Tensor& other) const;
  Tensor bmm(const Tensor& other) const;
  Tensor mul(const Tensor& other) const;
  Tensor div(const Tensor& other) const;
  Tensor sum() const;
  Tensor sum(IntArrayRef dims, bool keepdim = false) const;
  Tensor mean(IntArrayRef dims, bool keepdim = false) const;
  Tensor relu() const;
  Tensor sigmoid() const;
  Tensor tanh() const;
  Tensor exp() const;
  Tensor sqrt() const;
  Tensor abs() const;
  const Tensor& copy_(const Tensor& source, bool non_blocking = false) const;
  const Tensor& zero_() const;
  // The shim takes a double: only types whose every value is one.
  template <typename T, typename = std::enable_if_t<std::is_floating_point_v<T> || std::is_same_v<T, int>>>
  const Tensor& fill_(T value) const {
    CUDAFORGE_SHIM(aoti_torch_aten_fill__Scalar(get(), static_cast<double>(value)));
    return *this;
  }

 private:
  CudaforgeTensor get() const {
    if (!handle_) {  // torch's own undefined tensor, which answers as it does
      CudaforgeTensor made = nullptr;
      CUDAFORGE_SHIM(aoti_torch_new_uninitialized_tensor(&made));
      handle_ = steal(made).handle_;
    }
    return handle_.get();
  }
  size_t wrapped(int64_t d) const {
    const int64_t dims = dim();
    if (dims == 0) {
      throw Failure(Failure::Index, "Dimension specified as " + std::to_string(d) + " but tensor has no dimensions");
    }
    if (d < -dims || d >= dims) {
      throw Failure(Failure::Index, "Dimension out of range (expected to be in range of [" + std::to_string(-dims) +
                                        ", " + std::to_string(dims - 1) + "], but got " + std::to_string(d) + ")");
    }
    return static_cast<size_t>(d < 0 ? d + dims : d);
  }
  template <typename T, size_t N> T* pointer() const {
    static_assert(N > 0, "accessor is used for indexing tensor, for scalars use *data_ptr<T>()");
    if (dim() != static_cast<int64_t>(N)) {
      fail(cudaforge_slim::str("TensorAccessor expected ", N, " dims but tensor has ", dim()));
    }
    if constexpr (std::is_const_v<T>) return const_data_ptr<T>();
    else return data_ptr<T>();
  }
  template <typename T> void check_type() const {
    constexpr ScalarType wanted = ScalarTypeOf<T>::value;
    const ScalarType own = scalar_type();
    if (own != wanted) fail(std::string("expected scalar type ") + toString(wanted) + " but found " + toString(own));
  }
  mutable std::shared_ptr<AtenTensorOpaque> handle_;
};

}  // namespace cudaforge_slim
