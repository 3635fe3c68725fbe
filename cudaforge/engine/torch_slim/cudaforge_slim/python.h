// Bindings: the part of pybind11 that extensions use, PYBIND11_MODULE and m.def, over Python's own C interface.
//
// What is made is an ordinary extension module, imported like every other. Conversions accept and refuse what
// pybind11's do, and errors become the same Python exceptions.
#pragma once

#include <Python.h>
#include <cudaforge_slim/core.h>

namespace at {
class TensorBase;
}
PyObject* THPVariable_Wrap(const at::TensorBase&);  // torch's own; an at::Tensor is one TensorBase

namespace torch {
bool translate_exception_to_python(const std::exception_ptr&);  // torch's own
}

namespace cudaforge_slim::python {

// The Python error indicator is set.
struct AlreadySet {};

class Ref {
 public:
  explicit Ref(PyObject* object = nullptr) : object_(object) {}
  Ref(Ref&& other) noexcept : object_(other.release()) {}
  Ref(const Ref&) = delete;
  Ref& operator=(const Ref&) = delete;
  ~Ref() { Py_XDECREF(object_); }
  PyObject* get() const { return object_; }
  PyObject* release() { return std::exchange(object_, nullptr); }
  explicit operator bool() const { return object_ != nullptr; }

 private:
  PyObject* object_;
};

// One of each in a library, whatever its objects instantiate.
#define CUDAFORGE_OWN inline __attribute__((visibility("hidden")))
CUDAFORGE_OWN PyObject* tensor_to_handle = nullptr;  // torch._C._aoti.unsafe_alloc_void_ptr_from_tensor
CUDAFORGE_OWN PyTypeObject* tensor_type = nullptr;
#undef CUDAFORGE_OWN

inline bool find_torch() {
  Ref torch(PyImport_ImportModule("torch"));
  Ref own(torch ? PyObject_GetAttrString(torch.get(), "_C") : nullptr);
  Ref aoti(own ? PyObject_GetAttrString(own.get(), "_aoti") : nullptr);
  if (!aoti) return false;
  tensor_to_handle = PyObject_GetAttrString(aoti.get(), "unsafe_alloc_void_ptr_from_tensor");
  tensor_type = reinterpret_cast<PyTypeObject*>(PyObject_GetAttrString(torch.get(), "Tensor"));
  return tensor_to_handle && tensor_type;
}

// Python -> C++: `load` gives false where pybind11 would refuse the object; the function is called with `value`.
template <typename T, typename = void> struct Load;

template <> struct Load<Tensor> {
  Tensor value;
  bool load(PyObject* object) {
    if (!PyObject_TypeCheck(object, tensor_type)) return false;
    Ref capsule(PyObject_CallOneArg(tensor_to_handle, object));
    void* handle = capsule ? PyCapsule_GetPointer(capsule.get(), PyCapsule_GetName(capsule.get())) : nullptr;
    if (!handle) throw AlreadySet();
    value = Tensor::steal(static_cast<CudaforgeTensor>(handle));
    return true;
  }
};

template <> struct Load<bool> {
  bool value = false;
  bool load(PyObject* object) {
    if (object == Py_True || object == Py_False) {
      value = object == Py_True;
      return true;
    }
    if (object == Py_None) return true;  // false, as pybind11 has it
    PyNumberMethods* number = Py_TYPE(object)->tp_as_number;
    const int truth = number && number->nb_bool ? number->nb_bool(object) : -1;
    if (truth != 0 && truth != 1) {
      PyErr_Clear();
      return false;
    }
    value = truth == 1;
    return true;
  }
};

template <typename T> struct Load<T, std::enable_if_t<std::is_integral_v<T> && !std::is_same_v<T, bool> &&
                                                      !std::is_same_v<T, char> && (sizeof(T) > 1)>> {
  T value = 0;
  bool load(PyObject* object, bool convert = true) {
    if (PyFloat_Check(object)) return false;
    Ref index(PyLong_Check(object) ? nullptr : PyNumber_Index(object));
    if (!index) PyErr_Clear();
    PyObject* whole = index ? index.get() : object;
    bool good;
    if constexpr (std::is_unsigned_v<T>) {
      const unsigned long long wide = PyLong_AsUnsignedLongLong(whole);
      value = static_cast<T>(wide);
      good = wide == static_cast<unsigned long long>(value);
    } else {
      const long long wide = PyLong_AsLongLong(whole);
      value = static_cast<T>(wide);
      good = wide == static_cast<long long>(value);
    }
    if (!PyErr_Occurred()) return good;
    PyErr_Clear();
    if (!convert || !PyNumber_Check(object)) return false;
    Ref number(PyNumber_Long(object));
    PyErr_Clear();
    return number && load(number.get(), false);
  }
};

template <typename T> struct Load<T, std::enable_if_t<std::is_floating_point_v<T>>> {
  T value = 0;
  bool load(PyObject* object) {
    double wide = PyFloat_AsDouble(object);
    if (wide == -1.0 && PyErr_Occurred()) {
      PyErr_Clear();
      Ref number(PyNumber_Check(object) ? PyNumber_Float(object) : nullptr);
      PyErr_Clear();
      if (!number) return false;
      wide = PyFloat_AsDouble(number.get());
    }
    value = static_cast<T>(wide);
    return true;
  }
};

template <> struct Load<std::string> {
  std::string value;
  bool load(PyObject* object) {
    if (PyUnicode_Check(object)) {
      Py_ssize_t size;
      const char* text = PyUnicode_AsUTF8AndSize(object, &size);
      if (!text) {
        PyErr_Clear();
        return false;
      }
      value.assign(text, static_cast<size_t>(size));
      return true;
    }
    if (!PyBytes_Check(object)) return false;
    value.assign(PyBytes_AS_STRING(object), static_cast<size_t>(PyBytes_GET_SIZE(object)));
    return true;
  }
};

template <typename T> struct Load<std::optional<T>> {
  std::optional<T> value;
  bool load(PyObject* object) {
    if (object == Py_None) return true;
    Load<T> inner;
    if (!inner.load(object)) return false;
    value = std::move(inner.value);
    return true;
  }
};

template <typename T> struct Load<std::vector<T>> {
  std::vector<T> value;
  bool load(PyObject* object) {
    if (!PyList_Check(object) && !PyTuple_Check(object)) return false;
    const Py_ssize_t size = PySequence_Fast_GET_SIZE(object);
    for (Py_ssize_t i = 0; i < size; ++i) {
      Load<T> inner;
      if (!inner.load(PySequence_Fast_GET_ITEM(object, i))) return false;
      value.push_back(std::move(inner.value));
    }
    return true;
  }
};

// C++ -> Python: a new reference.
inline Ref made(PyObject* object) {
  if (!object) throw AlreadySet();
  return Ref(object);
}
inline Ref dump(const Tensor& tensor) {
  // The shim's handle is a pointer to an at::Tensor.
  const CudaforgeTensor handle = tensor.share();
  PyObject* object = THPVariable_Wrap(*reinterpret_cast<const at::TensorBase*>(handle));
  aoti_torch_delete_tensor_object(handle);
  return made(object);
}
inline Ref dump(bool value) { return made(PyBool_FromLong(value)); }
inline Ref dump(const std::string& value) {
  return made(PyUnicode_DecodeUTF8(value.data(), static_cast<Py_ssize_t>(value.size()), nullptr));
}
template <typename T, typename = std::enable_if_t<std::is_arithmetic_v<T> && !std::is_same_v<T, bool> &&
                                                  !(std::is_integral_v<T> && sizeof(T) == 1)>>
Ref dump(T value) {
  if constexpr (std::is_floating_point_v<T>) return made(PyFloat_FromDouble(static_cast<double>(value)));
  else if constexpr (std::is_unsigned_v<T>) return made(PyLong_FromUnsignedLongLong(value));
  else return made(PyLong_FromLongLong(value));
}
template <typename T> Ref dump(const std::optional<T>& value);
template <typename T> Ref dump(const std::vector<T>& values);
template <typename... T> Ref dump(const std::tuple<T...>& values);
template <typename A, typename B> Ref dump(const std::pair<A, B>& values);

template <typename T> Ref dump(const std::optional<T>& value) {
  if (value) return dump(*value);
  Py_INCREF(Py_None);
  return Ref(Py_None);
}
template <typename T> Ref dump(const std::vector<T>& values) {
  static_assert(!std::is_same_v<T, bool>);
  Ref list = made(PyList_New(static_cast<Py_ssize_t>(values.size())));
  Py_ssize_t i = 0;
  for (const auto& value : values) PyList_SET_ITEM(list.get(), i++, dump(value).release());
  return list;
}
template <typename... T> Ref dump(const std::tuple<T...>& values) {
  Ref tuple = made(PyTuple_New(sizeof...(T)));
  Py_ssize_t i = 0;
  std::apply([&](const auto&... value) { (PyTuple_SET_ITEM(tuple.get(), i++, dump(value).release()), ...); }, values);
  return tuple;
}
template <typename A, typename B> Ref dump(const std::pair<A, B>& values) {
  return dump(std::tuple<A, B>(values.first, values.second));
}

// The exception in flight as a Python error. What is none of torch's depends on who translates it: `torch` is
// torch::wrap_pybind_function, which knows RuntimeError alone, otherwise pybind11.
inline void translate(bool torch) {
  try {
    throw;
  } catch (const AlreadySet&) {
    return;
  } catch (const Failure& error) {
    Ref module(error.kind == Failure::OutOfMemory ? PyImport_ImportModule("torch") : nullptr);
    Ref memory(module ? PyObject_GetAttrString(module.get(), "OutOfMemoryError") : nullptr);
    PyObject* type = PyExc_RuntimeError;
    if (memory) type = memory.get();
    if (error.kind == Failure::Index) type = PyExc_IndexError;
    if (error.kind == Failure::NotImplemented) type = PyExc_NotImplementedError;
    PyErr_SetString(type, error.what());
    return;
  } catch (...) {
  }
  PyObject* type = nullptr;
  std::string message;
  try {
    throw;
  } catch (const std::bad_alloc& error) {
    type = PyExc_MemoryError, message = error.what();
  } catch (const std::domain_error& error) {
    type = PyExc_ValueError, message = error.what();
  } catch (const std::invalid_argument& error) {
    type = PyExc_ValueError, message = error.what();
  } catch (const std::length_error& error) {
    type = PyExc_ValueError, message = error.what();
  } catch (const std::out_of_range& error) {
    type = PyExc_IndexError, message = error.what();
  } catch (const std::range_error& error) {
    type = PyExc_ValueError, message = error.what();
  } catch (const std::overflow_error& error) {
    type = PyExc_OverflowError, message = error.what();
  } catch (const std::exception&) {
  } catch (...) {
    type = PyExc_RuntimeError, message = "Caught an unknown exception!", torch = false;
  }
  if (type && !torch) {
    PyErr_SetString(type, message.c_str());
  } else {
    ::torch::translate_exception_to_python(std::current_exception());
  }
}

// py::arg("x"), py::arg("x") = 1.0
struct Argument {
  std::string name;
  PyObject* otherwise = nullptr;  // never given back, like the function it belongs to
  explicit Argument(const char* name) : name(name) {}
  template <typename T> Argument operator=(const T& value) && {
    Argument copy(name.c_str());
    if constexpr (std::is_same_v<std::decay_t<T>, std::nullopt_t>) {
      Py_INCREF(Py_None);
      copy.otherwise = Py_None;
    } else if constexpr (std::is_convertible_v<T, const char*>) {
      copy.otherwise = dump(std::string(value)).release();
    } else {
      copy.otherwise = dump(value).release();
    }
    return copy;
  }
};

struct Callable {
  std::string name, doc;
  std::vector<Argument> arguments;
  PyMethodDef definition{};
  virtual ~Callable() = default;
  virtual PyObject* call(PyObject* const* given) const = 0;
  virtual size_t arity() const = 0;
};

template <typename F, typename R, typename... A>
struct Function : Callable {
  F function;
  bool torch;
  Function(F function, bool torch) : function(std::move(function)), torch(torch) {}
  size_t arity() const override { return sizeof...(A); }
  PyObject* call(PyObject* const* given) const override { return call(given, std::index_sequence_for<A...>()); }
  template <size_t... I> PyObject* call(PyObject* const* given, std::index_sequence<I...>) const {
    try {
      std::tuple<Load<std::decay_t<A>>...> loaded;
      if (!(std::get<I>(loaded).load(given[I]) && ...)) {
        PyErr_Format(PyExc_TypeError, "%s(): incompatible function arguments.", name.c_str());
        return nullptr;
      }
      if constexpr (std::is_void_v<R>) {
        function(static_cast<A&&>(std::get<I>(loaded).value)...);
        Py_RETURN_NONE;
      } else {
        return dump(function(static_cast<A&&>(std::get<I>(loaded).value)...)).release();
      }
    } catch (...) {
      translate(torch);
      return nullptr;
    }
  }
};

template <typename F> struct Wrapped { F function; };

template <typename R, typename... A> Callable* callable(R (*function)(A...), bool torch) {
  return new Function<R (*)(A...), R, A...>(function, torch);
}
template <typename F, typename C, typename R, typename... A>
Callable* callable_object(F function, R (C::*)(A...) const, bool torch) {
  return new Function<F, R, A...>(std::move(function), torch);
}
template <typename F, typename = decltype(&F::operator())> Callable* callable(F function, bool torch) {
  return callable_object(std::move(function), &F::operator(), torch);
}

// The trampoline of every function: positions, names and defaults into one array.
inline PyObject* enter(PyObject* self, PyObject* const* given, Py_ssize_t count, PyObject* names) {
  const auto* callable = static_cast<const Callable*>(PyCapsule_GetPointer(self, nullptr));
  if (!callable) return nullptr;
  const size_t arity = callable->arity(), positions = static_cast<size_t>(count);
  const Py_ssize_t named = names ? PyTuple_GET_SIZE(names) : 0;
  if (named == 0 && positions == arity) return callable->call(given);
  std::vector<PyObject*> all(arity, nullptr);
  bool good = positions <= arity;
  for (size_t i = 0; good && i < positions; ++i) all[i] = given[i];
  for (Py_ssize_t n = 0; good && n < named; ++n) {
    const char* name = PyUnicode_AsUTF8(PyTuple_GET_ITEM(names, n));
    size_t i = 0;
    while (name && i < callable->arguments.size() && callable->arguments[i].name != name) ++i;
    good = name && i < callable->arguments.size() && !all[i];
    if (good) all[i] = given[count + n];
  }
  for (size_t i = 0; good && i < arity; ++i) {
    if (!all[i] && i < callable->arguments.size()) all[i] = callable->arguments[i].otherwise;
    good = all[i] != nullptr;
  }
  if (good) return callable->call(all.data());
  PyErr_Format(PyExc_TypeError, "%s(): incompatible function arguments.", callable->name.c_str());
  return nullptr;
}

class Documentation {
 public:
  explicit Documentation(PyObject* module) : module_(module) {}
  void operator=(const char* text) const {
    if (PyModule_SetDocString(module_, text) != 0) throw AlreadySet();
  }

