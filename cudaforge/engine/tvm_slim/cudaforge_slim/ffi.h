// What kernel.cu and kernel.cpp use of tvm-ffi's C++ interface, over its C interface: a quarter of the time to parse.
//
// Names, argument conversions, error kinds, messages and backtraces are those of tvm-ffi. Whatever else a source uses
// does not compile, and the builder takes tvm-ffi's own headers (engine/slim_ffi.py). Only what behaves alike is here.
#pragma once

#include <tvm/ffi/c_api.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <initializer_list>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#if TVM_FFI_DLL_EXPORT_INCLUDE_METADATA
#error "metadata of functions is tvm-ffi's own headers' to write"
#endif

// A namespace of their own keeps these classes apart from tvm-ffi's in the same process: dynamic linking goes by names.
namespace tvm {
namespace ffi {
inline namespace cudaforge_slim {

class Error : public std::exception {
 public:
  Error(std::string kind, std::string message, std::string backtrace)
      : kind_(std::move(kind)), message_(std::move(message)), backtrace_(std::move(backtrace)) {}
  std::string kind() const { return kind_; }
  std::string message() const { return message_; }
  std::string backtrace() const { return backtrace_; }
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  std::string kind_, message_, backtrace_;
};

}  // namespace cudaforge_slim
}  // namespace ffi
}  // namespace tvm

namespace cudaforge_slim {

using ::tvm::ffi::Error;

// Text as a std::ostream would write it; <sstream> alone takes a quarter of a second in nvcc.
class Text {
 public:
  Text& operator<<(const char* text) { return add(text ? text : "(null)"); }
  Text& operator<<(const std::string& text) { return add(text); }
  Text& operator<<(char one) { return add(std::string(1, one)); }
  Text& operator<<(signed char one) { return *this << static_cast<char>(one); }
  Text& operator<<(unsigned char one) { return *this << static_cast<char>(one); }
  Text& operator<<(const void* pointer) { return pointer ? format("%p", pointer) : add("0"); }
  Text& operator<<(bool value) { return add(value ? "1" : "0"); }
  template <typename T, std::enable_if_t<std::is_integral_v<T>, int> = 0>
  Text& operator<<(T value) {
    return add(std::to_string(value));
  }
  template <typename T, std::enable_if_t<std::is_enum_v<T> && std::is_convertible_v<T, long long>, int> = 0>
  Text& operator<<(T value) {
    return *this << static_cast<std::underlying_type_t<T>>(value);
  }
  Text& operator<<(float value) { return format("%g", static_cast<double>(value)); }
  Text& operator<<(double value) { return format("%g", value); }
  const std::string& str() const { return text_; }

 private:
  Text& add(const std::string& text) {
    text_ += text;
    return *this;
  }
  template <typename T>
  Text& format(const char* how, T value) {
    char buffer[64];
    std::snprintf(buffer, sizeof buffer, how, value);
    return add(buffer);
  }
  std::string text_;
};

// Throws at the end of the statement that wrote its message.
class Thrower {
 public:
  Thrower(const char* kind, const TVMFFIByteArray* backtrace) : kind_(kind), trace_(backtrace->data, backtrace->size) {}
  [[noreturn]] ~Thrower() noexcept(false) { throw Error(kind_, text_.str(), trace_); }
  Text& text() { return text_; }

 private:
  std::string kind_, trace_;
  Text text_;
};

inline void raise(const Error& error) {
  const std::string kind = error.kind(), message = error.message(), backtrace = error.backtrace();
  const TVMFFIByteArray parts[] = {
      {kind.data(), kind.size()}, {message.data(), message.size()}, {backtrace.data(), backtrace.size()}};
  TVMFFIObjectHandle made = nullptr;
  if (TVMFFIErrorCreate(&parts[0], &parts[1], &parts[2], &made)) std::abort();  // no memory for an error's text
  TVMFFIErrorSetRaised(made);
  TVMFFIObjectDecRef(made);
}

// What a failed comparison says of its sides; nothing where it holds. Two ints are taken by value, so that a constant
// that is declared within a class needs no definition.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-compare"
#define CUDAFORGE_SLIM_COMPARISON(name, op)                                \
  template <typename X, typename Y>                                        \
  std::optional<std::string> name(const X& x, const Y& y) {                \
    if (x op y) return std::nullopt;                                       \
    Text text;                                                             \
    text << " (" << x << " vs. " << y << ") ";                             \
    return text.str();                                                     \
  }                                                                        \
  inline std::optional<std::string> name(int x, int y) { return name<int, int>(x, y); }
CUDAFORGE_SLIM_COMPARISON(compare_EQ, ==)
CUDAFORGE_SLIM_COMPARISON(compare_NE, !=)
CUDAFORGE_SLIM_COMPARISON(compare_LT, <)
CUDAFORGE_SLIM_COMPARISON(compare_LE, <=)
CUDAFORGE_SLIM_COMPARISON(compare_GT, >)
CUDAFORGE_SLIM_COMPARISON(compare_GE, >=)
#pragma GCC diagnostic pop

}  // namespace cudaforge_slim

