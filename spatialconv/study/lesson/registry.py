"""The lesson in its order: a file an experiment, a line an experiment."""

from __future__ import annotations

from . import (
    adaptation,
    attention,
    border,
    cost,
    effective,
    equivariance,
    flattening,
    folding,
    fourier,
    hierarchy,
    locality,
    pooling,
    position,
    reach,
    rotation,
    scale,
    sharing,
    shift,
    sizes,
    transfer,
)
from .experiment import Experiment

EXPERIMENTS: tuple[Experiment, ...] = (
    position.EXPERIMENT,
    flattening.EXPERIMENT,
    sizes.EXPERIMENT,
    locality.EXPERIMENT,
    adaptation.EXPERIMENT,
    sharing.EXPERIMENT,
    cost.EXPERIMENT,
    shift.EXPERIMENT,
    pooling.EXPERIMENT,
    equivariance.EXPERIMENT,
    border.EXPERIMENT,
    hierarchy.EXPERIMENT,
    reach.EXPERIMENT,
    effective.EXPERIMENT,
    attention.EXPERIMENT,
    rotation.EXPERIMENT,
    scale.EXPERIMENT,
    transfer.EXPERIMENT,
    folding.EXPERIMENT,
    fourier.EXPERIMENT,
)
