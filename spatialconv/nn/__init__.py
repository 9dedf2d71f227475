"""torch.nn's convolution and pooling layers on spatialconv, what turns a whole model to them, and layers that torch.nn
lacks."""

from .blur import BlurPool2d, MaxBlurPool2d
from .conversion import ConversionReport, ConversionRow, conversion_report, convert
from .freezing import Frozen, freeze
from .group_conv import P4Conv2d, P4MConv2d, P4MPool2d, P4Pool2d
from .layers import AdaptiveAvgPool2d, AdaptiveMaxPool2d, AvgPool2d, Conv2d, ConvTranspose2d, MaxPool2d
from .local import LocallyConnected2d
from .packing import prepack

__all__ = [
    "AdaptiveAvgPool2d",
    "AdaptiveMaxPool2d",
    "AvgPool2d",
    "BlurPool2d",
    "Conv2d",
    "ConvTranspose2d",
    "ConversionReport",
    "ConversionRow",
    "Frozen",
    "LocallyConnected2d",
    "MaxBlurPool2d",
    "MaxPool2d",
    "P4Conv2d",
    "P4MConv2d",
    "P4MPool2d",
    "P4Pool2d",
    "conversion_report",
    "convert",
    "freeze",
    "prepack",
]
