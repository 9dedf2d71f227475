"""What a bug report needs: versions, build facts, instruction sets, threads, backends, environment variables."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path


def cpu_model() -> str:
    """The processor's name as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def build_facts() -> dict:
    """How the compiled part was built: flags, compiler, and the reason where it was not."""
    from .backends.extension import loader

    return dict(loader.build_info())


def gpu_facts() -> dict[str, str]:
    """The current GPU, its driver and clocks, and the versions that decide its figures."""
    import torch

    device = torch.cuda.get_device_properties()
    facts = {
        "name": device.name,
        "capability": f"sm_{device.major}{device.minor}",
        "multiprocessors": str(device.multi_processor_count),
        "memory": f"{device.total_memory / 2**30:.1f} GiB",
        "L2 cache": f"{device.L2_cache_size / 2**20:.0f} MiB",
        "CUDA of torch": str(torch.version.cuda),
        "cuDNN": str(torch.backends.cudnn.version()),
    }
    try:
        facts["triton"] = metadata.version("triton")
    except metadata.PackageNotFoundError:
        facts["triton"] = "not installed"
    return facts | _smi_facts()


_SMI_FIELDS = (
    "driver_version", "clocks.sm", "clocks.max.sm", "clocks.mem", "power.limit", "temperature.gpu", "ecc.mode.current",
)  # fmt: skip


def _smi_facts() -> dict[str, str]:
    """What only the driver's own tool tells."""
    command = ["nvidia-smi", f"--query-gpu={','.join(_SMI_FIELDS)}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return {"nvidia-smi": f"no answer: {error}"}
    values = [value.strip() for value in answer.splitlines()[0].split(",")]
    return dict(zip(_SMI_FIELDS, values, strict=False))


def optional_versions() -> dict[str, str]:
    """Versions of the packages that parts of this one use, 'not installed' where they are not."""
    found = {}
    for name in ("numpy", "numba", "triton", "typer", "rich", "matplotlib", "onnx", "onnxruntime", "openvino"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def collect() -> dict[str, dict[str, str]]:
    """Everything, section by section, as text."""
    import torch

    from . import __version__, dispatch, settings, tuned
    from .ops.autograd import missing_names
    from .threads import missing_reason

    build = build_facts()
    cuda = torch.version.cuda
    facts = {
        "versions": {
            "spatialconv": __version__,
            "torch": torch.__version__,
            "python": f"{platform.python_implementation()} {platform.python_version()}",
            **optional_versions(),
            "torch's private names": f"lacking: {', '.join(lacking)}" if (lacking := missing_names()) else "all there",
        },
        "machine": {
            "system": platform.platform(),
            "cpu": cpu_model(),
            "cores": str(os.cpu_count()),
            "load average": " ".join(f"{value:.2f}" for value in os.getloadavg()),
            "torch's instruction set": torch.backends.cpu.get_cpu_capability(),
            "threads": f"{torch.get_num_threads()} (torch.set_num_threads)",
            "parallel loops": f"serial: {missing_reason()}" if missing_reason() else "on torch's own thread pool",
            "CUDA": f"torch built for {cuda}, {torch.cuda.device_count()} devices" if cuda else "torch built without",
            "fp32 precision of convolution": torch.backends.mkldnn.conv.fp32_precision,
        },
        "extension": {
            "instruction set in use": _level(),
            "products of bfloat16 pairs": _dots(),
            **{name: _text(value) for name, value in build.items()},
        },
        "backends": {},
        "environment": {},
        "measured choices": {"file": f"{tuned.path()} ({'present' if tuned.path().is_file() else 'absent'})"},
    }
    for name, entry in dispatch.backends().items():
        kernels = dict.fromkeys(kernel for row in entry.kernels.values() for kernel in row)
        facts["backends"][name] = ", ".join(kernels) if entry.available else f"not available: {entry.reason}"
    for name, meaning in settings.ENVIRONMENT.items():
        value = os.environ.get(name)
        facts["environment"][name] = f"{'not set' if value is None else repr(value)} ({meaning})"
    return facts


def _level() -> str:
    """The instruction-set level in use, or why there is none."""
    from . import dispatch

    try:
        return dispatch.current_context("cpu").isa or "none"
    except ValueError as error:
        return f"none: {error}"


def _dots() -> str:
    """The instruction sets that multiply pairs of bfloat16 here, or why there is none."""
    from .backends.extension import dots, loader

    if missing := loader.unavailable():
        return f"none: {missing}"
    return ", ".join(dots.offered()) or f"none: neither {' nor '.join(dots.SETS)} in processor and system"


def _text(value: object) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{name}: {entry}" for name, entry in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return str(value)
