"""How nvcc compiles the CUDA kernels: sources, flags, and what it says of each kernel's registers.

Read by ``setup.py``, which loads this file alone and before anything is installed, by the test that compiles every
source and by the benchmarks' compile report. Standard library only.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

COMMON = ["-std=c++17", "-O3", "-Xcompiler=-fPIC,-fvisibility=hidden", "-Xptxas=-warn-spills"]
HOPPER = "arch=compute_90a,code=sm_90a"
# Machine code for sm_80 to sm_89 and for sm_90, and PTX that a driver compiles for whatever comes later.
EVERYWHERE = ["arch=compute_80,code=sm_80", HOPPER, "arch=compute_80,code=compute_80"]
LINK = ["-shared", "-cudart=static", "-Xlinker=--exclude-libs,ALL", "-Xlinker=--as-needed"]


def nvcc_command(environment: Mapping[str, str] = os.environ) -> list[str] | None:
    """nvcc from CUDACXX, PATH, CUDA_HOME or the usual folder; None where there is none."""
    if asked := environment.get("CUDACXX"):
        command = shlex.split(asked)
        return command if shutil.which(command[0]) else None
    home = environment.get("CUDA_HOME") or environment.get("CUDA_PATH") or "/usr/local/cuda"
    found = shutil.which("nvcc", path=environment.get("PATH")) or shutil.which("nvcc", path=f"{home}/bin")
    return [found] if found else None


def driver_present() -> bool:
    """Whether this machine has a CUDA driver."""
    if Path("/proc/driver/nvidia/version").exists():
        return True
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def reason_against(environment: Mapping[str, str] = os.environ) -> str | None:
    """Why the CUDA part is not to be built here, or None. ``SPATIALCONV_CUDA`` is 'auto', '0' or '1'."""
    asked = environment.get("SPATIALCONV_CUDA", "").strip() or "auto"
    if asked not in ("auto", "0", "1"):
        return f"SPATIALCONV_CUDA={asked!r} is none of auto, 0, 1"
    if asked == "0":
        return "SPATIALCONV_CUDA=0 at install"
    if nvcc_command(environment) is None:
        return "nvcc was not found (it is looked for in CUDACXX, PATH, CUDA_HOME and /usr/local/cuda)"
    if asked == "auto" and not driver_present():
        return "this machine has no CUDA driver; SPATIALCONV_CUDA=1 at install builds the kernels all the same"
    return None


def sources(root: Path) -> list[Path]:
    """The kernel files below a source tree, relative to it."""
    return sorted(path.relative_to(root) for path in (root / "csrc/cuda").glob("*.cu"))


def targets_of(source: Path) -> list[str]:
    """What a file is compiled for; what only sm_90a has stands in files whose names end so."""
    return [HOPPER] if source.stem.endswith("_sm90a") else EVERYWHERE


def flags(source: Path, targets: list[str] | None = None) -> list[str]:
    """nvcc's flags for a file, for all of its targets or for some."""
    return [*COMMON, *(f"-gencode={target}" for target in (targets or targets_of(source)))]


def module_flags(python_include: list[str]) -> list[str]:
    """nvcc's flags for the Python module, which holds no kernel."""
    return ["-x=cu", *COMMON, f"-gencode={EVERYWHERE[0]}", "-DPy_LIMITED_API=0x030A0000", *python_include]


def compile_logs(root: Path, folder: Path, files: Sequence[Path] | None = None, jobs: int = 2) -> dict[Path, str]:
    """What nvcc and ptxas say of kernel files (all where None), compiled to machine code for all of their targets.

    Nothing is compiled again below ``folder`` while the file, what it includes, the flags and nvcc are the same.

    Raises:
        RuntimeError: With what nvcc says where it fails.
    """
    with ThreadPoolExecutor(jobs) as pool:
        files = sources(root) if files is None else files
        return dict(zip(files, pool.map(lambda source: _compile_log(root, folder, source), files), strict=True))


def _command(root: Path, source: Path) -> list[str]:
    targets = [target for target in targets_of(source) if "code=sm_" in target]
    return [*nvcc_command(), *flags(source, targets), "-Xptxas=-v", "-c", str(root / source)]


def compiled_object(root: Path, folder: Path, source: Path) -> Path:
    """Where ``compile_logs`` leaves the machine code of a kernel file."""
    return folder / f"{source.stem}-{hashlib.sha256(' '.join(_command(root, source)).encode()).hexdigest()[:12]}.o"


def _compile_log(root: Path, folder: Path, source: Path) -> str:
    command, stem = _command(root, source), compiled_object(root, folder, source).with_suffix("")
    log, read = stem.with_suffix(".log"), stem.with_suffix(".d")
    if log.exists() and read.exists():
        made = log.stat().st_mtime
        included = re.sub(r"\\\n", " ", read.read_text()).partition(":")[2].split()
        if all(Path(path).exists() and Path(path).stat().st_mtime < made for path in included):
            return log.read_text()
    folder.mkdir(parents=True, exist_ok=True)
    command += ["-MD", "-MF", str(read), "-o", str(stem.with_suffix(".o"))]
    answer = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if answer.returncode:
        raise RuntimeError(f"nvcc fails on {source}:\n{answer.stdout}")
    log.write_text(answer.stdout)
    return answer.stdout


@dataclass(frozen=True)
class Usage:
    """What ptxas says of one kernel compiled for one architecture."""

    kernel: str
    architecture: str
    registers: int
    shared_bytes: int
    stack_bytes: int
    spill_bytes: int


_ENTRY = re.compile(r"Compiling entry function '(\S+)' for '(sm_\w+)'")
_FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")


def usages(log: str) -> list[Usage]:
    """The kernels in what nvcc prints with ``-Xptxas=-v``; ``shared_bytes`` are the static ones."""
    found, kernel, architecture, frame = [], "", "", (0, 0)
    for line in log.splitlines():
        if entry := _ENTRY.search(line):
            kernel, architecture = entry.groups()
            frame = (0, 0)
        elif stack := _FRAME.search(line):
            frame = (int(stack[1]), int(stack[2]) + int(stack[3]))
        elif kernel and (used := _USED.search(line)):
            shared = _SHARED.search(line)
            found.append(Usage(kernel, architecture, int(used[1]), int(shared[1]) if shared else 0, *frame))
            kernel = ""
    return found


# C7519 tells of a warpgroup.arrive that ptxas adds by itself, which costs nothing where the fence stands already.
_HARMLESS = ("C7519",)


def performance_warnings(log: str) -> list[str]:
    """ptxas's remarks on what makes a kernel slow: spills, serialised wgmma and their like."""
    remarks = [line.strip() for line in log.splitlines() if re.search(r"\(C7\d\d\d\)|warning.*[Ss]pill", line)]
    return [line for line in remarks if not any(code in line for code in _HARMLESS)]
