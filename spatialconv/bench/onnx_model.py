"""One layer as an ONNX model, for the peers that run such models; the weight is a constant that they may pre-pack."""

from __future__ import annotations

from ..problem import Conv2dProblem, Problem
from .operands import Operands


def build(problem: Problem, operands: Operands) -> bytes:
    """The forward pass of a problem as a serialised model with one input 'x' and one output 'y'."""
    import onnx
    from onnx import helper, numpy_helper

    constants, names = [], ["x"]
    if isinstance(problem, Conv2dProblem):
        for name, tensor in zip(("w", "b"), operands[1:], strict=True):
            if tensor is not None:
                constants.append(numpy_helper.from_array(tensor.contiguous().numpy(), name))
                names.append(name)
        node = helper.make_node(
            "Conv",
            names,
            ["y"],
            kernel_shape=[problem.kh, problem.kw],
            strides=[problem.sh, problem.sw],
            pads=[problem.ph, problem.pw, problem.ph, problem.pw],
            dilations=[problem.dh, problem.dw],
            group=problem.g,
        )
    else:
        attributes = {
            "kernel_shape": [problem.kh, problem.kw],
            "strides": [problem.sh, problem.sw],
            "pads": [problem.ph, problem.pw, problem.ph, problem.pw],
            "ceil_mode": int(problem.ceil),
        }
        if problem.op == "max_pool2d":
            attributes["dilations"] = [problem.dh, problem.dw]
        else:
            attributes["count_include_pad"] = int(problem.include_pad)
        node = helper.make_node("MaxPool" if problem.op == "max_pool2d" else "AveragePool", names, ["y"], **attributes)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "layer",
        [value("x", onnx.TensorProto.FLOAT, problem.input_shape)],
        [value("y", onnx.TensorProto.FLOAT, problem.output_shape)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    return model.SerializeToString()