#define TVM_FFI_THROW(ErrorKind) \
  ::cudaforge_slim::Thrower(#ErrorKind, TVMFFIBacktrace(__FILE__, __LINE__, __PRETTY_FUNCTION__, 0)).text()
#define TVM_FFI_CHECK(cond, ErrorKind)                 \
  if (__builtin_expect(static_cast<bool>(!(cond)), 0)) \
  TVM_FFI_THROW(ErrorKind) << "Check failed: (" #cond << ") is false: "
#define CUDAFORGE_SLIM_COMPARE(name, x, op, y, ErrorKind)                    \
  if (auto cudaforge_slim_differ = ::cudaforge_slim::compare_##name((x), (y))) \
  TVM_FFI_THROW(ErrorKind) << "Check failed: " #x " " #op " " #y << *cudaforge_slim_differ << ": "
#define TVM_FFI_CHECK_EQ(x, y, ErrorKind) CUDAFORGE_SLIM_COMPARE(EQ, x, ==, y, ErrorKind)
#define TVM_FFI_CHECK_NE(x, y, ErrorKind) CUDAFORGE_SLIM_COMPARE(NE, x, !=, y, ErrorKind)
#define TVM_FFI_CHECK_LT(x, y, ErrorKind) CUDAFORGE_SLIM_COMPARE(LT, x, <, y, ErrorKind)
#define TVM_FFI_CHECK_LE(x, y, ErrorKind) CUDAFORGE_SLIM_COMPARE(LE, x, <=, y, ErrorKind)
#define TVM_FFI_CHECK_GT(x, y, ErrorKind) CUDAFORGE_SLIM_COMPARE(GT, x, >, y, ErrorKind)
#define TVM_FFI_CHECK_GE(x, y, ErrorKind) CUDAFORGE_SLIM_COMPARE(GE, x, >=, y, ErrorKind)
#define TVM_FFI_ICHECK(x) TVM_FFI_CHECK(x, InternalError)
#define TVM_FFI_ICHECK_EQ(x, y) TVM_FFI_CHECK_EQ(x, y, InternalError)
#define TVM_FFI_ICHECK_NE(x, y) TVM_FFI_CHECK_NE(x, y, InternalError)
#define TVM_FFI_ICHECK_LT(x, y) TVM_FFI_CHECK_LT(x, y, InternalError)
#define TVM_FFI_ICHECK_LE(x, y) TVM_FFI_CHECK_LE(x, y, InternalError)
#define TVM_FFI_ICHECK_GT(x, y) TVM_FFI_CHECK_GT(x, y, InternalError)
#define TVM_FFI_ICHECK_GE(x, y) TVM_FFI_CHECK_GE(x, y, InternalError)

inline bool operator==(const DLDataType& a, const DLDataType& b) {
  return a.code == b.code && a.bits == b.bits && a.lanes == b.lanes;
}
inline bool operator!=(const DLDataType& a, const DLDataType& b) { return !(a == b); }

namespace tvm {
namespace ffi {
inline namespace cudaforge_slim {

class ShapeView {
 public:
  ShapeView(const int64_t* data, size_t size) : cell_{data, size} {}
  ShapeView(const std::initializer_list<int64_t>& list) : cell_{list.begin(), list.size()} {}
  const int64_t* data() const { return cell_.data; }
  size_t size() const { return cell_.size; }
  bool empty() const { return size() == 0; }
  const int64_t* begin() const { return data(); }
  const int64_t* end() const { return data() + size(); }
  int64_t operator[](size_t i) const { return data()[i]; }
  int64_t at(size_t i) const {
    if (i >= size()) TVM_FFI_THROW(IndexError) << "indexing " << i << " on a Shape of size " << size();
    return data()[i];
  }
  int64_t front() const { return at(0); }
  int64_t back() const { return at(size() - 1); }
  int64_t Product() const {
    int64_t product = 1;
    for (int64_t each : *this) product *= each;
    return product;
  }

 private:
  TVMFFIShapeCell cell_;
};

inline bool IsContiguous(const DLTensor& tensor) {
  if (!tensor.strides) return true;
  const ShapeView shape(tensor.shape, tensor.ndim);
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) return true;
  int64_t dense = 1;
  for (int i = tensor.ndim - 1; i >= 0; --i) {
    if (shape[i] == 1) continue;  // whatever its stride, nothing is skipped
    if (tensor.strides[i] != dense) return false;
    dense *= shape[i];
  }
  return true;
}

class TensorView {
 public:
  TensorView(const DLTensor* tensor) {  // NOLINT
    TVM_FFI_ICHECK(tensor != nullptr);
    tensor_ = *tensor;
  }
  void* data_ptr() const { return tensor_.data; }
  DLDevice device() const { return tensor_.device; }
  DLDataType dtype() const { return tensor_.dtype; }
  int32_t ndim() const { return tensor_.ndim; }
  int32_t dim() const { return tensor_.ndim; }
  ShapeView shape() const { return ShapeView(tensor_.shape, tensor_.ndim); }
  ShapeView sizes() const { return shape(); }
  ShapeView strides() const {
    TVM_FFI_ICHECK(tensor_.strides != nullptr || tensor_.ndim == 0);
    return ShapeView(tensor_.strides, tensor_.ndim);
  }
  int64_t numel() const { return shape().Product(); }
  int64_t size(int64_t i) const { return tensor_.shape[place(i)]; }
  int64_t stride(int64_t i) const { return tensor_.strides[place(i)]; }
  uint64_t byte_offset() const { return tensor_.byte_offset; }
  bool IsContiguous() const { return ::tvm::ffi::IsContiguous(tensor_); }
  bool is_contiguous() const { return IsContiguous(); }

 private:
  int64_t place(int64_t i) const {
    const int64_t found = i < 0 ? i + tensor_.ndim : i;
    if (found < 0 || found >= tensor_.ndim) {
      TVM_FFI_THROW(IndexError) << "Index " << i << " out of bounds for tensor with " << tensor_.ndim << " dimensions";
    }
    return found;
  }
  DLTensor tensor_;
};

inline size_t GetDataSize(size_t numel, DLDataType dtype) {
  return static_cast<size_t>((static_cast<uint64_t>(numel) * dtype.bits * dtype.lanes + 7) / 8);
}
inline size_t GetDataSize(const TensorView& tensor) { return GetDataSize(tensor.numel(), tensor.dtype()); }

}  // namespace cudaforge_slim
}  // namespace ffi
}  // namespace tvm

namespace cudaforge_slim {

using ::tvm::ffi::TensorView;

template <typename T>
inline constexpr bool is_tensor = std::is_same_v<T, TensorView> || std::is_same_v<T, DLTensor*>;
template <typename T>
inline constexpr bool is_int =
    std::is_integral_v<T> && (sizeof(T) < sizeof(int64_t) || std::is_signed_v<T>);  // of others tvm-ffi checks the range
template <typename T>
inline constexpr bool is_served = is_tensor<T> || is_int<T> || std::is_floating_point_v<T> || std::is_same_v<T, void*>;

template <typename T>
constexpr const char* name_of() {
  if constexpr (std::is_void_v<T>) return "void";
  else if constexpr (is_tensor<T>) return "DLTensor*";
  else if constexpr (std::is_same_v<T, bool>) return "bool";
  else if constexpr (is_int<T>) return "int";
  else if constexpr (std::is_floating_point_v<T>) return "float";
  else return "void*";
}

template <typename T>
std::optional<T> cast(const TVMFFIAny& from) {
  const int32_t is = from.type_index;
  const bool whole = is == kTVMFFIInt || is == kTVMFFIBool;
  if constexpr (is_tensor<T>) {
    if (is == kTVMFFIDLTensorPtr) return T(static_cast<DLTensor*>(from.v_ptr));
    if (is == kTVMFFITensor) return T(TVMFFITensorGetDLTensorPtr(from.v_obj));
  } else if constexpr (is_int<T>) {
    if (whole) return static_cast<T>(from.v_int64);
  } else if constexpr (std::is_floating_point_v<T>) {
    if (is == kTVMFFIFloat) return static_cast<T>(from.v_float64);
    if (whole) return static_cast<T>(from.v_int64);
  } else {
    if (is == kTVMFFIOpaquePtr) return from.v_ptr;
    if (is == kTVMFFINone) return T(nullptr);
  }
  return std::nullopt;
}

template <typename T>
void give(T value, TVMFFIAny* to) {
  static_assert(std::is_same_v<T, bool> || is_int<T> || std::is_floating_point_v<T>, "not served as a result");
  to->zero_padding = 0;
  if constexpr (std::is_floating_point_v<T>) {
    to->type_index = kTVMFFIFloat;
    to->v_float64 = value;
  } else {
    to->type_index = std::is_same_v<T, bool> ? kTVMFFIBool : kTVMFFIInt;
    to->v_int64 = static_cast<int64_t>(value);
  }
}

template <typename F>
struct Signature : Signature<decltype(&F::operator())> {};
template <typename C, typename R, typename... Args>
struct Signature<R (C::*)(Args...) const> : Signature<R (*)(Args...)> {};
template <typename R, typename... Args>
struct Signature<R (*)(Args...)> {
  static constexpr size_t count = sizeof...(Args);

  static std::string text(const char* name) {
    std::string list;
    size_t i = 0;
    ((list += (i ? ", " : "") + std::to_string(i) + ": " + name_of<std::decay_t<Args>>(), ++i), ...);
    return std::string(name) + "(" + list + ") -> " + name_of<std::remove_cv_t<R>>();
  }

  template <typename T>
  static T argument(const char* name, const TVMFFIAny* args, size_t i) {
    static_assert(is_served<T>, "not served as an argument");
    std::optional<T> value = cast<T>(args[i]);
    if (!value) {
      const TVMFFIByteArray& key = TVMFFIGetTypeInfo(args[i].type_index)->type_key;
      TVM_FFI_THROW(TypeError) << "Mismatched type on argument #" << i << " when calling: `" << text(name)
                               << "`. Expected `" << name_of<T>() << "` but got `" << std::string(key.data, key.size)
                               << '`';
    }
    return *value;
  }

  template <typename F, size_t... Is>
  static void call(const char* name, const F& function, const TVMFFIAny* args, int32_t given, TVMFFIAny* result,
                   std::index_sequence<Is...>) {
    static_assert(((!std::is_reference_v<Args> ||
                    std::is_const_v<std::remove_reference_t<Args>> == std::is_lvalue_reference_v<Args>)&&...),
                  "an argument is a value, a constant reference or a moved value");
    if (given != static_cast<int32_t>(count)) {
      TVM_FFI_THROW(TypeError) << "Mismatched number of arguments when calling: `" << text(name) << "`. Expected "
                               << count << " but got " << given << " arguments";
    }
    if constexpr (std::is_void_v<R>) {
      function(argument<std::decay_t<Args>>(name, args, Is)...);
    } else {
      static_assert(!std::is_reference_v<R>, "not served as a result");
      give<std::remove_cv_t<R>>(function(argument<std::decay_t<Args>>(name, args, Is)...), result);
    }
  }
};

template <typename F>
int called(const char* name, const F& function, const TVMFFIAny* args, int32_t given, TVMFFIAny* result) {
  try {
    using S = Signature<F>;
    S::call(name, function, args, given, result, std::make_index_sequence<S::count>{});
    return 0;
  } catch (const Error& error) {
    raise(error);
  } catch (const std::exception& error) {
    raise(Error("InternalError", error.what(), ""));
  }
  return -1;
}

}  // namespace cudaforge_slim

#define TVM_FFI_DLL_EXPORT_TYPED_FUNC(ExportName, Function)                                                      \
  extern "C" {                                                                                                   \
  TVM_FFI_DLL_EXPORT int __tvm_ffi_##ExportName(void* self, const TVMFFIAny* args, int32_t num_args,              \
                                                TVMFFIAny* result) {                                             \
    (void)self;                                                                                                  \
    static std::string name = #ExportName;                                                                       \
    return ::cudaforge_slim::called<std::decay_t<decltype(Function)>>(name.c_str(), Function, args, num_args,     \
                                                                      result);                                   \
  }                                                                                                              \
  }
#define TVM_FFI_DLL_EXPORT_TYPED_FUNC_DOC(ExportName, DocString)
