// The Python module of the CPU kernels.
#include "arguments.h"
#include "call_key.h"
#include "processor.h"

#include <atomic>
#include <cstdint>
#include <cstring>

#include "../common/parallel.h"
#include "../common/problem.h"
#include "../cpu/dispatch.h"

namespace spatialconv {

std::atomic<ParallelFor> g_parallel_for{nullptr};

}  // namespace spatialconv

namespace {

namespace bindings = spatialconv::bindings;
using spatialconv::Buffers;
using spatialconv::DType;
using spatialconv::IsaLevel;
using spatialconv::KernelEntry;
using spatialconv::KernelTable;
using spatialconv::bindings::address;
using spatialconv::bindings::append;
using spatialconv::bindings::dtype_name;
using spatialconv::bindings::method;
using spatialconv::bindings::struct_sizes;
using spatialconv::bindings::takes;

// Levels this CPU can run, weakest first. Returns how many were written.
int runnable_levels(const IsaLevel* (&out)[3]) {
  int count = 0;
  out[count++] = &spatialconv::baseline::isa_level;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (bindings::runs_avx2()) out[count++] = &spatialconv::avx2::isa_level;
  if (bindings::runs_avx512()) out[count++] = &spatialconv::avx512::isa_level;
#endif
  return count;
}

PyObject* levels(PyObject*, PyObject* const*, Py_ssize_t count) {
  if (!takes("levels", 0, count)) return nullptr;
  const IsaLevel* runnable[3];
  const int n = runnable_levels(runnable);
  PyObject* names = PyTuple_New(n);
  if (names == nullptr) return nullptr;
  for (int i = 0; i < n; ++i) {
    PyObject* name = PyUnicode_FromString(runnable[i]->name);
    if (name == nullptr || PyTuple_SetItem(names, i, name) != 0) {
      Py_DECREF(names);
      return nullptr;
    }
  }
  return names;
}

// The level of that name, or null with Python's error set.
const IsaLevel* level_named(PyObject* name) {
  const char* wanted = PyUnicode_AsUTF8AndSize(name, nullptr);
  if (wanted == nullptr) return nullptr;
  const IsaLevel* runnable[3];
  const int n = runnable_levels(runnable);
  for (int i = 0; i < n; ++i) {
    if (std::strcmp(runnable[i]->name, wanted) == 0) return runnable[i];
  }
  PyErr_Format(PyExc_ValueError, "this CPU or this build has no instruction-set level '%s'", wanted);
  return nullptr;
}

PyObject* kernels(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (!takes("kernels", 1, count)) return nullptr;
  const IsaLevel* level = level_named(args[0]);
  PyObject* rows = level == nullptr ? nullptr : PyList_New(0);
  if (rows == nullptr) return nullptr;
  for (int64_t t = 0; t < level->count; ++t) {
    const KernelTable& table = *level->tables[t];
    for (int64_t k = 0; k < table.count; ++k) {
      const KernelEntry& entry = table.entries[k];
      PyObject* row = Py_BuildValue("(sssN)", entry.op, entry.name, dtype_name(entry.dtype),
                                    PyLong_FromVoidPtr(const_cast<KernelEntry*>(&entry)));
      if (!append(rows, row)) {
        Py_DECREF(rows);
        return nullptr;
      }
    }
  }
  return rows;
}

PyObject* dots(PyObject*, PyObject* const*, Py_ssize_t count) {
  if (!takes("dots", 0, count)) return nullptr;
  bool amx = false, avx512 = false;
#if defined(__x86_64__)
  __builtin_cpu_init();
  amx = bindings::runs_amx_bf16();
  avx512 = bindings::runs_avx512_bf16();
#endif
  if (amx) return avx512 ? Py_BuildValue("(ss)", "amx_bf16", "avx512_bf16") : Py_BuildValue("(s)", "amx_bf16");
  return avx512 ? Py_BuildValue("(s)", "avx512_bf16") : PyTuple_New(0);
}

PyObject* multiply_adds(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (!takes("multiply_adds", 3, count)) return nullptr;
  const IsaLevel* level = level_named(args[0]);
  if (level == nullptr) return nullptr;
  const char* dtype = PyUnicode_AsUTF8AndSize(args[1], nullptr);
  const int64_t rounds = PyLong_AsLongLong(args[2]);
  if (PyErr_Occurred() != nullptr) return nullptr;
  int64_t operations;
  Py_BEGIN_ALLOW_THREADS;
  operations = level->multiply_adds(std::strcmp(dtype, "f64") == 0 ? DType::f64 : DType::f32, rounds);
  Py_END_ALLOW_THREADS;
  return PyLong_FromLongLong(operations);
}

PyObject* run(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (!takes("run", 9, count)) return nullptr;
  const KernelEntry* entry = address<const KernelEntry>(args[0]);
  const void* problem = address<const void>(args[1]);
  Buffers buffers;
  buffers.x = address<void>(args[2]);
  buffers.w = address<void>(args[3]);
  buffers.y = address<void>(args[4]);
  buffers.aux = address<void>(args[5]);
  buffers.workspace = address<void>(args[6]);
  buffers.threads = PyLong_AsLongLong(args[7]);
  buffers.packed = PyLong_AsLongLong(args[8]);
  if (PyErr_Occurred() != nullptr) return nullptr;
  int32_t rc;
  Py_BEGIN_ALLOW_THREADS;
  rc = entry->run(problem, buffers);
  Py_END_ALLOW_THREADS;
  return PyLong_FromLong(rc);
}

PyObject* workspace_bytes(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (!takes("workspace_bytes", 3, count)) return nullptr;
  const KernelEntry* entry = address<const KernelEntry>(args[0]);
  const void* problem = address<const void>(args[1]);
  const int64_t threads = PyLong_AsLongLong(args[2]);
  if (PyErr_Occurred() != nullptr) return nullptr;
  return PyLong_FromLongLong(entry->workspace == nullptr ? 0 : entry->workspace(problem, threads));
}

PyObject* packed_bytes(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (!takes("packed_bytes", 2, count)) return nullptr;
  const KernelEntry* entry = address<const KernelEntry>(args[0]);
  const void* problem = address<const void>(args[1]);
  if (PyErr_Occurred() != nullptr) return nullptr;
  return PyLong_FromLongLong(entry->packed_bytes == nullptr ? 0 : entry->packed_bytes(problem));
}

PyObject* pack(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (!takes("pack", 5, count)) return nullptr;
  const KernelEntry* entry = address<const KernelEntry>(args[0]);
  const void* problem = address<const void>(args[1]);
  Buffers buffers{};
  buffers.w = address<void>(args[2]);
  buffers.workspace = address<void>(args[3]);
  buffers.threads = PyLong_AsLongLong(args[4]);
  if (PyErr_Occurred() != nullptr) return nullptr;
  if (entry->pack == nullptr) {
    PyErr_Format(PyExc_ValueError, "%s:%s takes no packed weights", entry->op, entry->name);
    return nullptr;
  }
  int32_t rc;
  Py_BEGIN_ALLOW_THREADS;
  rc = entry->pack(problem, buffers);
  Py_END_ALLOW_THREADS;
  return PyLong_FromLong(rc);
}

PyObject* set_parallel_for(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (!takes("set_parallel_for", 1, count)) return nullptr;
  void* function = PyLong_AsVoidPtr(args[0]);
  if (PyErr_Occurred() != nullptr) return nullptr;
  spatialconv::g_parallel_for.store(reinterpret_cast<spatialconv::ParallelFor>(function), std::memory_order_release);
  Py_RETURN_NONE;
}

PyMethodDef g_methods[] = {
    method("levels", levels, "levels() -> tuple[str, ...]: instruction-set levels this CPU can run, weakest first."),
    method("kernels", kernels, "kernels(level) -> list[(op, name, dtype, handle)]."),
    method("dots", dots,
           "dots() -> tuple[str, ...]: the instruction sets of bfloat16 pairs that processor and system offer."),
    method("run", run,
           "run(handle, problem, x, w, y, aux, workspace, threads, packed) -> int: the thread pool's code."),
    method("workspace_bytes", workspace_bytes, "workspace_bytes(handle, problem, threads) -> int."),
    method("packed_bytes", packed_bytes, "packed_bytes(handle, problem) -> int, 0 where weights are read as they are."),
    method("pack", pack, "pack(handle, problem, w, out, threads) -> int: the thread pool's code."),
    method("multiply_adds", multiply_adds,
           "multiply_adds(level, 'f32' or 'f64', rounds) -> int: the operations of so many rounds of multiply-adds."),
    method("set_parallel_for", set_parallel_for, "set_parallel_for(address): torch_parallel_for; 0 runs serially."),
    method("watch", bindings::watch,
           "watch(Tensor, Parameter, strided, observers, forward_ad, surroundings, precision, its arguments, local,"
           " elsewhere): what call_key asks."),
    method("call_key", bindings::call_key,
           "call_key(op, input, weight, bias, options, flags, backend) -> tuple, or None off the short way."),
    method("struct_sizes", struct_sizes, "struct_sizes() -> (bytes of Conv2d, bytes of Pool2d)."),
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef_Slot g_slots[] = {{0, nullptr}};

PyModuleDef g_module = {
    PyModuleDef_HEAD_INIT, "_C", "Compiled kernels of spatialconv.", 0, g_methods, g_slots, nullptr, nullptr, nullptr,
};

}  // namespace

PyMODINIT_FUNC PyInit__C() { return PyModuleDef_Init(&g_module); }
