"""Large results are asked to lie on large pages, whole ones inside the tensor, and small ones are not."""

from __future__ import annotations

import mmap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from test_kernels import LEVELS  # noqa: F401  (the extension is built)

import spatialconv
from spatialconv.backends import allocation

PAGE = 2 << 20


@pytest.fixture
def advised(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """What is told to the system: (address, bytes, advice)."""
    found: list[tuple[int, int, int]] = []
    monkeypatch.setattr(allocation, "page_size", lambda: PAGE)
    monkeypatch.setattr(allocation, "_madvise", lambda: lambda *advice: found.append(advice))
    return found


@pytest.mark.parametrize("backend", ["extension", "numba"])
@pytest.mark.parametrize("side", [2, 3000])
def test_only_large_results_are(backend: str, side: int, advised: list) -> None:
    x = torch.zeros(1, 1, side, side)
    y = spatialconv.max_pool2d(x, 1, backend=backend)
    z = spatialconv.conv2d(x, torch.zeros(1, 1, 1, 1), backend=backend)
    wanted = [] if side == 2 else [y, z]
    assert len(advised) == len(wanted)
    for (address, size, advice), tensor in zip(advised, wanted, strict=True):
        begin, end = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
        assert advice == mmap.MADV_HUGEPAGE
        assert begin <= address < begin + PAGE and address % PAGE == 0
        assert end - PAGE < address + size <= end and size % PAGE == 0


def test_gradients_and_indices_are(advised: list) -> None:
    x = torch.zeros(1, 1, 3000, 3000, requires_grad=True)
    values, indices = spatialconv.max_pool2d(x, 1, return_indices=True, backend="extension")
    values.backward(torch.ones_like(values))
    tensors = (values, indices, x.grad)
    for (_, size, _), tensor in zip(advised, tensors, strict=True):
        # Up to a page at both ends is not the tensor's alone.
        assert tensor.nbytes - 2 * PAGE < size <= tensor.nbytes


def test_a_system_without_them_is_not_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(allocation, "_SIZE_FILE", tmp_path / "absent")
    allocation.page_size.cache_clear()
    try:
        assert allocation.page_size() == 0 and not allocation.large(1 << 40)
    finally:
        allocation.page_size.cache_clear()


def test_the_system_gives_them() -> None:
    enabled = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not enabled.exists() or "[never]" in enabled.read_text():
        pytest.skip("this system has no transparent large pages")
    tensor = allocation.on_large_pages(torch.empty(16 * PAGE, dtype=torch.uint8)).fill_(1)
    mapped = Path("/proc/self/smaps").read_text().split("VmFlags")
    first = tensor.data_ptr() + PAGE
    for entry in mapped:
        lines = [line.split() for line in entry.splitlines()]
        bounds = next((words[0].split("-") for words in lines if words and words[0].count("-") == 1), None)
        if bounds and int(bounds[0], 16) <= first < int(bounds[1], 16):
            sizes = {words[0]: int(words[1]) for words in lines if len(words) == 3 and words[2] == "kB"}
            if sizes["AnonHugePages:"] == 0:
                pytest.skip("the system had no large pages to give")
            return
    raise AssertionError("the tensor's memory is not mapped")


def test_a_thread_keeps_a_small_workspace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocation, "_kept", allocation._Kept())
    first, _ = allocation.workspace(1000)
    assert allocation.workspace(10)[0] == first
    larger, _ = allocation.workspace(5000)
    assert allocation.workspace(1000)[0] == larger
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: allocation.workspace(10)[0]).result() != larger
    address, memory = allocation.workspace(1000)
    allocation.workspace(9000)
    assert memory is not None and memory.data_ptr() == address, "it lives although a larger one took its place"
    larger = allocation.workspace(10)[0]
    size = allocation.KEPT_BYTES + 1
    address, memory = allocation.workspace(size)
    assert memory is not None and memory.data_ptr() == address and memory.nbytes == size
    assert allocation.workspace(10)[0] == larger, "what is larger is not kept"
