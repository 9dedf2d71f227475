"""The study: how weight sharing becomes memory access, and what a convolutional network can and cannot see.

Everything here runs on the library's own problems, kernels and layers, and nothing of it is on the path of a call.
``spatialconv study --help`` lists the commands; in Python each is a module::

    from spatialconv.study import cache, counting, nests, shape, trace

    problem = shape.read("1x16x32x32 k=32 3x3 p1")  # or shape.of_module(layer, x.shape)
    counting.count(problem).macs  # exact at the borders
    nest = nests.named(problem, "untied")  # nests.direct(problem, order=..., tile=...)
    trace.trace(nest, cache.host(), kinds=True).misses  # by (tensor, level)
"""
