// The key of an eager call on CPU tensors: what Python's `eager.python_key` builds, in two thirds of its time: every
// small step is an instruction of the interpreter there. `watch` is told once what to ask; it knows torch by that alone.
#pragma once
#include <initializer_list>

#include "arguments.h"

namespace spatialconv {
namespace bindings {

// A reference that is given back as it goes.
class Owned {
 public:
  explicit Owned(PyObject* object) : object_(object) {}
  ~Owned() { Py_XDECREF(object_); }
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  PyObject* get() const { return object_; }
  PyObject* release() {
    PyObject* object = object_;
    object_ = nullptr;
    return object;
  }
  explicit operator bool() const { return object_ != nullptr; }

 private:
  PyObject* object_;
};

enum class Answer { no, yes, error };

inline Answer answered(PyObject* value) {
  const int truth = value == nullptr ? -1 : PyObject_IsTrue(value);
  Py_XDECREF(value);
  return truth < 0 ? Answer::error : truth != 0 ? Answer::yes : Answer::no;
}

// Everything that is asked, as `watch` got it; null before.
struct Watched {
  PyObject *tensor, *parameter, *strided;
  PyObject* observers;  // tuple of functions: a call that one of them is true of does not take the short way
  PyObject* forward_ad;
  PyObject* surroundings;  // tuple of functions whose answers are part of every key
  PyObject *precision, *precision_of;
  PyObject* local;
  PyObject* elsewhere;  // builds the key where a tensor is not on the CPU
  PyObject *layout, *is_neg, *is_zero, *is_cpu, *shape, *stride, *dtype, *request, *current_level;
};
inline Watched* watched() {
  static Watched found{};
  return &found;
}

inline PyObject* watch(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (!takes("watch", 10, count)) return nullptr;
  Watched& w = *watched();
  PyObject** given[] = {&w.tensor,       &w.parameter, &w.strided,      &w.observers, &w.forward_ad,
                        &w.surroundings, &w.precision, &w.precision_of, &w.local,     &w.elsewhere};
  for (int i = 0; i < 10; ++i) {
    Py_XDECREF(*given[i]);
    *given[i] = args[i];
    Py_INCREF(args[i]);
  }
  const char* names[] = {"layout", "is_neg", "_is_zerotensor", "is_cpu",        "shape",
                         "stride", "dtype",  "request",        "_current_level"};
  PyObject** words[] = {&w.layout, &w.is_neg, &w.is_zero, &w.is_cpu,       &w.shape,
                        &w.stride, &w.dtype,  &w.request, &w.current_level};
  for (int i = 0; i < 9; ++i) {
    if (*words[i] == nullptr) *words[i] = PyUnicode_InternFromString(names[i]);
    if (*words[i] == nullptr) return nullptr;
  }
  Py_RETURN_NONE;
}

inline Answer is_observed(const Watched& w) {
  const Py_ssize_t count = PyTuple_Size(w.observers);
  for (Py_ssize_t i = 0; i < count; ++i) {
    const Answer seen = answered(PyObject_CallNoArgs(PyTuple_GetItem(w.observers, i)));
    if (seen != Answer::no) return seen;
  }
  const Owned level(PyObject_GetAttr(w.forward_ad, w.current_level));
  if (!level) return Answer::error;
  const long depth = PyLong_AsLong(level.get());
  if (depth == -1 && PyErr_Occurred() != nullptr) return Answer::error;
  return depth < 0 ? Answer::no : Answer::yes;
}

// Whether it is exactly a Tensor or Parameter of ordinary memory.
inline Answer is_plain(const Watched& w, PyObject* tensor) {
  PyObject* type = reinterpret_cast<PyObject*>(Py_TYPE(tensor));
  if (type != w.tensor && type != w.parameter) return Answer::no;
  const Owned layout(PyObject_GetAttr(tensor, w.layout));
  if (!layout) return Answer::error;
  if (layout.get() != w.strided) return Answer::no;
  for (PyObject* name : {w.is_neg, w.is_zero}) {
    const Answer marked = answered(PyObject_CallMethodObjArgs(tensor, name, nullptr));
    if (marked != Answer::no) return marked == Answer::yes ? Answer::no : marked;
  }
  return Answer::yes;
}

inline bool is_pair_of_integers(PyObject* value) {
  return PyTuple_CheckExact(value) && PyTuple_Size(value) == 2 && PyLong_CheckExact(PyTuple_GetItem(value, 0)) &&
         PyLong_CheckExact(PyTuple_GetItem(value, 1));
}

// Whether each is an integer, a word, None or a pair of integers: for a dict, 1, True and 1.0 are one key.
inline bool are_exact(PyObject* options) {
  const Py_ssize_t count = PyTuple_Size(options);
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyObject* value = PyTuple_GetItem(options, i);
    if (!PyLong_CheckExact(value) && !PyUnicode_CheckExact(value) && value != Py_None && !is_pair_of_integers(value)) {
      return false;
    }
  }
  return true;
}

inline bool are_flags(PyObject* flags) {
  const Py_ssize_t count = PyTuple_Size(flags);
  for (Py_ssize_t i = 0; i < count; ++i) {
    if (!PyBool_Check(PyTuple_GetItem(flags, i))) return false;
  }
  return true;
}

// Fills a new tuple from the front; after a failure nothing more is asked, for Python's error is set.
class Filling {
 public:
  explicit Filling(Py_ssize_t size) : tuple_(PyTuple_New(size)), good_(static_cast<bool>(tuple_)) {}
  void take(PyObject* value) { good_ = value != nullptr && PyTuple_SetItem(tuple_.get(), next_++, value) == 0; }
  void share(PyObject* value) {
    if (!good_) return;
    Py_INCREF(value);
    take(value);
  }
  void attribute(PyObject* object, PyObject* name) {
    if (good_) take(PyObject_GetAttr(object, name));
  }
  void answer(PyObject* function) {
    if (good_) take(PyObject_CallNoArgs(function));
  }
  void method(PyObject* object, PyObject* name) {
    if (good_) take(PyObject_CallMethodObjArgs(object, name, nullptr));
  }
  bool good() const { return good_; }
  PyObject* done() { return good_ ? tuple_.release() : nullptr; }

