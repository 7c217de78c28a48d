"""The model in BentoML; the file is in the environment variable BENCHMARK_MODEL."""

import os

import bentoml
import numpy as np
import onnxruntime


@bentoml.service(workers=1)
class Model:
    """One session of one thread."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        file = os.environ["BENCHMARK_MODEL"]
        self.session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    @bentoml.api
    def infer(self, data: np.ndarray) -> np.ndarray:
        return self.session.run(["out"], {"frame": data.astype(np.uint8).reshape(1, 224, 224, 3)})[0]