 private:
  PyObject* module_;
};

class Module {
 public:
  explicit Module(PyObject* module) : module_(module) {}
  Documentation doc() const { return Documentation(module_); }
  template <typename F, typename... Extra> Module& def(const char* name, const F& function, const Extra&... extra) {
    std::unique_ptr<Callable> made(make(function));
    made->name = name;
    (annotate(*made, extra), ...);
    if (!made->arguments.empty() && made->arguments.size() != made->arity()) {
      throw std::runtime_error("not as many py::arg as arguments");
    }
    if (PyObject_HasAttrString(module_, name)) throw std::runtime_error("an overload");  // left to pybind11
    Callable* kept = made.release();  // lives as long as the process
    kept->definition.ml_name = kept->name.c_str();
    kept->definition.ml_meth = reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)(void)>(&enter));
    kept->definition.ml_flags = METH_FASTCALL | METH_KEYWORDS;
    kept->definition.ml_doc = kept->doc.c_str();
    Ref self(PyCapsule_New(kept, nullptr, nullptr));
    Ref own_name(PyModule_GetNameObject(module_));
    if (!self || !own_name) throw AlreadySet();
    Ref object(PyCFunction_NewEx(&kept->definition, self.get(), own_name.get()));
    if (!object || PyModule_AddObjectRef(module_, name, object.get()) != 0) throw AlreadySet();
    return *this;
  }

 private:
  template <typename F> static Callable* make(const F& function) { return callable(function, false); }
  template <typename R, typename... A> static Callable* make(R (&function)(A...)) { return callable(&function, false); }
  template <typename F> static Callable* make(const Wrapped<F>& wrapped) { return callable(wrapped.function, true); }
  static void annotate(Callable& made, const char* doc) { made.doc = doc; }
  static void annotate(Callable& made, const Argument& argument) { made.arguments.push_back(argument); }
  PyObject* module_;
};