 private:
  Owned tuple_;
  bool good_;
  Py_ssize_t next_ = 0;
};

// call_key(op, input, weight, bias, options, flags, backend): see eager.python_key.
inline PyObject* call_key(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (!takes("call_key", 7, count)) return nullptr;
  const Watched& w = *watched();
  if (w.local == nullptr) {
    PyErr_SetString(PyExc_RuntimeError, "call_key() before watch()");
    return nullptr;
  }
  PyObject *const weight = args[2], *const bias = args[3], *const options = args[4], *const flags = args[5];
  if (!PyTuple_CheckExact(options) || !PyTuple_CheckExact(flags) || !are_exact(options) || !are_flags(flags)) {
    Py_RETURN_NONE;
  }
  const Answer seen = is_observed(w);
  if (seen == Answer::error) return nullptr;
  if (seen == Answer::yes) Py_RETURN_NONE;
  for (int i = 1; i < 4; ++i) {
    if (i > 1 && args[i] == Py_None) continue;
    const Answer plain = is_plain(w, args[i]);
    if (plain == Answer::error) return nullptr;
    if (plain == Answer::no) Py_RETURN_NONE;
    const Answer here = answered(PyObject_GetAttr(args[i], w.is_cpu));
    if (here == Answer::error) return nullptr;
    if (here == Answer::no) {
      return PyObject_CallFunctionObjArgs(w.elsewhere, args[0], args[1], weight, bias, options, flags, args[6],
                                          nullptr);
    }
  }
  const Py_ssize_t asked = PyTuple_Size(w.surroundings);
  Filling key((weight == Py_None ? 8 : 13) + asked);
  key.share(args[0]);
  for (int i = 1; i < (weight == Py_None ? 2 : 3); ++i) {
    key.attribute(args[i], w.shape);
    key.method(args[i], w.stride);
    key.attribute(args[i], w.dtype);
  }
  if (weight != Py_None && bias == Py_None) {
    key.share(Py_None);
  } else if (weight != Py_None && key.good()) {
    Filling kind(2);
    kind.attribute(bias, w.shape);
    kind.attribute(bias, w.dtype);
    key.take(kind.done());
  }
  key.share(options);
  key.share(flags);
  key.share(args[6]);
  key.attribute(w.local, w.request);
  for (Py_ssize_t i = 0; i < asked; ++i) key.answer(PyTuple_GetItem(w.surroundings, i));
  if (weight != Py_None && key.good()) key.take(PyObject_Call(w.precision, w.precision_of, nullptr));
  return key.done();
}

}  // namespace bindings
}  // namespace spatialconv
