"""The model in MLServer."""

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class Model(MLModel):
    """One session of one thread."""

    async def load(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        file = self.settings.parameters.uri
        self.session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload):
        frame = NumpyCodec.decode_input(payload.inputs[0])
        out = self.session.run(["out"], {"frame": frame})[0]
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("out", out)])
