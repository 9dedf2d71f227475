// The Python module of the CUDA kernels, a shared object of its own: its failure to build or load costs the CPU kernels
// nothing. nvcc compiles it for devices and links cudart statically, so it loads where no driver is; a C++ compiler
// makes the same module over the emulator, for tests.
#include "arguments.h"

#include <cstdint>

#include "../cuda/tables.h"

namespace {

using spatialconv::Buffers;
using spatialconv::bindings::address;
using spatialconv::bindings::append;
using spatialconv::bindings::dtype_name;
using spatialconv::bindings::method;
using spatialconv::bindings::struct_sizes;
using spatialconv::bindings::takes;
using spatialconv::cuda::Entry;
using spatialconv::cuda::Stream;
using spatialconv::cuda::Table;

#if defined(EMULATED)

int32_t launch_on(int, const Entry& entry, const void* problem, const Buffers& buffers, Stream stream) {
  return entry.launch(problem, buffers, stream);
}

const char* text_of(int32_t code) { return code == 0 ? "no error" : "the emulator refused the launch"; }

void versions(int& driver, int& runtime) { driver = runtime = 0; }

#else

// Launches with the device current, and leaves the one current that was.
int32_t launch_on(int device, const Entry& entry, const void* problem, const Buffers& buffers, Stream stream) {
  int before;
  if (const cudaError_t error = cudaGetDevice(&before)) return error;
  // Also where it is current already: a thread that has made no call of the runtime that needs one has no context yet,
  // and without one the driver encodes no tensor map. Legal while a graph is captured.
  if (const cudaError_t error = cudaSetDevice(device)) return error;
  const int32_t launched = entry.launch(problem, buffers, stream);
  if (before == device) return launched;
  const cudaError_t restored = cudaSetDevice(before);
  return launched != 0 ? launched : static_cast<int32_t>(restored);
}

const char* text_of(int32_t code) { return cudaGetErrorString(static_cast<cudaError_t>(code)); }

void versions(int& driver, int& runtime) {
  if (cudaDriverGetVersion(&driver) != cudaSuccess) driver = 0;
  if (cudaRuntimeGetVersion(&runtime) != cudaSuccess) runtime = 0;
}

#endif

PyObject* kernels(PyObject*, PyObject* const*, Py_ssize_t count) {
  if (!takes("kernels", 0, count)) return nullptr;
  PyObject* rows = PyList_New(0);
  if (rows == nullptr) return nullptr;
  for (int64_t t = 0; t < spatialconv::cuda::table_count; ++t) {
    const Table& table = *spatialconv::cuda::tables[t];
    for (int64_t k = 0; k < table.count; ++k) {
      const Entry& entry = table.entries[k];
      PyObject* row =
          Py_BuildValue("(sssiN)", entry.op, entry.name, dtype_name(entry.dtype),
                        static_cast<int>(entry.least_capability), PyLong_FromVoidPtr(const_cast<Entry*>(&entry)));
      if (!append(rows, row)) {
        Py_DECREF(rows);
        return nullptr;
      }
    }
  }
  return rows;
}

PyObject* run(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (!takes("run", 10, count)) return nullptr;
  const Entry* entry = address<const Entry>(args[0]);
  const void* problem = address<const void>(args[1]);
  Buffers buffers;
  buffers.x = address<void>(args[2]);
  buffers.w = address<void>(args[3]);
  buffers.y = address<void>(args[4]);
  buffers.aux = address<void>(args[5]);
  buffers.workspace = address<void>(args[6]);
  buffers.threads = PyLong_AsLongLong(args[7]);
  buffers.packed = 0;
  const int device = static_cast<int>(PyLong_AsLong(args[8]));
  const Stream stream = static_cast<Stream>(address<void>(args[9]));
  if (PyErr_Occurred() != nullptr) return nullptr;
  int32_t code;
  Py_BEGIN_ALLOW_THREADS;
  code = launch_on(device, *entry, problem, buffers, stream);
  Py_END_ALLOW_THREADS;
  return PyLong_FromLong(code);
}

PyObject* workspace_bytes(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (!takes("workspace_bytes", 3, count)) return nullptr;
  const Entry* entry = address<const Entry>(args[0]);
  const void* problem = address<const void>(args[1]);
  const int64_t multiprocessors = PyLong_AsLongLong(args[2]);
  if (PyErr_Occurred() != nullptr) return nullptr;
  return PyLong_FromLongLong(entry->workspace == nullptr ? 0 : entry->workspace(problem, multiprocessors));
}

PyObject* error_text(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (!takes("error_text", 1, count)) return nullptr;
  const long code = PyLong_AsLong(args[0]);
  if (PyErr_Occurred() != nullptr) return nullptr;
  return PyUnicode_FromString(text_of(static_cast<int32_t>(code)));
}

PyObject* driver(PyObject*, PyObject* const*, Py_ssize_t count) {
  if (!takes("driver", 0, count)) return nullptr;
  int of_driver = 0, of_runtime = 0;
  Py_BEGIN_ALLOW_THREADS;
  versions(of_driver, of_runtime);
  Py_END_ALLOW_THREADS;
  return Py_BuildValue("(ii)", of_driver, of_runtime);
}

PyMethodDef g_methods[] = {
    method("kernels", kernels, "kernels() -> list[(op, name, dtype, least_capability, handle)]."),
    method("run", run,
           "run(handle, problem, x, w, y, aux, workspace, multiprocessors, device, stream) -> int: 0 or the error."),
    method("workspace_bytes", workspace_bytes, "workspace_bytes(handle, problem, multiprocessors) -> int."),
    method("error_text", error_text, "error_text(code) -> str: the CUDA runtime's words."),
    method("driver", driver, "driver() -> (CUDA version of the driver, 0 without one; of the runtime in this module)."),
    method("struct_sizes", struct_sizes, "struct_sizes() -> (bytes of Conv2d, bytes of Pool2d)."),
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef_Slot g_slots[] = {{0, nullptr}};

PyModuleDef g_module = {
    PyModuleDef_HEAD_INIT, "_CUDA", "CUDA kernels of spatialconv.", 0, g_methods, g_slots, nullptr, nullptr, nullptr,
};

}  // namespace

PyMODINIT_FUNC PyInit__CUDA() { return PyModuleDef_Init(&g_module); }
