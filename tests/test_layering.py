"""Imports go downwards only, read from the source; a file of no known layer fails."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import spatialconv

ROOT = Path(spatialconv.__file__).parent
# From the bottom up. A name stands for the module or for the whole package below it; one line is one layer.
LAYERS = (
    ("errors", "settings"),
    ("shapes",),
    ("problem", "activations"),
    ("threads",),
    ("backends.base",),
    ("backends.empty", "backends.allocation"),
    ("backends.reference", "backends.extension", "backends.numba", "backends.triton"),
    ("backends",),
    ("tuned", "gpu_order"),
    ("dispatch",),
    ("ops",),
    ("eager",),
    ("eager_autograd",),
    ("functional",),
    ("explain",),
    ("nn",),
    ("info",),
    ("bench",),
    ("study",),
    ("check",),
    ("cli",),
    ("",),
)
EACH_ALONE = LAYERS.index(("backends.reference", "backends.extension", "backends.numba", "backends.triton"))
# What may be imported in one place only: outside packages, and the compiled module.
ONLY_IN = {
    "numba": ("backends.numba", "study"),
    "triton": ("backends.triton",),
    "matplotlib": ("bench", "study"),
    "onnx": ("bench",),
    "onnxruntime": ("bench",),
    "openvino": ("bench",),
    "sklearn": ("study",),
    "jinja2": ("study",),
    "typer": ("cli",),
}
FILES = sorted(ROOT.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path) for path in FILES} | {"backends.extension._C", "backends.extension._CUDA"}


def layer(module: str) -> tuple[int, str]:
    """The number of the layer and the entry of LAYERS that the module belongs to."""
    if module == "__main__":
        module = ""
    for number, row in enumerate(LAYERS):
        for entry in row:
            if module == entry or (entry and entry != "backends" and module.startswith(f"{entry}.")):
                return number, entry
    raise AssertionError(f"spatialconv/{module.replace('.', '/')}.py belongs to no layer of this test")


def imported(source: str, module: str, is_package: bool) -> set[str]:
    """What a file imports anywhere in it: ours by name below spatialconv, others with a leading colon."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {outside_or_ours(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found |= {outside_or_ours(node.module)}
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".") if module else []
            parts = parts[: len(parts) - node.level + is_package]
            base = ".".join(parts + (node.module.split(".") if node.module else []))
            for alias in node.names:
                below = f"{base}.{alias.name}".strip(".")
                found.add(below if below in MODULES else base)
    return found


def outside_or_ours(name: str) -> str:
    first, _, rest = name.partition(".")
    return rest if first == "spatialconv" else f":{first}"


def violations(source: str, module: str, is_package: bool) -> list[str]:
    number, entry = layer(module)
    wrong = []
    for name in sorted(imported(source, module, is_package)):
        if name.startswith(":"):
            allowed = ONLY_IN.get(name[1:])
            if allowed is not None and not any(module == one or module.startswith(f"{one}.") for one in allowed):
                wrong.append(f"{module}: {name[1:]} is imported in {' and '.join(allowed)} only")
            continue
        # The root holds the version, which everything may show.
        if name == "" or name == module:
            continue
        if name.endswith(("._C", "._CUDA")) and entry != "backends.extension":
            wrong.append(f"{module}: the compiled module is imported in its own folder only")
        other, other_entry = layer(name)
        if other > number or (other == number and entry != other_entry and number == EACH_ALONE):
            wrong.append(f"{module} imports {name}, which is not below it")
    return wrong


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_imports_go_downwards(path: Path) -> None:
    assert violations(path.read_text(), module_name(path), path.name == "__init__.py") == []


@pytest.mark.parametrize(("name", "place"), [('"._C"', "loader"), ('"._CUDA"', "cuda_loader")])
def test_a_compiled_module_is_named_in_its_loader_only(name: str, place: str) -> None:
    naming = [path.relative_to(ROOT).as_posix() for path in FILES if name in path.read_text()]
    assert naming == [f"backends/extension/{place}.py"]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("problem", "from .dispatch import choose"),
        ("shapes", "def late():\n    from . import functional"),
        ("backends.reference.conv", "from ..extension import loader"),
        ("backends.extension.kernels", "from ... import dispatch"),
        ("backends.extension.kernels", "from spatialconv.ops import OPS"),
        ("bench.peers", "import numba"),
        ("functional", "from .backends.extension import _C"),
        ("nn.layers", "import typer"),
    ],
)
def test_an_upward_import_is_found(module: str, source: str) -> None:
    assert violations(source, module, False)


def test_a_file_of_no_layer_is_found() -> None:
    with pytest.raises(AssertionError, match="belongs to no layer"):
        layer("helpers")
