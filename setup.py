"""Builds the compiled part: writes a build.ninja with flags per file, so that every kernel file is compiled once per
instruction-set level. Needs neither torch nor numpy. A build that fails still installs the Python part and records why,
unless SPATIALCONV_REQUIRE_EXT=1. The CUDA kernels are a module of their own, built where nvcc and a driver are or as
SPATIALCONV_CUDA says (auto, 0, 1); its failure is recorded and costs the rest nothing. Also read from the environment:
CXX, CXXFLAGS, LDFLAGS, CUDACXX, CUDA_HOME, MAX_JOBS."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
PACKAGE = Path("spatialconv/backends/extension")
MODULE = "_C.abi3.so"
CUDA_MODULE = "_CUDA.abi3.so"
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

COMMON = (
    "-std=c++17 -O3 -g0 -fPIC -fvisibility=hidden -fno-exceptions -fno-rtti -fno-math-errno -ffp-contract=fast"
).split()
X86_LEVELS = {
    "baseline": [],
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": ["-march=x86-64-v4", "-mprefer-vector-width=512", "-mf16c", "-mfma"],
}
OTHER_LEVELS: dict[str, list[str]] = {"baseline": []}


def load_alone(path: Path):
    """The module in a file of the package, without importing the package, which needs torch."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


cuda_build = load_alone(ROOT / PACKAGE / "cuda_build.py")


class BuildFailure(Exception):
    """Why a compiled part cannot be built, in one sentence for the user."""


def compiler_command() -> list[str]:
    """The C++ compiler, from CXX or the first of the usual names on PATH."""
    if asked := os.environ.get("CXX"):
        command = shlex.split(asked)
        if shutil.which(command[0]) is None:
            raise BuildFailure(f"no C++ compiler: CXX={asked!r} was not found")
        return command
    for name in ("c++", "g++", "clang++"):
        if shutil.which(name):
            return [name]
    raise BuildFailure(
        "no C++ compiler was found on PATH (Debian, Ubuntu: apt install g++; Fedora: dnf install gcc-c++)"
    )


def ninja_command() -> str:
    with contextlib.suppress(ModuleNotFoundError):
        import ninja

        return str(Path(ninja.BIN_DIR) / "ninja")
    if found := shutil.which("ninja"):
        return found
    raise BuildFailure("ninja is missing: pip install ninja")


def first_line_of(command: list[str]) -> str:
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return (answer.stdout or answer.stderr).strip().partition("\n")[0]


def python_include() -> list[str]:
    folders = list(dict.fromkeys(sysconfig.get_path(name) for name in ("include", "platinclude")))
    if not any((Path(folder) / "Python.h").exists() for folder in folders):
        raise BuildFailure(
            f"Python.h is not in {folders[0]} (Debian, Ubuntu: apt install python3-dev; "
            "Fedora: dnf install python3-devel)"
        )
    return [f"-I{folder}" for folder in folders]


def ninja_word(path: str) -> str:
    return re.sub(r"([$ :])", r"$\1", path)


def ninja_line(words: list[str]) -> str:
    return " ".join(shlex.quote(word) for word in words).replace("$", "$$")


