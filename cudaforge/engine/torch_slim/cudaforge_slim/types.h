// What tensors are made of: torch's C shim, errors, dtypes, devices, array references, options, accessors.
#pragma once

#include <torch/headeronly/core/TensorAccessor.h>
#include <torch/headeronly/macros/Macros.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>
#include <torch/headeronly/version.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <exception>
#include <initializer_list>
#include <limits>
#include <memory>
#include <optional>
#include <ostream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

extern "C" {
struct AtenTensorOpaque;
struct StableListOpaque;
using CudaforgeTensor = AtenTensorOpaque*;  // owns an at::Tensor on torch's heap
int32_t aoti_torch_delete_tensor_object(CudaforgeTensor);
int32_t aoti_torch_new_tensor_handle(CudaforgeTensor, CudaforgeTensor*);
int32_t aoti_torch_new_uninitialized_tensor(CudaforgeTensor*);
int32_t aoti_torch_is_defined(CudaforgeTensor, bool*);
int32_t aoti_torch_get_data_ptr(CudaforgeTensor, void**);
int32_t torch_get_const_data_ptr(CudaforgeTensor, const void**);
int32_t aoti_torch_get_dim(CudaforgeTensor, int64_t*);
int32_t aoti_torch_get_numel(CudaforgeTensor, int64_t*);
int32_t aoti_torch_get_sizes(CudaforgeTensor, int64_t**);
int32_t aoti_torch_get_strides(CudaforgeTensor, int64_t**);
int32_t aoti_torch_get_storage_offset(CudaforgeTensor, int64_t*);
int32_t aoti_torch_get_dtype(CudaforgeTensor, int32_t*);
int32_t aoti_torch_get_device_type(CudaforgeTensor, int32_t*);
int32_t aoti_torch_get_device_index(CudaforgeTensor, int32_t*);
int32_t aoti_torch_is_contiguous(CudaforgeTensor, bool*);
size_t aoti_torch_dtype_element_size(int32_t);
int32_t aoti_torch_memory_format_contiguous_format();
int32_t aoti_torch_memory_format_channels_last();
int32_t aoti_torch_memory_format_channels_last_3d();
int32_t aoti_torch_memory_format_preserve_format();
int32_t aoti_torch_aten_fill__Scalar(CudaforgeTensor, double);
int32_t aoti_torch_aten_full(const int64_t*, int64_t, double, int32_t*, int32_t*, int32_t*, int32_t, int32_t*,
                             CudaforgeTensor*);
int32_t aoti_torch_item_float64(CudaforgeTensor, double*);
int32_t aoti_torch_item_float32(CudaforgeTensor, float*);
int32_t aoti_torch_item_int64(CudaforgeTensor, int64_t*);
int32_t aoti_torch_item_int32(CudaforgeTensor, int32_t*);
int32_t aoti_torch_item_bool(CudaforgeTensor, bool*);
uint64_t aoti_torch_abi_version();
int32_t torch_call_dispatcher(const char*, const char*, uint64_t*, uint64_t);
int32_t torch_new_list_reserve_size(size_t, StableListOpaque**);
int32_t torch_list_push_back(StableListOpaque*, uint64_t);
#if TORCH_VERSION_MAJOR > 2 || TORCH_VERSION_MINOR >= 13
const char* torch_exception_get_what_without_backtrace();
#endif
}

namespace c10::detail {
// torch's own: what they throw is a genuine c10::Error.
[[noreturn]] void torchCheckFail(const char* function, const char* file, uint32_t line, const std::string& message);
[[noreturn]] void torchInternalAssertFail(const char* function, const char* file, uint32_t line, const char* condition,
                                          const std::string& message);
}  // namespace c10::detail

