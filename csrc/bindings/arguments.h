// What the Python modules share: addresses and integers in, integers out. They know nothing of tensors; shapes, dtypes and
// strides are checked in Python before a call arrives here.
#pragma once
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "../common/problem.h"

namespace spatialconv {
namespace bindings {

inline const char* dtype_name(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "f32";
    case DType::f64:
      return "f64";
    case DType::bf16:
      return "bf16";
    case DType::f16:
      return "f16";
  }
  return "?";
}

inline bool takes(const char* function, Py_ssize_t expected, Py_ssize_t given) {
  if (expected == given) return true;
  PyErr_Format(PyExc_TypeError, "%s() takes exactly %zd arguments (%zd given)", function, expected, given);
  return false;
}

// A failed conversion leaves Python's error set; callers ask PyErr_Occurred once after all of their arguments.
template <class T>
T* address(PyObject* value) {
  return static_cast<T*>(PyLong_AsVoidPtr(value));
}

// Gives the row up to the list; false where either could not be made.
inline bool append(PyObject* list, PyObject* row) {
  const bool appended = row != nullptr && PyList_Append(list, row) == 0;
  Py_XDECREF(row);
  return appended;
}

using FastFunction = PyObject* (*)(PyObject*, PyObject* const*, Py_ssize_t);

inline PyMethodDef method(const char* name, FastFunction function, const char* doc) {
  return {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function)), METH_FASTCALL, doc};
}

inline PyObject* struct_sizes(PyObject*, PyObject* const*, Py_ssize_t count) {
  if (!takes("struct_sizes", 0, count)) return nullptr;
  return Py_BuildValue("(nn)", static_cast<Py_ssize_t>(sizeof(Conv2d)), static_cast<Py_ssize_t>(sizeof(Pool2d)));
}

}  // namespace bindings
}  // namespace spatialconv
