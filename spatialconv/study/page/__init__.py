"""The page: one HTML file, which needs no network, to see, click and play how a convolution walks through memory.

``core/`` holds what the page computes, in JavaScript without a browser: nests (the twin of ``nests.py``), programs made
of them, caches, receptive fields, warps. ``ui/`` holds what is seen. ``page`` puts all of it into one file, together
with examples and what Python's own simulator counts for them.
"""

from .assemble import page, sources
from .examples import EXAMPLES, Example, chosen, reference

__all__ = ["EXAMPLES", "Example", "chosen", "page", "reference", "sources"]
