"""What ``import spatialconv`` costs and does: nothing but defining things."""

from __future__ import annotations

import child

from spatialconv.backends.extension import loader

LAZY = ("matplotlib", "numba", "triton", "typer", "rich", "onnx", "onnxruntime", "openvino", "spatialconv.bench")


def fresh(code: str, **variables: str) -> str:
    """What the code prints in a new process; nothing may reach stderr, warnings included."""
    done = child.python("-W", "error::UserWarning:spatialconv", "-c", code, **variables)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout


def test_it_prints_nothing() -> None:
    assert fresh("import spatialconv") == ""


def test_it_touches_no_cuda() -> None:
    code = """
import torch
def touched(*args, **kwargs): raise SystemExit("CUDA was touched")
torch.cuda._lazy_init = touched
torch._C._cuda_init = torch._C._cuda_getDeviceCount = touched
import spatialconv
print(torch.cuda.is_initialized())
"""
    assert fresh(code).strip() == "False"


def test_it_compiles_and_starts_nothing() -> None:
    code = """
import sys, torch
started = []
sys.addaudithook(lambda event, args: started.append(event) if event in ("subprocess.Popen", "os.system") else None)
import spatialconv
print(started, "torch._inductor" in sys.modules, "torch.utils.cpp_extension" in sys.modules)
"""
    assert fresh(code).strip() == "[] False False"


def test_it_imports_no_more_than_it_needs() -> None:
    """Where torch is built for CUDA, its own counter of operations imports triton."""
    code = f"""
import sys, torch, torch.utils.flop_counter
before = set(sys.modules)
import spatialconv
print([name for name in {LAZY} if name in sys.modules and name not in before])
"""
    assert fresh(code).strip() == "[]"


def test_the_compiled_part_is_loaded_on_first_use() -> None:
    code = """
import sys, spatialconv
name = "spatialconv.backends.extension._C"
before = name in sys.modules
spatialconv.backends()
print(before, name in sys.modules)
"""
    assert fresh(code).split() == ["False", str(loader.unavailable() is None)]