class Plan:
    """Everything the build is made of: compiler, flags and where the objects go."""

    def __init__(self) -> None:
        if sys.platform == "win32":
            raise BuildFailure("the compiled part needs GCC or clang, which a Windows build of Python does not use")
        if FREE_THREADED:
            raise BuildFailure(
                "free-threaded builds of CPython have no stable ABI, which the compiled part is built for"
            )
        self.compiler = compiler_command()
        self.version = first_line_of([*self.compiler, "--version"])
        target = first_line_of([*self.compiler, "-dumpmachine"])
        self.levels = X86_LEVELS if target.startswith("x86_64") else OTHER_LEVELS
        self.common = [*COMMON, *shlex.split(os.environ.get("CXXFLAGS", ""))]
        self.link = ["-shared", *shlex.split(os.environ.get("LDFLAGS", ""))]
        self.link += ["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else ["-Wl,--as-needed"]
        self.include = python_include()
        settings = [self.compiler, self.version, target, self.levels, self.common, self.link]
        self.folder = Path("build") / f"abi3-{hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:12]}"

    def flags(self, level: str) -> list[str]:
        return [*self.common, *self.levels[level], f"-DSPATIALCONV_ISA={level}"]

    def ninja_text(self) -> str:
        compiler = ninja_line(self.compiler)
        lines = [
            f"builddir = {ninja_word(str(self.folder))}",
            "rule compile",
            f"  command = {compiler} $flags -MMD -MF $out.d -c $in -o $out",
            "  depfile = $out.d",
            "  deps = gcc",
            "  description = compile $out",
            "rule link",
            f"  command = {compiler} $in {ninja_line(self.link)} -o $out",
            "  description = link $out",
        ]
        objects = []

        def compile_rule(source: Path, level: str, flags: list[str]) -> None:
            target = ninja_word(str(self.folder / f"{source.stem}.{level}.o"))
            objects.append(target)
            lines.extend((f"build {target}: compile {ninja_word(str(source))}", f"  flags = {ninja_line(flags)}"))

        for source in sorted((ROOT / "csrc/cpu").glob("*.cpp")):
            for level in self.levels:
                compile_rule(source.relative_to(ROOT), level, self.flags(level))
        module_flags = [*self.common, "-DPy_LIMITED_API=0x030A0000", *self.include]
        compile_rule(Path("csrc/bindings/module.cpp"), "module", module_flags)
        lines.append(f"build {ninja_word(str(self.folder / MODULE))}: link {' '.join(objects)}")
        return "\n".join(lines) + "\n"

    def build(self) -> Path:
        """The module; raises BuildFailure with the compiler's first error."""
        return run_ninja(self.folder, self.ninja_text(), MODULE)


class CudaPlan:
    """The same of the CUDA module."""

    def __init__(self) -> None:
        if reason := cuda_build.reason_against():
            raise BuildFailure(reason)
        if FREE_THREADED:
            raise BuildFailure("free-threaded builds of CPython have no stable ABI, which the CUDA part is built for")
        self.compiler = cuda_build.nvcc_command()
        self.version = release_of(self.compiler)
        self.sources = {path: cuda_build.flags(path) for path in cuda_build.sources(ROOT)}
        self.sources[Path("csrc/bindings/cuda_module.cpp")] = cuda_build.module_flags(python_include())
        settings = [self.compiler, self.version, list(self.sources.values()), cuda_build.LINK]
        self.folder = Path("build") / f"cuda-{hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:12]}"

    def ninja_text(self) -> str:
        compiler = ninja_line(self.compiler)
        lines = [
            f"builddir = {ninja_word(str(self.folder))}",
            "rule compile",
            f"  command = {compiler} $flags -MD -MF $out.d -c $in -o $out",
            "  depfile = $out.d",
            "  deps = gcc",
            "  description = compile $out",
            "rule link",
            f"  command = {compiler} {ninja_line(cuda_build.LINK)} $in -o $out",
            "  description = link $out",
        ]
        objects = []
        for source, flags in self.sources.items():
            objects.append(target := ninja_word(str(self.folder / f"{source.stem}.o")))
            lines.extend((f"build {target}: compile {ninja_word(str(source))}", f"  flags = {ninja_line(flags)}"))
        lines.append(f"build {ninja_word(str(self.folder / CUDA_MODULE))}: link {' '.join(objects)}")
        return "\n".join(lines) + "\n"

    def build(self) -> Path:
        """The module; raises BuildFailure with the compiler's first error."""
        return run_ninja(self.folder, self.ninja_text(), CUDA_MODULE)


def release_of(nvcc: list[str]) -> str:
    told = subprocess.run([*nvcc, "--version"], capture_output=True, text=True, check=False).stdout
    return next((line for line in told.splitlines() if "release" in line), "nvcc of unknown version")


def run_ninja(folder: Path, text: str, module: str) -> Path:
    import fcntl

    (ROOT / folder).mkdir(parents=True, exist_ok=True)
    script = ROOT / folder / "build.ninja"
    jobs = os.environ.get("MAX_JOBS") or str(min(os.cpu_count() or 1, 8))
    with open(ROOT / folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        script.write_text(text)
        command = [ninja_command(), "-C", str(ROOT), "-f", str(script), "-j", jobs]
        answer = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    print(answer.stdout, file=sys.stderr)
    if answer.returncode:
        told = answer.stdout.splitlines()
        error = next(
            (line for line in told if re.search(r"(error|fatal) *:", line)), told[-1] if told else "ninja said nothing"
        )
        raise BuildFailure(f"compiling failed: {error.strip()}")
    return ROOT / folder / module


def finish(record: dict, plan: Plan | CudaPlan, target: Path) -> None:
    """Builds a module and puts it in place in one step: a process that has the old one mapped keeps it."""
    module = plan.build()
    new = target.with_suffix(".new")
    shutil.copyfile(module, new)
    os.replace(new, target)
    record["built"] = True


def give_up(record: dict, failure: BuildFailure, target: Path) -> None:
    """Leaves no old module behind: no later import finds one that the record beside it does not describe."""
    record["reason"] = str(failure)
    target.unlink(missing_ok=True)


class BuildExtension(build_ext):
    """Builds the modules and writes them, with the record of the build, where Python will look for them."""

    def run(self) -> None:
        in_tree = self.inplace or getattr(self, "editable_mode", False)
        folder = (ROOT if in_tree else Path(self.build_lib)) / PACKAGE
        folder.mkdir(parents=True, exist_ok=True)
        record = {"built": False, "reason": None, "version": self.distribution.get_version()}
        cuda = {"built": False, "reason": None}
        try:
            plan = Plan()
            record |= {
                "compiler": shlex.join(plan.compiler),
                "compiler_version": plan.version,
                "levels": list(plan.levels),
                "flags": {level: shlex.join(plan.flags(level)) for level in plan.levels},
            }
            finish(record, plan, folder / MODULE)
        except BuildFailure as failure:
            if os.environ.get("SPATIALCONV_REQUIRE_EXT") == "1":
                raise SystemExit(f"spatialconv: SPATIALCONV_REQUIRE_EXT=1, and {failure}") from None
            give_up(record, failure, folder / MODULE)
            print(f"spatialconv: WARNING: the compiled part was not built: {failure}", file=sys.stderr)
        try:
            plan = CudaPlan()
            cuda |= {
                "nvcc": plan.version,
                "flags": {path.name: shlex.join(flags) for path, flags in plan.sources.items()},
            }
            finish(cuda, plan, folder / CUDA_MODULE)
        except BuildFailure as failure:
            demanded = os.environ.get("SPATIALCONV_CUDA") == "1"
            if demanded and os.environ.get("SPATIALCONV_REQUIRE_EXT") == "1":
                raise SystemExit(f"spatialconv: SPATIALCONV_CUDA=1, and {failure}") from None
            give_up(cuda, failure, folder / CUDA_MODULE)
            print(f"spatialconv: the CUDA part was not built: {failure}", file=sys.stderr)
        (folder / "_build.json").write_text(json.dumps(record | {"cuda": cuda}, indent=1) + "\n")

    def get_source_files(self) -> list[str]:
        return sorted(
            str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*") if path.suffix in (".h", ".cpp", ".cu")
        )

    def get_outputs(self) -> list[str]:
        folder = Path(self.build_lib) / PACKAGE
        return [str(path) for name in (MODULE, CUDA_MODULE, "_build.json") if (path := folder / name).exists()]

    def get_output_mapping(self) -> dict[str, str]:
        return {}


setup(
    ext_modules=[Extension("spatialconv.backends.extension._C", sources=[], py_limited_api=not FREE_THREADED)],
    cmdclass={"build_ext": BuildExtension},
    options={} if FREE_THREADED else {"bdist_wheel": {"py_limited_api": "cp310"}},
)
