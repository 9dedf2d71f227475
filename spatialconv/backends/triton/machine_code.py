"""Registers, stack and counts of instructions, read from a kernel's machine code with the tools in Triton's wheel."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

# A name with .128 counts the 16-byte ones among all of that name.
_SASS = ("HGMMA", "HMMA", "DMMA", "LDGSTS", "LDGSTS.128", "UTMALDG", "LDG", "LDG.128", "STG", "STG.128",
         "LDS", "STS", "LDL", "STL", "FFMA", "HFMA2", "DFMA", "IMAD")  # fmt: skip
_GCN = {
    "v_mfma": "v_mfma_",
    "load": "(buffer|global|flat)_load_",
    "load_dwordx4": "(buffer|global|flat)_load_dwordx4",
    "store": "(buffer|global|flat)_store_",
    "store_dwordx4": "(buffer|global|flat)_store_dwordx4",
    "scratch": "scratch_",
    "ds_read": "ds_read",
    "v_fma": "v_(pk_)?fma",
}
_LINE_OF_SASS = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?\w+\s+)?([A-Z][A-Z0-9_.]*)")
_LINE_OF_GCN = re.compile(r"^\s+([a-z][a-z0-9_]+)\s", re.MULTILINE)


def read_cubin(cubin: bytes) -> dict[str, object]:
    """``registers`` and bytes of ``stack`` a thread, and ``instructions`` by name, of the one kernel of a cubin."""
    tools = import_module("triton").knobs.nvidia
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(cubin)
        usage = _words_of(tools.cuobjdump.path, "-res-usage", path)
        code = _words_of(tools.nvdisasm.path, "-c", path)
    mnemonics = Counter(_LINE_OF_SASS.findall(code))
    return {
        "registers": _number(r"REG:(\d+)", usage),
        "stack": _number(r"STACK:(\d+)", usage) + _number(r"LOCAL:(\d+)", usage),
        "instructions": {name: _count(mnemonics, name) for name in _SASS} | {"all": mnemonics.total()},
    }


def read_objects(path: Path) -> dict[tuple[str, str], dict[str, int]]:
    """``instructions`` of every kernel of an object file of nvcc's, by architecture and mangled name."""
    code = _words_of(import_module("triton").knobs.nvidia.cuobjdump.path, "-sass", path)
    found, architecture = {}, ""
    for part in re.split(r"^\s*(?=arch = |Function : )", code, flags=re.MULTILINE):
        if part.startswith("arch = "):
            architecture = part.split()[2]
        elif part.startswith("Function : "):
            mnemonics = Counter(_LINE_OF_SASS.findall(part))
            counts = {name: _count(mnemonics, name) for name in _SASS} | {"all": mnemonics.total()}
            found[architecture, part.split()[2]] = counts
    return found


def read_gcn(code: str) -> dict[str, object]:
    """The same of AMD's assembly; the stack is what a lane has of scratch memory."""
    mnemonics = Counter(_LINE_OF_GCN.findall(code))
    counts = {
        name: sum(times for mnemonic, times in mnemonics.items() if re.match(pattern, mnemonic))
        for name, pattern in _GCN.items()
    }
    return {
        "registers": _number(r"\.vgpr_count:\s+(\d+)", code),
        "stack": _number(r"\.private_segment_fixed_size:\s+(\d+)", code),
        "instructions": counts | {"all": mnemonics.total()},
    }


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    if found is None:
        raise RuntimeError(f"{pattern} is not in what the tool prints: {text[:200]}")
    return int(found[1])


def _count(mnemonics: Mapping[str, int], name: str) -> int:
    base, _, width = name.partition(".")
    return sum(
        times
        for mnemonic, times in mnemonics.items()
        if mnemonic.split(".")[0] == base and (not width or width in mnemonic.split("."))
    )


def _words_of(tool: str, *arguments: object) -> str:
    done = subprocess.run([tool, *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{Path(tool).name}: {done.stderr or done.stdout}")
    return done.stdout
