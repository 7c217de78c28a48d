"""The model in LitServe: python litserve_server.py MODEL PORT."""

import sys

import litserve
import numpy as np
import onnxruntime


class Model(litserve.LitAPI):
    """One session of one thread."""

    def setup(self, device):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])

    def decode_request(self, request):
        return np.array(request["data"], np.uint8).reshape(1, 224, 224, 3)

    def predict(self, frame):
        return self.session.run(["out"], {"frame": frame})[0]

    def encode_response(self, out):
        return {"out": out.ravel().tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Model(), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), num_api_servers=1, generate_client_file=False)
