"""Write a trained Keras network as ONNX (NCHW, any batch) and as TFLite (NHWC, batch 1), with the same weights."""

from __future__ import annotations

from pathlib import Path

import keras
import onnx
import tensorflow as tf
import tf2onnx

OPSET = 17


def write_onnx(model: keras.Model, path: Path) -> None:
    """Write the network as ONNX with input `image` [N, C, H, W] and output `logits` [N, classes]."""
    signature = [tf.TensorSpec(model.input_shape, tf.float32, name="image")]
    function = tf.function(lambda image: {"logits": model(image, training=False)}, input_signature=signature)
    proto, _ = tf2onnx.convert.from_function(function, signature, opset=OPSET, inputs_as_nchw=["image:0"])
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString(deterministic=True))


def write_tflite(model: keras.Model, path: Path) -> None:
    """Write the network as TFLite builtins with a signature from `image` [1, H, W, C] to `logits` [1, classes]."""
    image = keras.Input(batch_shape=(1, *model.input_shape[1:]), name="image")
    converter = tf.lite.TFLiteConverter.from_keras_model(keras.Model(image, {"logits": model(image)}))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    path.write_bytes(converter.convert())
