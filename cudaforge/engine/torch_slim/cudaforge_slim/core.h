// The part of torch's C++ interface that kernels in a single file use, in a header that parses in about a second.
//
// Tensors are handles of torch's C shim (torch/csrc/inductor/aoti_torch/c/shim.h, torch/csrc/stable/c/shim.h), whose
// functions types.h declares; operators go through torch's dispatcher, so that whatever watches it (guarded and
// poisoned allocations, inference mode) sees them as it sees those of plain torch. What is not here, or would behave
// in another way, is left out on purpose: the compiler then refuses the source, and torch's own headers serve it.
#pragma once

#include <cudaforge_slim/operators.h>

// The names that kernels know it by. torch sees all of at, and at all of c10.
namespace c10 {
using namespace ::cudaforge_slim;
}
namespace at {
using namespace ::cudaforge_slim;
}
namespace torch {
using namespace ::cudaforge_slim;
}

#define TORCH_CHECK(cond, ...)                                                                                   \
  if (C10_UNLIKELY(!(cond))) {                                                                                   \
    ::c10::detail::torchCheckFail(__func__, __FILE__, static_cast<uint32_t>(__LINE__),                           \
                                  ::cudaforge_slim::check_message(                                               \
                                      "Expected " #cond                                                          \
                                      " to be true, but got false.  (Could this error message be improved?  If " \
                                      "so, please report an enhancement request to PyTorch.)",                   \
                                      ##__VA_ARGS__));                                                           \
  }
#define TORCH_INTERNAL_ASSERT(cond, ...)                                                                          \
  if (C10_UNLIKELY(!(cond))) {                                                                                    \
    ::c10::detail::torchInternalAssertFail(__func__, __FILE__, static_cast<uint32_t>(__LINE__),                   \
                                           #cond " INTERNAL ASSERT FAILED at " C10_STRINGIZE(__FILE__) ":"        \
                                               C10_STRINGIZE(__LINE__) ", please report a bug to PyTorch. ",      \
                                           ::cudaforge_slim::str(__VA_ARGS__));                                   \
  }
#define AT_ASSERT(...)                  \
  do {                                  \
    TORCH_INTERNAL_ASSERT(__VA_ARGS__); \
  } while (false)
#define AT_ASSERTM(cond, ...)                 \
  do {                                        \
    TORCH_INTERNAL_ASSERT(cond, __VA_ARGS__); \
  } while (false)
#define AT_ERROR(...)                                           \
  do {                                                          \
    TORCH_CHECK(false, ::cudaforge_slim::str(__VA_ARGS__));     \
  } while (false)

#define AT_DISPATCH_CASE(enum_type, ...)                                                  \
  case enum_type: {                                                                       \
    using scalar_t [[maybe_unused]] = ::cudaforge_slim::TypeOfScalar<enum_type>::type_;   \
    return __VA_ARGS__();                                                                 \
  }
#define AT_DISPATCH_SWITCH(TYPE, NAME, ...)                                                                      \
  [&] {                                                                                                          \
    const auto& the_type = TYPE;                                                                                 \
    constexpr const char* at_dispatch_name = NAME;                                                               \
    const ::cudaforge_slim::ScalarType cudaforge_type = ::cudaforge_slim::scalar_type_of(the_type);              \
    switch (cudaforge_type) {                                                                                    \
      __VA_ARGS__                                                                                                \
      default:                                                                                                   \
        throw ::cudaforge_slim::Failure(                                                                         \
            ::cudaforge_slim::Failure::NotImplemented,                                                           \
            ::cudaforge_slim::str('"', at_dispatch_name, "\" not implemented for '",                             \
                                  ::cudaforge_slim::toString(cudaforge_type), "'"));                             \
    }                                                                                                            \
  }()
#define AT_DISPATCH_CASE_FLOATING_TYPES(...)            \
  AT_DISPATCH_CASE(at::ScalarType::Double, __VA_ARGS__) \
  AT_DISPATCH_CASE(at::ScalarType::Float, __VA_ARGS__)
#define AT_DISPATCH_CASE_REDUCED_FLOATING_TYPES(...)  \
  AT_DISPATCH_CASE(at::ScalarType::Half, __VA_ARGS__) \
  AT_DISPATCH_CASE(at::ScalarType::BFloat16, __VA_ARGS__)
#define AT_DISPATCH_CASE_FLOATING_TYPES_AND_HALF(...) \
  AT_DISPATCH_CASE_FLOATING_TYPES(__VA_ARGS__)        \
  AT_DISPATCH_CASE(at::ScalarType::Half, __VA_ARGS__)
#define AT_DISPATCH_CASE_INTEGRAL_TYPES(...)           \
  AT_DISPATCH_CASE(at::ScalarType::Byte, __VA_ARGS__)  \
  AT_DISPATCH_CASE(at::ScalarType::Char, __VA_ARGS__)  \
  AT_DISPATCH_CASE(at::ScalarType::Int, __VA_ARGS__)   \
  AT_DISPATCH_CASE(at::ScalarType::Long, __VA_ARGS__)  \
  AT_DISPATCH_CASE(at::ScalarType::Short, __VA_ARGS__)
#define AT_DISPATCH_CASE_ALL_TYPES(...)        \
  AT_DISPATCH_CASE_INTEGRAL_TYPES(__VA_ARGS__) \
  AT_DISPATCH_CASE_FLOATING_TYPES(__VA_ARGS__)
#define AT_DISPATCH_FLOATING_TYPES(TYPE, NAME, ...) \
  AT_DISPATCH_SWITCH(TYPE, NAME, AT_DISPATCH_CASE_FLOATING_TYPES(__VA_ARGS__))
#define AT_DISPATCH_REDUCED_FLOATING_TYPES(TYPE, NAME, ...) \
  AT_DISPATCH_SWITCH(TYPE, NAME, AT_DISPATCH_CASE_REDUCED_FLOATING_TYPES(__VA_ARGS__))
#define AT_DISPATCH_FLOATING_TYPES_AND_HALF(TYPE, NAME, ...) \
  AT_DISPATCH_SWITCH(TYPE, NAME, AT_DISPATCH_CASE_FLOATING_TYPES_AND_HALF(__VA_ARGS__))
#define AT_DISPATCH_FLOATING_TYPES_AND(A, TYPE, NAME, ...) \
  AT_DISPATCH_SWITCH(TYPE, NAME, AT_DISPATCH_CASE_FLOATING_TYPES(__VA_ARGS__) AT_DISPATCH_CASE(A, __VA_ARGS__))
#define AT_DISPATCH_FLOATING_TYPES_AND2(A, B, TYPE, NAME, ...)                                                  \
  AT_DISPATCH_SWITCH(TYPE, NAME, AT_DISPATCH_CASE_FLOATING_TYPES(__VA_ARGS__) AT_DISPATCH_CASE(A, __VA_ARGS__)  \
                                     AT_DISPATCH_CASE(B, __VA_ARGS__))
#define AT_DISPATCH_INTEGRAL_TYPES(TYPE, NAME, ...) \
  AT_DISPATCH_SWITCH(TYPE, NAME, AT_DISPATCH_CASE_INTEGRAL_TYPES(__VA_ARGS__))
#define AT_DISPATCH_ALL_TYPES(TYPE, NAME, ...) \
  AT_DISPATCH_SWITCH(TYPE, NAME, AT_DISPATCH_CASE_ALL_TYPES(__VA_ARGS__))
#define AT_DISPATCH_ALL_TYPES_AND(A, TYPE, NAME, ...) \
  AT_DISPATCH_SWITCH(TYPE, NAME, AT_DISPATCH_CASE_ALL_TYPES(__VA_ARGS__) AT_DISPATCH_CASE(A, __VA_ARGS__))
#define AT_DISPATCH_ALL_TYPES_AND2(A, B, TYPE, NAME, ...)                                                  \
  AT_DISPATCH_SWITCH(TYPE, NAME, AT_DISPATCH_CASE_ALL_TYPES(__VA_ARGS__) AT_DISPATCH_CASE(A, __VA_ARGS__)  \
                                     AT_DISPATCH_CASE(B, __VA_ARGS__))
