"""The reference takes exactly the dtypes that torch's own op takes, and elsewhere raises the same type of exception."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import spatialconv


def image(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    return torch.ones(shape).to(dtype)


def made() -> list[torch.dtype]:
    """Every dtype that torch can make a tensor of."""
    found = []
    for dtype in {value for value in vars(torch).values() if isinstance(value, torch.dtype)}:
        try:
            image(dtype, 1)
        except (RuntimeError, TypeError):
            continue
        found.append(dtype)
    return sorted(found, key=str)


DTYPES = made()
CASES = {
    "conv2d": lambda m, d, o: m.conv2d(image(d, 1, 2, 5, 5), image(d, 3, 2, 3, 3), **o),
    "conv2d with bias": lambda m, d, o: m.conv2d(image(d, 1, 2, 5, 5), image(d, 3, 2, 3, 3), image(d, 3), **o),
    "conv2d, dilated": lambda m, d, o: m.conv2d(image(d, 1, 2, 5, 5), image(d, 3, 2, 3, 3), dilation=2, **o),
    "conv2d, depthwise": lambda m, d, o: m.conv2d(image(d, 1, 2, 5, 5), image(d, 2, 1, 3, 3), groups=2, **o),
    "conv_transpose2d": lambda m, d, o: m.conv_transpose2d(image(d, 1, 2, 5, 5), image(d, 2, 3, 3, 3), **o),
    "max_pool2d": lambda m, d, o: m.max_pool2d(image(d, 1, 2, 6, 6), 2, **o),
    "max_pool2d, indices": lambda m, d, o: m.max_pool2d(image(d, 1, 2, 6, 6), 2, return_indices=True, **o)[0],
    "avg_pool2d": lambda m, d, o: m.avg_pool2d(image(d, 1, 2, 6, 6), 2, **o),
    "adaptive_max_pool2d": lambda m, d, o: m.adaptive_max_pool2d(image(d, 1, 2, 6, 6), 3, **o),
    "adaptive_avg_pool2d": lambda m, d, o: m.adaptive_avg_pool2d(image(d, 1, 2, 6, 6), 3, **o),
    "adaptive_avg_pool2d to one": lambda m, d, o: m.adaptive_avg_pool2d(image(d, 1, 2, 6, 6), 1, **o),
}


def outcome(case: str, module, dtype: torch.dtype, options: dict) -> object:
    """The result, or the exception."""
    try:
        return CASES[case](module, dtype, options)
    except Exception as error:
        return error


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_the_reference_takes_what_torch_takes(case: str, dtype: torch.dtype) -> None:
    expected = outcome(case, F, dtype, {})
    got = outcome(case, spatialconv, dtype, {"backend": "reference"})
    if isinstance(expected, Exception):
        assert isinstance(got, Exception), f"torch: {expected!r}"
        assert isinstance(got, type(expected)), f"{got!r}; torch: {expected!r}"
    else:
        assert isinstance(got, torch.Tensor), f"{got!r}; torch gives {expected}"
        assert got.dtype == expected.dtype
        torch.testing.assert_close(got, expected)
