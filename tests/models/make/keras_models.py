"""Train one Keras network and write it as tf2onnx_nhwc.onnx and as float32, int8 and uint8 TFLite."""

import sys
from collections.abc import Iterator
from pathlib import Path

import data
import keras
import numpy as np
import onnx
import onnxruntime
import tensorflow as tf
import tf2onnx
from ai_edge_litert.interpreter import Interpreter
from keras import layers

OUT = Path(__file__).parent.parent


def network() -> keras.Model:
    """Return a classifier of images in [0, 1] with a depthwise convolution, so that quantisation is per channel."""
    image = x = layers.Input((32, 32, 3), name="image")
    x = layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    for filters in (32, 48):
        x = layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(len(data.NAMES), activation="softmax")(x), name="fashion")


def train(images: np.ndarray, labels: np.ndarray) -> keras.Model:
    """Train for five epochs with fixed seeds."""
    keras.utils.set_random_seed(data.SEED)
    model = network()
    schedule = keras.optimizers.schedules.CosineDecay(3e-3, 5 * len(images) // 64)
    model.compile(keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy")
    model.fit(images, labels, batch_size=64, epochs=5, verbose=0)
    return model


def write_onnx(model: keras.Model) -> Path:
    """Write NHWC ONNX with a batch of unknown size."""
    signature = [tf.TensorSpec((None, 32, 32, 3), tf.float32, name="image")]
    function = tf.function(lambda image: {"probabilities": model(image, training=False)}, input_signature=signature)
    proto, _ = tf2onnx.convert.from_function(function, signature, opset=15)
    path = OUT / "tf2onnx_nhwc.onnx"
    onnx.save(proto, path)
    return path


def converter(model: keras.Model, batch: int | None) -> tf.lite.TFLiteConverter:
    """Return a converter of the network with inputs and outputs that have names."""
    image = keras.Input(batch_shape=(batch, 32, 32, 3), name="image")
    return tf.lite.TFLiteConverter.from_keras_model(keras.Model(image, {"probabilities": model(image)}))


def write_float(model: keras.Model) -> Path:
    """Write float32 TFLite with a fixed batch of 1."""
    path = OUT / "keras_float.tflite"
    path.write_bytes(converter(model, 1).convert())
    return path


def write_integer(model: keras.Model, images: np.ndarray, dtype: tf.DType) -> Path:
    """Write TFLite with integers inside and at both ends, its batch -1 in the shape signature."""

    def samples() -> Iterator[list[np.ndarray]]:
        for image in images:
            yield [image[None]]

    convert = converter(model, None)
    convert.optimizations = [tf.lite.Optimize.DEFAULT]
    convert.representative_dataset = samples
    convert.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    convert.inference_input_type = convert.inference_output_type = dtype
    path = OUT / f"keras_{dtype.name}.tflite"
    path.write_bytes(convert.convert())
    return path


def answers_onnx(path: Path, images: np.ndarray) -> np.ndarray:
    """Return the classes that the ONNX file answers."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": images})[0].argmax(axis=1)


def answers_tflite(path: Path, images: np.ndarray) -> np.ndarray:
    """Return the classes that the TFLite file answers, its input quantised as the file says."""
    interpreter = Interpreter(str(path))
    detail = interpreter.get_input_details()[0]
    scale, zero = detail["quantization"]
    if scale:
        limits = np.iinfo(detail["dtype"])
        images = np.clip(np.round(images / scale) + zero, limits.min, limits.max).astype(detail["dtype"])
    run = interpreter.get_signature_runner()
    return np.array([run(image=image[None])["probabilities"].argmax() for image in images])


def main(folder: Path) -> None:
    """Train on the first 20,000 training images and report on the first 2,000 test images."""
    images, labels = data.load(folder, "train", 20_000)
    tests, expected = data.load(folder, "t10k", 2_000)
    images, tests = images / np.float32(255), tests / np.float32(255)
    model = train(images, labels)
    answers = {
        (path := write_onnx(model)): answers_onnx(path, tests),
        (path := write_float(model)): answers_tflite(path, tests),
        (path := write_integer(model, images[:256], tf.int8)): answers_tflite(path, tests),
        (path := write_integer(model, images[:256], tf.uint8)): answers_tflite(path, tests),
    }
    for path, classes in answers.items():
        print(f"{path.name}: {(classes == expected).sum()} of {len(expected)} right, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
