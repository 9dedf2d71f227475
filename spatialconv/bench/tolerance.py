"""How far a result may be from the float64 one: by element type, precision tier and length of the sum.

The distance is measured per element and relative to the local sum of absolute products, |weight| * |input|, so that one
large value hides nothing elsewhere.
"""

from __future__ import annotations

import math

# Half the distance from 1 to the next number of the type.
ROUNDOFF = {"f64": 2.0**-53, "f32": 2.0**-24, "f16": 2.0**-11, "bf16": 2.0**-8}
# What an operand loses when the tier rounds it before multiplying.
TIER_ROUNDOFF = {"ieee": 0.0, "tf32": 2.0**-11, "bf16": 2.0**-8}
# Below this a number of the type is subnormal and its relative precision is gone.
SMALLEST = {"f64": 2.0**-1022, "f32": 2.0**-126, "f16": 2.0**-14, "bf16": 2.0**-126}


def relative(dtype: str, tier: str = "ieee", reduction: int = 1) -> float:
    """The allowed error of one element, as a share of its sum of absolute products.

    ``dtype`` is the tensors' ('f32', 'f64', 'bf16', 'f16'; 16-bit sums run in float32), ``tier`` the precision of the
    products ('ieee', 'tf32', 'bf16'; float64 has ieee only), ``reduction`` how many products are summed.
    """
    summed = ROUNDOFF["f64" if dtype == "f64" else "f32"] * (8.0 + 2.0 * math.sqrt(max(reduction, 1)))
    stored = 2.0 * ROUNDOFF[dtype] if dtype in ("f16", "bf16") else 0.0
    rounded = 0.0 if dtype == "f64" else 2.0 * TIER_ROUNDOFF[tier]
    return summed + stored + rounded


def absolute(dtype: str) -> float:
    """The allowed error beside the relative one: what results near zero lose where numbers become subnormal."""
    return 2.0 * SMALLEST[dtype] * ROUNDOFF[dtype]
