"""The model in Triton's Python backend."""

import json
import sys

import triton_python_backend_utils as triton


class TritonPythonModel:
    """One session of one thread."""

    def initialize(self, arguments):
        parameters = json.loads(arguments["model_config"])["parameters"]
        sys.path.insert(0, parameters["packages"]["string_value"])
        # Why here: the backend's process does not look where PYTHONPATH says.
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        file = parameters["file"]["string_value"]
        self.session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def execute(self, requests):
        return [triton.InferenceResponse([triton.Tensor("out", self._out(request))]) for request in requests]

    def _out(self, request):
        frame = triton.get_input_tensor_by_name(request, "frame").as_numpy()
        return self.session.run(["out"], {"frame": frame})[0]
