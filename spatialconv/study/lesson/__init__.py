"""Why convolutional networks detect spatial patterns, claim by claim, as experiments on real pictures.

Every claim is told as it commonly is, tried on scikit-learn's digits or on pictures made for it, and judged by a band
that stood before the run. ``registry.EXPERIMENTS`` is the lesson in its order; one file holds one experiment.
"""
