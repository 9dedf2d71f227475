"""Runs one ONNX layer in a process of its own, a block of calls whenever the parent asks: thread pools never compete.

Started as ``python external_worker.py <runtime> <threads>``; reads a JSON command a line, answers with one. It imports
nothing of the package.
"""

from __future__ import annotations

import json
import resource
import sys
import time

import numpy as np


def open_onnxruntime(model: bytes, threads: int):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0" if threads == 1 else "1")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return (lambda x: session.run(None, {"x": x})[0]), onnxruntime.__version__


def open_openvino(model: bytes, threads: int):
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(model), "CPU", settings)
    request = compiled.create_infer_request()
    return (lambda x: request.infer({0: x}, share_inputs=True)[0]), openvino.__version__


OPENERS = {"onnxruntime": open_onnxruntime, "openvino": open_openvino}


def timed(call, inputs: list[np.ndarray], first: int, calls: int, clock: str) -> dict:
    now = time.process_time if clock == "cpu" else time.perf_counter
    before = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
    start = now()
    for index in range(first, first + calls):
        call(inputs[index % len(inputs)])
    seconds = now() - start
    after = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
    return {"seconds": seconds / calls, "clean": clock == "cpu" or before == after}


def serve(runtime: str, threads: int) -> None:
    call, inputs, done = None, [], 0
    for line in sys.stdin:
        command = json.loads(line)
        try:
            if command["do"] == "open":
                with open(command["model"], "rb") as file:
                    call, version = OPENERS[runtime](file.read(), threads)
                first = np.load(command["input"])
                inputs = [first, *(first.copy() for _ in range(command["copies"] - 1))]
                np.save(command["output"], np.asarray(call(first)))
                answer = {"version": version}
            else:
                answer = timed(call, inputs, done, command["calls"], command["clock"])
                done += command["calls"]
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
