"""The study: how weight sharing becomes memory access, and what a convolutional network can and cannot see.

Everything here runs on the library's own problems, kernels and layers, and nothing of it is on the path of a call.
``spatialconv study --help`` lists what there is; each command is a function of the module of its name.
"""
