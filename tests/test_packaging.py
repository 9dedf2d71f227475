"""The package as users get it: source distribution, wheel, import; failing builds; what the module depends on."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from spatialconv import threads
from spatialconv.backends.extension import loader

SOURCE = Path(__file__).resolve().parents[1]
NOT_SOURCE = shutil.ignore_patterns(
    ".git", "build", "dist", ".venv", "*.egg-info", "__pycache__", "*.so", "_build.json", ".pytest_cache", ".hypothesis"
)
PROBE = """
import importlib.metadata, json, spatialconv
from spatialconv.backends.extension import loader
print(json.dumps({
    "file": spatialconv.__file__,
    "version": importlib.metadata.version("spatialconv"),
    "why": loader.unavailable(),
    "info": loader.build_info(),
    "levels": list(loader.load().levels()) if loader.unavailable() is None else [],
}))
"""


def run(command: list[str], folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {
        key: value for key, value in os.environ.items() if key not in ("CXX", "CXXFLAGS", "SPATIALCONV_REQUIRE_EXT")
    }
    return subprocess.run(command, cwd=folder, env=kept | variables, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source distribution, unpacked: what follows is built from it alone."""
    folder = tmp_path_factory.mktemp("sdist")
    copy = folder / "copy"
    shutil.copytree(SOURCE, copy, ignore=NOT_SOURCE)
    make = "import setuptools.build_meta as backend; backend.build_sdist('..')"
    made = run([sys.executable, "-c", make], copy)
    assert made.returncode == 0, made.stderr
    (archive,) = folder.glob("spatialconv-*.tar.gz")
    with tarfile.open(archive) as tar:
        # Python 3.10 and 3.11 have filters from a late patch on.
        tar.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    return folder / archive.name.removesuffix(".tar.gz")


@pytest.fixture
def source(sdist: Path, tmp_path: Path) -> Path:
    """A copy of the unpacked source distribution that a test may spoil."""
    return Path(shutil.copytree(sdist, tmp_path / "source"))


def wheel_and_probe(source: Path, target: Path, **variables: str) -> tuple[str, dict]:
    """The name of the wheel built from ``source`` and what it says of itself, installed alone in ``target``."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    wheels = target.with_name("wheels")
    built = run(
        [*pip, "wheel", "--no-build-isolation", "--no-deps", "--no-index", "-w", str(wheels), "."], source, **variables
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = wheels.glob("*.whl")
    installed = run([*pip, "install", "--no-deps", "--no-index", "--target", str(target), str(wheel)], target.parent)
    assert installed.returncode == 0, installed.stderr
    probe = run([sys.executable, "-c", PROBE], target.parent, PYTHONPATH=str(target))
    assert probe.returncode == 0, probe.stderr
    answer = json.loads(probe.stdout)
    assert Path(answer["file"]).is_relative_to(target)
    return wheel.name, answer


def test_the_installed_package_has_its_compiled_part() -> None:
    assert loader.unavailable() is None
    assert set(loader.load().levels()) <= set(loader.build_info()["levels"])


def test_kernels_run_on_torchs_threads() -> None:
    assert threads.missing_reason() is None


def test_the_module_needs_neither_torch_nor_a_vendor_library() -> None:
    module = loader.load().__file__
    undefined = run(["nm", "-D", "--undefined-only", module], SOURCE).stdout
    assert "PyLong_AsVoidPtr" in undefined
    foreign = re.compile(r"torch|aten|c10|at::|cblas|[sd]gemm_|dnnl|mkl|GOMP|omp_|cudnn|cublas", re.IGNORECASE)
    assert not foreign.findall(undefined)
    needed = set(
        re.findall(r"NEEDED\S* +(?:Shared library: )?\[?([^\]\s]+)", run(["objdump", "-p", module], SOURCE).stdout)
    )
    assert needed <= {"libc.so.6", "libm.so.6", "libgcc_s.so.1", "libstdc++.so.6", "libpthread.so.0"}


def test_the_source_distribution_holds_every_source(sdist: Path) -> None:
    def sources(root: Path) -> set[str]:
        return {
            str(path.relative_to(root))
            for folder in ("csrc", "spatialconv")
            for path in (root / folder).rglob("*")
            if path.suffix in (".h", ".cpp", ".cu", ".py", ".txt", ".typed", ".j2", ".css", ".js")
        }

    assert sources(sdist) == sources(SOURCE)
    assert not list(sdist.rglob("*.so")) and not list(sdist.rglob("_build.json"))


def test_without_a_compiler_it_installs_and_says_why(source: Path, tmp_path: Path) -> None:
    _, answer = wheel_and_probe(source, tmp_path / "site", CXX="/nonexistent/c++")
    assert answer["info"]["built"] is False
    assert "no C++ compiler: CXX='/nonexistent/c++' was not found" in answer["why"]


def test_a_failed_compilation_installs_and_tells_the_first_error(source: Path, tmp_path: Path) -> None:
    for path in (source / "csrc/cpu").glob("*.cpp"):
        path.unlink()
    (source / "csrc/cpu/broken.cpp").write_text("#error broken for a test\n")
    _, answer = wheel_and_probe(source, tmp_path / "site")
    assert answer["info"]["built"] is False
    assert re.search(r"compiling failed: .*broken\.cpp.*error: .*broken for a test", answer["why"])


def test_a_required_extension_that_cannot_be_built_is_an_error(source: Path) -> None:
    build = [sys.executable, "setup.py", "build_ext"]
    made = run(build, source, CXX="/nonexistent/c++", SPATIALCONV_REQUIRE_EXT="1")
    assert made.returncode != 0
    assert "SPATIALCONV_REQUIRE_EXT=1, and no C++ compiler" in made.stderr


def test_a_failed_build_leaves_no_old_module_behind(source: Path) -> None:
    folder = source / "spatialconv/backends/extension"
    (folder / "_C.abi3.so").write_bytes(b"from an earlier build")
    made = run([sys.executable, "setup.py", "build_ext", "--inplace"], source, CXX="/nonexistent/c++")
    assert made.returncode == 0, made.stderr
    assert not (folder / "_C.abi3.so").exists()
    assert json.loads((folder / "_build.json").read_text())["built"] is False


@pytest.mark.full
def test_source_distribution_to_wheel_to_import(source: Path, tmp_path: Path) -> None:
    name, answer = wheel_and_probe(source, tmp_path / "site", SPATIALCONV_REQUIRE_EXT="1")
    assert "-cp310-abi3-" in name
    assert answer["why"] is None and answer["levels"][0] == "baseline"
    assert answer["info"]["version"] == answer["version"]

    # Code of one instruction-set level must not stand in for code of another: what the linker may merge across objects
    # belongs to the level's own namespace.
    objects = list((source / "build").glob("abi3-*/*.avx*.o"))
    assert objects or "avx2" not in answer["info"]["levels"]
    for path in objects:
        level = path.name.split(".")[1]
        for line in run(["nm", "-C", "--defined-only", str(path)], source).stdout.splitlines():
            kind, symbol = line.split(maxsplit=2)[1:]
            assert kind not in "WVu" or f"spatialconv::{level}::" in symbol, f"{path.name}: {symbol}"