inline PyObject* make_module(PyModuleDef* definition, void (*fill)(Module&)) {
  Ref module(find_torch() ? PyModule_Create(definition) : nullptr);
  if (!module) return nullptr;
  try {
    Module wrapped(module.get());
    fill(wrapped);
    return module.release();
  } catch (...) {
    translate(false);
    return nullptr;
  }
}

}  // namespace cudaforge_slim::python

namespace torch {
template <typename F> auto wrap_pybind_function(F&& function) {
  return ::cudaforge_slim::python::Wrapped<std::decay_t<F>>{std::forward<F>(function)};
}
}  // namespace torch

namespace pybind11 {
using module_ = ::cudaforge_slim::python::Module;
using arg = ::cudaforge_slim::python::Argument;
}  // namespace pybind11
// torch/extension.h has this alias for everybody.
namespace py = pybind11;

#define CUDAFORGE_JOIN_(a, b) a##b
#define CUDAFORGE_JOIN(a, b) CUDAFORGE_JOIN_(a, b)
#define CUDAFORGE_TEXT_(a) #a
#define CUDAFORGE_TEXT(a) CUDAFORGE_TEXT_(a)
#define PYBIND11_MODULE(name, variable)                                                                          \
  static void CUDAFORGE_JOIN(cudaforge_fill_, name)(::cudaforge_slim::python::Module & variable);                \
  static PyModuleDef CUDAFORGE_JOIN(cudaforge_module_, name) = {PyModuleDef_HEAD_INIT, CUDAFORGE_TEXT(name),     \
                                                                nullptr, -1, nullptr, nullptr, nullptr, nullptr, \
                                                                nullptr};                                        \
  extern "C" __attribute__((visibility("default"))) PyObject* CUDAFORGE_JOIN(PyInit_, name)() {                  \
    return ::cudaforge_slim::python::make_module(&CUDAFORGE_JOIN(cudaforge_module_, name),                       \
                                                 &CUDAFORGE_JOIN(cudaforge_fill_, name));                        \
  }                                                                                                              \
  static void CUDAFORGE_JOIN(cudaforge_fill_, name)(                                                             \
      [[maybe_unused]] ::cudaforge_slim::python::Module & variable)