namespace cudaforge_slim {

using c10::BFloat16;
using c10::Half;
using std::make_optional;
using std::nullopt;
using std::optional;

// An error of torch's that is no RuntimeError; python.h makes the Python exception of it.
struct Failure : std::exception {
  enum Kind { Runtime, Index, NotImplemented, OutOfMemory };
  Kind kind;
  std::string message;
  Failure(Kind kind, std::string message) : kind(kind), message(std::move(message)) {}
  const char* what() const noexcept override { return message.c_str(); }
};

template <typename... Parts>
std::string str(const Parts&... parts) {
  std::ostringstream out;
  (void)(out << ... << parts);
  return out.str();
}

template <typename... Parts>
std::string check_message(const char* otherwise, const Parts&... parts) {
  if constexpr (sizeof...(Parts) == 0) {
    return otherwise;
  } else {
    return str(parts...);
  }
}

[[noreturn]] inline void fail(const std::string& message) { ::c10::detail::torchCheckFail("", "", 0, message); }

// What a call into torch that has failed becomes. The shim keeps the message alone, and that from torch 2.13 on.
[[noreturn]] inline void shim_failed(const char* what) {
#if TORCH_VERSION_MAJOR > 2 || TORCH_VERSION_MINOR >= 13
  const char* said = torch_exception_get_what_without_backtrace();
  const std::string message = said && *said ? said : what;
#else
  const std::string message = std::string(what) + " failed; torch has printed why";
#endif
  if (message.find("out of memory") != std::string::npos) throw Failure(Failure::OutOfMemory, message);
  if (message.find("Dimension out of range") != std::string::npos) throw Failure(Failure::Index, message);
  throw Failure(Failure::Runtime, message);
}

#define CUDAFORGE_SHIM(call)                                 \
  do {                                                       \
    if ((call) != 0) ::cudaforge_slim::shim_failed(#call);   \
  } while (0)

enum class ScalarType : int8_t {
  Byte = 0, Char = 1, Short = 2, Int = 3, Long = 4, Half = 5, Float = 6, Double = 7, Bool = 11, BFloat16 = 15,
};

inline const char* toString(ScalarType type) {
  switch (type) {
    case ScalarType::Byte: return "Byte";
    case ScalarType::Char: return "Char";
    case ScalarType::Short: return "Short";
    case ScalarType::Int: return "Int";
    case ScalarType::Long: return "Long";
    case ScalarType::Half: return "Half";
    case ScalarType::Float: return "Float";
    case ScalarType::Double: return "Double";
    case ScalarType::Bool: return "Bool";
    case ScalarType::BFloat16: return "BFloat16";
  }
  static const char* const others[] = {"ComplexHalf", "ComplexFloat", "ComplexDouble"};
  const int index = static_cast<int>(type);
  return index >= 8 && index <= 10 ? others[index - 8] : "UNKNOWN_SCALAR";
}

inline std::ostream& operator<<(std::ostream& out, ScalarType type) { return out << toString(type); }

constexpr ScalarType kByte = ScalarType::Byte, kUInt8 = ScalarType::Byte, kChar = ScalarType::Char,
                     kInt8 = ScalarType::Char, kShort = ScalarType::Short, kInt16 = ScalarType::Short,
                     kInt = ScalarType::Int, kInt32 = ScalarType::Int, kLong = ScalarType::Long,
                     kInt64 = ScalarType::Long, kHalf = ScalarType::Half, kFloat16 = ScalarType::Half,
                     kFloat = ScalarType::Float, kFloat32 = ScalarType::Float, kDouble = ScalarType::Double,
                     kFloat64 = ScalarType::Double, kBool = ScalarType::Bool, kBFloat16 = ScalarType::BFloat16;

// C++ type -> ScalarType; others do not compile, as they do not link with plain torch.
template <typename T> struct ScalarTypeOf;
template <ScalarType> struct TypeOfScalar;
#define CUDAFORGE_SCALAR(type, name)                                                              \
  template <> struct ScalarTypeOf<type> { static constexpr ScalarType value = ScalarType::name; }; \
  template <> struct TypeOfScalar<ScalarType::name> { using type_ = type; };
CUDAFORGE_SCALAR(uint8_t, Byte)
CUDAFORGE_SCALAR(int8_t, Char)
CUDAFORGE_SCALAR(int16_t, Short)
CUDAFORGE_SCALAR(int32_t, Int)
CUDAFORGE_SCALAR(int64_t, Long)
CUDAFORGE_SCALAR(::c10::Half, Half)
CUDAFORGE_SCALAR(float, Float)
CUDAFORGE_SCALAR(double, Double)
CUDAFORGE_SCALAR(bool, Bool)
CUDAFORGE_SCALAR(::c10::BFloat16, BFloat16)
#undef CUDAFORGE_SCALAR

// What Tensor::dtype() gives: comparable with a ScalarType and good for TensorOptions.
class TypeMeta {
 public:
  TypeMeta(ScalarType type) : type_(type) {}
  ScalarType toScalarType() const { return type_; }
  size_t itemsize() const { return aoti_torch_dtype_element_size(static_cast<int32_t>(type_)); }
  friend bool operator==(const TypeMeta& a, const TypeMeta& b) { return a.type_ == b.type_; }
#if __cplusplus < 202002L
  friend bool operator!=(const TypeMeta& a, const TypeMeta& b) { return a.type_ != b.type_; }
#endif

 private:
  ScalarType type_;
};

enum class DeviceType : int8_t { CPU = 0, CUDA = 1 };
constexpr DeviceType kCPU = DeviceType::CPU, kCUDA = DeviceType::CUDA;

class Device {
 public:
  Device(DeviceType type, int index = -1) : type_(type), index_(static_cast<int8_t>(index)) {}
  DeviceType type() const { return type_; }
  int8_t index() const { return index_; }
  bool has_index() const { return index_ != -1; }
  bool is_cuda() const { return type_ == DeviceType::CUDA; }
  bool is_cpu() const { return type_ == DeviceType::CPU; }
  bool operator==(const Device& other) const { return type_ == other.type_ && index_ == other.index_; }
  bool operator!=(const Device& other) const { return !(*this == other); }
  std::string str() const {
    std::string name = is_cuda() ? "cuda" : is_cpu() ? "cpu" : "other";
    return has_index() ? name + ":" + std::to_string(static_cast<int>(index_)) : name;
  }
  friend std::ostream& operator<<(std::ostream& out, const Device& device) { return out << device.str(); }

 private:
  DeviceType type_;
  int8_t index_;
};

enum class MemoryFormat : int8_t { Contiguous, Preserve, ChannelsLast, ChannelsLast3d };

template <typename T>
class ArrayRef {
 public:
  constexpr ArrayRef() = default;
  constexpr ArrayRef(const T& one) : data_(&one), size_(1) {}
  constexpr ArrayRef(const T* data, size_t size) : data_(data), size_(size) {}
  ArrayRef(const std::vector<T>& values) : data_(values.data()), size_(values.size()) {
    static_assert(!std::is_same_v<T, bool>);
  }
  template <size_t N> constexpr ArrayRef(const std::array<T, N>& values) : data_(values.data()), size_(N) {}
  template <size_t N> constexpr ArrayRef(const T (&values)[N]) : data_(values), size_(N) {}
  ArrayRef(const std::initializer_list<T>& values)
      : data_(values.begin() == values.end() ? nullptr : values.begin()), size_(values.size()) {}
  constexpr const T* data() const { return data_; }
  constexpr size_t size() const { return size_; }
  constexpr bool empty() const { return size_ == 0; }
  constexpr const T* begin() const { return data_; }
  constexpr const T* end() const { return data_ + size_; }
  constexpr const T& operator[](size_t index) const { return data_[index]; }
  const T& front() const { check(size_ > 0, "ArrayRef: attempted to access front() of empty list"); return data_[0]; }
  const T& back() const {
    check(size_ > 0, "ArrayRef: attempted to access back() of empty list");
    return data_[size_ - 1];
  }
  const T& at(size_t index) const {
    check(index < size_, cudaforge_slim::str("ArrayRef: invalid index Index = ", index, "; Length = ", size_));
    return data_[index];
  }
  std::vector<T> vec() const { return std::vector<T>(begin(), end()); }
  bool equals(ArrayRef other) const { return size_ == other.size_ && std::equal(begin(), end(), other.begin()); }

 private:
  static void check(bool good, const std::string& message) {
    if (!good) fail(message);
  }
  const T* data_ = nullptr;
  size_t size_ = 0;
};

template <typename T> bool operator==(const ArrayRef<T>& a, const ArrayRef<T>& b) { return a.equals(b); }
template <typename T> bool operator!=(const ArrayRef<T>& a, const ArrayRef<T>& b) { return !a.equals(b); }
template <typename T> bool operator==(const std::vector<T>& a, ArrayRef<T> b) { return ArrayRef<T>(a).equals(b); }
template <typename T> bool operator==(ArrayRef<T> a, const std::vector<T>& b) { return a.equals(ArrayRef<T>(b)); }
template <typename T> std::ostream& operator<<(std::ostream& out, const ArrayRef<T>& values) {
  out << "[";
  for (size_t i = 0; i < values.size(); ++i) out << (i ? ", " : "") << values[i];
  return out << "]";
}
using IntArrayRef = ArrayRef<int64_t>;

// Accessors are torch's own templates.
using torch::headeronly::DefaultPtrTraits;
#if defined(__CUDACC__)
using torch::headeronly::RestrictPtrTraits;
#endif
template <size_t N, typename Index> struct IndexBoundsCheck {
  IndexBoundsCheck(Index i) {
    if (i < 0 || i >= Index{N}) {
      throw Failure(Failure::Index,
                    cudaforge_slim::str("Index ", i, " is not within bounds of a tensor of dimension ", N));
    }
  }
};
template <typename T, size_t N, template <typename U> class PtrTraits = DefaultPtrTraits, typename Index = int64_t>
using TensorAccessor = torch::headeronly::detail::TensorAccessor<IntArrayRef, T, N, PtrTraits, Index>;
template <typename T, size_t N, template <typename U> class PtrTraits = DefaultPtrTraits, typename Index = int64_t>
using GenericPackedTensorAccessor =
    torch::headeronly::detail::GenericPackedTensorAccessor<TensorAccessor<T, N - 1, PtrTraits, Index>,
                                                           IndexBoundsCheck<N, Index>, T, N, PtrTraits, Index>;
template <typename T, size_t N, template <typename U> class PtrTraits = DefaultPtrTraits>
using PackedTensorAccessor32 = GenericPackedTensorAccessor<T, N, PtrTraits, int32_t>;
template <typename T, size_t N, template <typename U> class PtrTraits = DefaultPtrTraits>
using PackedTensorAccessor64 = GenericPackedTensorAccessor<T, N, PtrTraits, int64_t>;

class TensorOptions {
 public:
  TensorOptions() = default;
  TensorOptions(ScalarType type) : dtype_(type) {}
  TensorOptions(TypeMeta type) : dtype_(type.toScalarType()) {}
  TensorOptions(Device device) : device_(device) {}
  TensorOptions(DeviceType type) : device_(Device(type)) {}
  [[nodiscard]] TensorOptions dtype(ScalarType type) const { auto made = *this; made.dtype_ = type; return made; }
  [[nodiscard]] TensorOptions dtype(TypeMeta type) const { return dtype(type.toScalarType()); }
  [[nodiscard]] TensorOptions device(Device device) const { auto made = *this; made.device_ = device; return made; }
  [[nodiscard]] TensorOptions device(DeviceType type, int index = -1) const { return device(Device(type, index)); }
  const std::optional<ScalarType>& dtype_opt() const { return dtype_; }
  const std::optional<Device>& device_opt() const { return device_; }

 private:
  std::optional<ScalarType> dtype_;
  std::optional<Device> device_;
};
inline TensorOptions dtype(ScalarType type) { return TensorOptions(type); }
inline TensorOptions dtype(TypeMeta type) { return TensorOptions(type); }
inline TensorOptions device(Device device) { return TensorOptions(device); }

}  // namespace cudaforge_slim
