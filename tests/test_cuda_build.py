"""Every CUDA source compiles for every architecture, without spills and without what ptxas calls slow.

Needs nvcc, no device. What was compiled once is kept in the package's cache folder until a source changes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from spatialconv import settings
from spatialconv.backends.extension import cuda_build

pytestmark = pytest.mark.xdist_group("nvcc")
ROOT = Path(__file__).resolve().parents[1]
SOURCES = cuda_build.sources(ROOT)
LOG = """
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z4slowPf' for 'sm_80'
ptxas info    : Function properties for _Z4slowPf
    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 32 registers, used 1 barriers, 16 bytes stack, 400 bytes smem, 360 bytes cmem[0]
ptxas info    : Compiling entry function '_Z4fastPf' for 'sm_90a'
ptxas info    : Function properties for _Z4fastPf
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 168 registers, used 1 barriers, 360 bytes cmem[0]
"""


# What compiles fastest; the others take up to half a minute each, and are compiled where everything is asked for.
QUICK = "conv_simt_forward.cu"


def cases() -> list:
    return [
        pytest.param(one, id=one.name, marks=[] if one.name == QUICK else pytest.mark.full(cost=2)) for one in SOURCES
    ]


@pytest.mark.parametrize("source", cases())
def test_a_source_compiles_without_spills_and_slow_code(source: Path, request: pytest.FixtureRequest) -> None:
    if cuda_build.nvcc_command() is None:
        pytest.skip("nvcc was not found: the CUDA sources are not compiled")
    log = cuda_build.compile_logs(ROOT, settings.cache_folder() / "nvcc", asked_for(request))[source]
    assert cuda_build.performance_warnings(log) == []
    found = cuda_build.usages(log)
    spilled = [usage for usage in found if usage.spill_bytes or usage.registers > 255]
    assert spilled == []
    architectures = {"sm_90a"} if source.stem.endswith("_sm90a") else {"sm_80", "sm_90a"}
    assert {usage.architecture for usage in found} in (architectures, set())
    assert found or source.name == "tables.cu"
    if source.stem.startswith("conv_wgmma"):
        # Its warpgroups share anew what a block has at launch, which is to the register what they ask for.
        persistent = [usage for usage in found if "correlate" in usage.kernel or "grad_weight" in usage.kernel]
        assert persistent and {usage.registers for usage in persistent} == {168}


def asked_for(request: pytest.FixtureRequest) -> list[Path]:
    """The sources of this run's tests, so that those that are compiled are compiled together."""
    name = request.node.originalname
    return [item.callspec.params["source"] for item in request.session.items if item.originalname == name]


def test_what_ptxas_says_is_read() -> None:
    slow, fast = cuda_build.usages(LOG)
    assert slow == cuda_build.Usage("_Z4slowPf", "sm_80", 32, 400, 16, 20)
    assert fast == cuda_build.Usage("_Z4fastPf", "sm_90a", 168, 0, 0, 0)


def test_slow_code_is_found() -> None:
    serialised = "ptxas info : (C7514) Potential Performance Loss: wgmma.mma_async instructions are serialized"
    spill = "ptxas warning : Registers are spilled to local memory in function '_Z1kPf', 8 bytes spill stores"
    assert cuda_build.performance_warnings(f"{LOG}\n{serialised}\n{spill}") == [serialised, spill]
    harmless = "ptxas info : (C7519) Potential Performance Loss: wgmma.mma_async: warpgroup.arrive is injected"
    assert cuda_build.performance_warnings(harmless) == []


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"SPATIALCONV_CUDA": "0"}, "SPATIALCONV_CUDA=0 at install"),
        ({"SPATIALCONV_CUDA": "yes"}, "none of auto, 0, 1"),
        ({"SPATIALCONV_CUDA": "1", "CUDACXX": "/nonexistent/nvcc"}, "nvcc was not found"),
    ],
)
def test_the_environment_decides_what_is_built(environment: dict[str, str], reason: str) -> None:
    assert reason in cuda_build.reason_against(environment)


def test_without_a_driver_the_kernels_are_built_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_build, "nvcc_command", lambda environment: ["nvcc"])
    monkeypatch.setattr(cuda_build, "driver_present", lambda: False)
    assert "no CUDA driver" in cuda_build.reason_against({})
    assert cuda_build.reason_against({"SPATIALCONV_CUDA": "1"}) is None
    monkeypatch.setattr(cuda_build, "driver_present", lambda: True)
    assert cuda_build.reason_against({"SPATIALCONV_CUDA": "auto"}) is None


def test_what_only_hopper_has_is_compiled_for_hopper_alone() -> None:
    for source in SOURCES:
        targets = cuda_build.targets_of(source)
        assert (targets == [cuda_build.HOPPER]) == source.stem.endswith("_sm90a")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what setup.py reads, with one CUDA source, which a test writes."""
    for name in ("csrc", "spatialconv"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.so", "_build.json", "*.cu"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def build(tree: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A build of the CUDA part alone: for the CPU part there is no compiler."""
    environment = os.environ | {"CXX": "/nonexistent/c++", "SPATIALCONV_CUDA": "1"} | variables
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)


def recorded(tree: Path) -> dict:
    return json.loads((tree / "spatialconv/backends/extension/_build.json").read_text())


def test_without_nvcc_the_record_says_so_and_no_old_module_stays(tree: Path) -> None:
    module = tree / "spatialconv/backends/extension/_CUDA.abi3.so"
    module.write_bytes(b"from an earlier build")
    made = build(tree, CUDACXX="/nonexistent/nvcc")
    assert made.returncode == 0, made.stderr
    assert recorded(tree)["cuda"]["built"] is False
    assert "nvcc was not found" in recorded(tree)["cuda"]["reason"]
    assert "no C++ compiler" in recorded(tree)["reason"]
    assert not module.exists()


def test_a_failing_source_is_recorded_with_the_first_error(tree: Path) -> None:
    if cuda_build.nvcc_command() is None:
        pytest.skip("nvcc was not found: no CUDA source is compiled")
    (tree / "csrc/cuda/tables.cu").write_text("#error broken for a test\n")
    made = build(tree)
    assert made.returncode == 0, made.stderr
    assert recorded(tree)["cuda"]["built"] is False
    assert "broken for a test" in recorded(tree)["cuda"]["reason"]
    assert "release" in recorded(tree)["cuda"]["nvcc"]
