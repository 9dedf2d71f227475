"""The tile sizes that the implicit GEMMs are shipped with, and which of them a problem gets.

Nothing is measured during a call: a config is chosen from the sizes alone, so a plan is the same at every run and can
be captured in a CUDA graph. ``spatialconv.backends.triton.ahead`` compiles every config here without a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

# Sums are split as for this many multiprocessors, on every device, so that results do not depend on it.
PROCESSORS = 132


@dataclass(frozen=True)
class Config:
    """What one program computes, ``rows`` x ``columns`` of the result, ``depth`` of the sum a step; and with what."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int

    def shared(self, itemsize: int) -> int:
        """Bytes of shared memory of the operands in flight."""
        return (self.rows + self.columns) * self.depth * itemsize * self.stages

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}x{self.depth} w{self.warps} s{self.stages}"


_HALF = (
    Config(128, 256, 64, 8, 3),
    Config(256, 128, 64, 8, 3),
    Config(128, 128, 64, 8, 3),
    Config(128, 64, 64, 4, 3),
    Config(64, 128, 64, 4, 3),
    Config(64, 64, 64, 4, 4),
    Config(128, 32, 32, 4, 4),
    Config(128, 16, 32, 4, 3),
    Config(32, 64, 64, 4, 4),
    Config(32, 32, 32, 2, 4),
    Config(16, 16, 16, 1, 3),
)
# Elements that are loaded one by one take a register pair for each address, and nothing copies them to shared memory
# asynchronously: small tiles, of which a multiprocessor runs several.
_HALF_GATHERED = (
    Config(128, 64, 32, 8, 3),
    Config(64, 128, 32, 8, 3),
    Config(64, 64, 32, 4, 3),
    Config(128, 16, 32, 4, 3),
    Config(32, 32, 32, 2, 3),
    Config(16, 16, 16, 1, 3),
)
_TF32 = (
    Config(128, 128, 32, 8, 3),
    Config(128, 64, 32, 8, 3),
    Config(64, 128, 32, 8, 3),
    Config(64, 64, 32, 4, 4),
    Config(128, 32, 32, 4, 4),
    Config(64, 16, 32, 4, 3),
    Config(32, 32, 32, 2, 4),
    Config(16, 16, 16, 1, 3),
)
# Three products a step, of operands split in registers.
_TF32X3 = (
    Config(128, 64, 32, 8, 3),
    Config(64, 64, 32, 4, 4),
    Config(64, 16, 32, 4, 3),
    Config(32, 32, 32, 2, 4),
    Config(16, 16, 16, 1, 3),
)
# On the floating-point units a thread keeps its part of the tile in registers, operands of a whole step included.
_SINGLE = (
    Config(128, 64, 16, 8, 3),
    Config(64, 128, 16, 8, 3),
    Config(64, 64, 16, 4, 3),
    Config(128, 16, 16, 4, 3),
    Config(32, 32, 16, 2, 3),
    Config(16, 16, 16, 1, 3),
)
_DOUBLE = (
    Config(64, 64, 16, 4, 3),
    Config(128, 16, 16, 4, 3),
    Config(32, 32, 16, 2, 3),
    Config(16, 16, 16, 1, 3),
)


def menu(dtype: str, precision: str, load_bytes: int) -> tuple[Config, ...]:
    """The configs of an element type; ``precision`` is how float32 is multiplied, ``load_bytes`` what the image that
    is read at several taps can be loaded by."""
    if dtype in ("bf16", "f16"):
        return _HALF if load_bytes >= 8 else _HALF_GATHERED
    if dtype == "f64":
        return _DOUBLE
    return {"ieee": _SINGLE, "tf32": _TF32, "tf32x3": _TF32X3}[precision]


# Bytes of shared memory to plan with. Only warpgroup instructions take operands from there; before sm_90 they need
# registers too, of which larger tiles than the default has room for have too few.
_SHARED = {"sm_90": 232448, "sm_100": 232448, "sm_103": 232448}
_SHARED_ELSEWHERE = 101376


def fitting(configs: tuple[Config, ...], itemsize: int, isa: str) -> tuple[Config, ...]:
    """Those that an architecture has room for."""
    limit = _SHARED.get(isa, _SHARED_ELSEWHERE)
    return tuple(config for config in configs if config.shared(itemsize) <= limit)


# What a step takes beside its multiplications, counted in these: for each row and column that is loaded, and to begin.
_LOAD = 32
_STEP = 2**18


def cheapest(
    configs: tuple[Config, ...],
    programs: Callable[[Config], int],
    depth: Callable[[Config], int],
    processors: int = PROCESSORS,
) -> Config:
    """The config with the least estimated time: rounds of programs, times the work of one.

    ``programs`` and ``depth`` say how many programs a config needs and what each sums up, rounded up to whole steps.
    So large tiles win unless they leave processors idle or hold much that is not there.
    """

    def time(config: Config) -> int:
        rounds = -(-programs(config) // processors)
        step = config.depth * (config.rows * config.columns + _LOAD * (config.rows + config.columns)) + _STEP
        return rounds * (depth(config) // config.depth) * step

    return min(configs, key=time)
