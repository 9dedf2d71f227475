"""Compiles shipped kernels for GPUs that need not be here, and reads from the machine code what decides their speed.

A launch that spills, loads element by element or misses the tensor cores gives the right result several times too
slowly and says nothing. Each module of kernels lists in ``shipped()`` what it launches as ``Variant``s and what each is
meant to reach; ``problems`` names every way in which the machine code misses that. Reports are kept on disk.

    echo '{"targets": ["sm_90"], "names": null}' | python -m spatialconv.backends.triton.ahead
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from ... import settings
from . import launch, machine_code

# Of a lane of AMD's waves, twice as wide, a tile asks for half as much, and no instruction copies asynchronously.
_NVIDIA_ALONE = {"async_copy", "vector16"}
EXPECTATIONS = frozenset({"tensor_core", "warpgroup", *_NVIDIA_ALONE})
# Shared memory that one block can have, in bytes.
TARGETS = {"sm_80": 166912, "sm_90": 232448, "gfx942": 65536}
_TRADED_BYTES = 8


@dataclass(frozen=True)
class Variant:
    """One compilation of a kernel, as a launch makes it.

    ``signature``: the type of each argument that is not in ``constexprs``, as Triton writes it ('*bf16', 'i32').
    ``aligned``: the arguments whose value Triton would see to be a multiple of 16. ``expects``: of ``EXPECTATIONS``;
    'vector16' means that most loads of global memory move 16 bytes; that and 'async_copy' are asked of NVIDIA's code
    alone. ``targets``: where it is launched at all.
    """

    name: str
    function: object
    signature: Mapping[str, str]
    constexprs: Mapping[str, object]
    aligned: Iterable[str] = ()
    num_warps: int = 4
    num_stages: int = 3
    expects: Iterable[str] = ()
    targets: Iterable[str] = tuple(TARGETS)

    def __post_init__(self) -> None:
        unknown = set(self.expects) - EXPECTATIONS
        if unknown:
            raise ValueError(f"{self.name}: expects: expected words of {sorted(EXPECTATIONS)}, got {sorted(unknown)}")
        names = set(self.function.arg_names)
        named = {*self.signature, *self.constexprs}
        if named != names or not set(self.aligned) <= set(self.signature):
            raise ValueError(f"{self.name}: expected the arguments {sorted(names)}, got {sorted(named)}")


@dataclass
class Report:
    """What the machine code of a variant is made of; ``stack`` is in bytes of local memory a thread."""

    name: str
    target: str
    expects: list[str]
    registers: int = 0
    stack: int = 0
    shared: int = 0
    instructions: dict[str, int] = field(default_factory=dict)
    error: str = ""


def problems(report: Report) -> list[str]:
    """Every way in which the machine code misses what its variant expects; empty where it is as meant."""
    if report.error:
        return [f"does not compile: {report.error}"]
    count = Counter(report.instructions)
    expects = set(report.expects) - (_NVIDIA_ALONE if report.target.startswith("gfx") else set())
    found = []
    if report.stack and not _is_traded(report):
        found.append(f"{report.stack} bytes of stack a thread: registers spill to local memory")
    if report.shared > TARGETS[report.target]:
        found.append(f"{report.shared} bytes of shared memory, a block can have {TARGETS[report.target]}")
    if "tensor_core" in expects and not count["HGMMA"] + count["HMMA"] + count["DMMA"] + count["v_mfma"]:
        found.append("no tensor-core instruction")
    if "warpgroup" in expects and report.target == "sm_90" and not count["HGMMA"]:
        found.append("no warpgroup tensor-core instruction (HGMMA)")
    if "async_copy" in expects and not count["LDGSTS"] + count["UTMALDG"]:
        found.append("no asynchronous copy to shared memory")
    wide, loads = global_loads(report)
    if "vector16" in expects and not count["UTMALDG"] and 2 * wide < max(loads, 1):
        found.append(f"{wide} of {loads} loads move 16 bytes, less than half")
    return found


def _is_traded(report: Report) -> bool:
    """Whether ptxas gave up two words at most, each stored once and loaded once, for one more block a multiprocessor:
    left more registers it compiles these without a stack, and they would run fewer blocks at a time."""
    count = Counter(report.instructions)
    moves = count["LDL"], count["STL"]
    return report.stack <= _TRADED_BYTES and 0 < max(moves) <= _TRADED_BYTES // 4


def global_loads(report: Report) -> tuple[int, int]:
    """How many of the load instructions move 16 bytes, and how many there are."""
    count = Counter(report.instructions)
    wide = count["LDG.128"] + count["LDGSTS.128"] + count["load_dwordx4"]
    return wide, count["LDG"] + count["LDGSTS"] + count["load"]


def listing_modules() -> list[str]:
    """The modules of this folder that list shipped variants."""
    folder = Path(__file__).parent
    names = [info.name for info in iter_modules([str(folder)])]
    return [f"{__package__}.{name}" for name in names if "\ndef shipped() ->" in (folder / f"{name}.py").read_text()]


def shipped(module: str) -> list[Variant]:
    """The variants that a module of kernels lists."""
    folder, _, name = module.rpartition(".")
    return (launch.module(name) if folder == __package__ else import_module(module)).shipped()


def compile(variant: Variant, target: str) -> Report:
    """The variant for one of ``TARGETS``, compiled unless a report of the same source is on disk. Raises RuntimeError
    where kernels are interpreted; an error of the compiler stands in the report."""
    if launch.interpreting():
        raise RuntimeError("TRITON_INTERPRET is set: kernels of this process cannot be compiled")
    report = Report(variant.name, target, sorted(variant.expects))
    kept = settings.cache_folder() / "triton-ahead" / f"{_digest(variant, target)}.json"
    if kept.is_file():
        return replace(report, **json.loads(kept.read_text()))
    try:
        compiled = _compiled(variant, target)
    except Exception as error:  # the compiler raises errors of many types
        report.error = f"{type(error).__name__}: {error}".strip()[:500]
        return report
    amd = target.startswith("gfx")
    code = machine_code.read_gcn(compiled.asm["amdgcn"]) if amd else machine_code.read_cubin(compiled.asm["cubin"])
    found = {"shared": compiled.metadata.shared, **code}
    kept.parent.mkdir(parents=True, exist_ok=True)
    partial = kept.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(found))
    partial.replace(kept)
    return replace(report, **found)


def in_new_process(
    targets: Iterable[str], names: Iterable[str] | None = None, folders: Iterable[str | Path] = (), **request: object
) -> list[Report]:
    """Reports from a process in which Triton compiles, whatever this one does.

    ``names``: of variants, all of them where None; ``modules``: in place of this folder's; ``folders``: where to import
    them from. Raises RuntimeError with the process's own words where it fails.
    """
    words = {"targets": list(targets), "names": None if names is None else list(names), **request}
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    paths = [*map(str, folders), *filter(None, [environment.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    command = [sys.executable, "-m", __spec__.name]
    done = subprocess.run(
        command, input=json.dumps(words), capture_output=True, text=True, check=False, env=environment,
        cwd=tempfile.gettempdir(),
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"ahead-of-time compilation failed: {done.stderr[-2000:]}")
    return [Report(**fields) for fields in json.loads(done.stdout.splitlines()[-1])]


def _digest(variant: Variant, target: str) -> str:
    triton = import_module("triton")
    parts = (
        triton.__version__, target, variant.function.cache_key, sorted(variant.signature.items()),
        sorted((name, str(value)) for name, value in variant.constexprs.items()), sorted(variant.aligned),
        variant.num_warps, variant.num_stages, Path(machine_code.__file__).read_text(),
    )  # fmt: skip
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _compiled(variant: Variant, target: str) -> object:
    triton = import_module("triton")
    source_type = import_module("triton.compiler").ASTSource
    gpu = import_module("triton.backends.compiler").GPUTarget
    names = variant.function.arg_names
    source = source_type(
        fn=variant.function,
        signature={name: variant.signature.get(name, "constexpr") for name in names},
        constexprs={(names.index(name),): value for name, value in variant.constexprs.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in variant.aligned},
    )
    where = gpu("hip", target, 64) if target.startswith("gfx") else gpu("cuda", int(target.removeprefix("sm_")), 32)
    options = {"num_warps": variant.num_warps, "num_stages": variant.num_stages}
    return triton.compile(source, target=where, options=options)


def _main(
    targets: Iterable[str], names: Iterable[str] | None, modules: Iterable[str] | None = None
) -> list[dict[str, object]]:
    variants = [variant for module in modules or listing_modules() for variant in shipped(module)]
    found = [variant for variant in variants if names is None or variant.name in names]
    return [asdict(compile(variant, target)) for target in targets for variant in found if target in variant.targets]


if __name__ == "__main__":
    print(json.dumps(_main(**json.load(sys.stdin))))
