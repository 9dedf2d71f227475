"""Builds the compiled part: writes a build.ninja with flags per file, so that every kernel file is compiled once per
instruction-set level. Needs neither torch nor numpy. A build that fails still installs the Python part and records why,
unless SPATIALCONV_REQUIRE_EXT=1. Also read from the environment: CXX, CXXFLAGS, LDFLAGS, MAX_JOBS."""

from __future__ import annotations

import contextlib
import hashlib
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


class BuildFailure(Exception):
    """Why the compiled part cannot be built, in one sentence for the user."""


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
        """Runs ninja and returns the module; raises BuildFailure with the compiler's first error."""
        import fcntl

        (ROOT / self.folder).mkdir(parents=True, exist_ok=True)
        script = ROOT / self.folder / "build.ninja"
        jobs = os.environ.get("MAX_JOBS") or str(min(os.cpu_count() or 1, 8))
        with open(ROOT / self.folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            script.write_text(self.ninja_text())
            command = [ninja_command(), "-C", str(ROOT), "-f", str(script), "-j", jobs]
            answer = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        print(answer.stdout, file=sys.stderr)
        if answer.returncode:
            told = answer.stdout.splitlines()
            error = next((line for line in told if "error:" in line), told[-1] if told else "ninja said nothing")
            raise BuildFailure(f"compiling failed: {error.strip()}")
        return ROOT / self.folder / MODULE


class BuildExtension(build_ext):
    """Builds the module and writes it, with the record of the build, where Python will look for it."""

    def run(self) -> None:
        in_tree = self.inplace or getattr(self, "editable_mode", False)
        folder = (ROOT if in_tree else Path(self.build_lib)) / PACKAGE
        folder.mkdir(parents=True, exist_ok=True)
        record = {"built": False, "reason": None, "version": self.distribution.get_version()}
        module = None
        try:
            plan = Plan()
            record |= {
                "compiler": shlex.join(plan.compiler),
                "compiler_version": plan.version,
                "levels": list(plan.levels),
                "flags": {level: shlex.join(plan.flags(level)) for level in plan.levels},
            }
            module = plan.build()
            record["built"] = True
        except BuildFailure as failure:
            if os.environ.get("SPATIALCONV_REQUIRE_EXT") == "1":
                raise SystemExit(f"spatialconv: SPATIALCONV_REQUIRE_EXT=1, and {failure}") from None
            record["reason"] = str(failure)
            print(f"spatialconv: WARNING: the compiled part was not built: {failure}", file=sys.stderr)
        # Replaced in one step and never left behind: a process that has the old module mapped keeps it, and no later
        # import finds a module that the record beside it does not describe.
        target = folder / MODULE
        if module is None:
            target.unlink(missing_ok=True)
        else:
            shutil.copyfile(module, folder / "_C.new")
            os.replace(folder / "_C.new", target)
        (folder / "_build.json").write_text(json.dumps(record, indent=1) + "\n")

    def get_source_files(self) -> list[str]:
        return sorted(
            str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*") if path.suffix in (".h", ".cpp")
        )

    def get_outputs(self) -> list[str]:
        folder = Path(self.build_lib) / PACKAGE
        return [str(path) for name in (MODULE, "_build.json") if (path := folder / name).exists()]

    def get_output_mapping(self) -> dict[str, str]:
        return {}


setup(
    ext_modules=[Extension("spatialconv.backends.extension._C", sources=[], py_limited_api=not FREE_THREADED)],
    cmdclass={"build_ext": BuildExtension},
    options={} if FREE_THREADED else {"bdist_wheel": {"py_limited_api": "cp310"}},
)
