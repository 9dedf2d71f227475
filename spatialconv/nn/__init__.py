"""torch.nn's convolution and pooling layers on spatialconv, and what turns a whole model to them."""

from .conversion import ConversionReport, ConversionRow, conversion_report, convert
from .freezing import Frozen, freeze
from .layers import AdaptiveAvgPool2d, AdaptiveMaxPool2d, AvgPool2d, Conv2d, ConvTranspose2d, MaxPool2d
from .packing import prepack

__all__ = [
    "AdaptiveAvgPool2d",
    "AdaptiveMaxPool2d",
    "AvgPool2d",
    "Conv2d",
    "ConvTranspose2d",
    "ConversionReport",
    "ConversionRow",
    "Frozen",
    "MaxPool2d",
    "conversion_report",
    "convert",
    "freeze",
    "prepack",
]
