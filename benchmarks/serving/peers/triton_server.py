"""The model in Triton by pytriton: python triton_server.py MODEL NAME HTTP_PORT GRPC_PORT."""

import sys

import numpy as np
import onnxruntime
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig


def main() -> None:
    file, name, http, grpc = sys.argv[1:]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    @batch
    def infer(frame):
        return {"out": session.run(["out"], {"frame": frame})[0]}

    out = session.get_outputs()[0]
    kind = np.float32 if out.type == "tensor(float)" else np.uint8
    config = TritonConfig(
        http_address="127.0.0.1",
        grpc_address="127.0.0.1",
        http_port=int(http),
        grpc_port=int(grpc),
        allow_metrics=False,
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name=name,
            infer_func=infer,
            inputs=[Tensor(name="frame", dtype=np.uint8, shape=(224, 224, 3))],
            outputs=[Tensor(name="out", dtype=kind, shape=tuple(out.shape[1:]))],
            config=ModelConfig(max_batch_size=8),
        )
        triton.serve()


if __name__ == "__main__":
    main()
