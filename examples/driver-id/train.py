"""Train the driver-identification network on the ORL faces and write it as ONNX and as TFLite."""

from __future__ import annotations

import argparse
from pathlib import Path

import keras
import numpy as np
from dataset import HEIGHT, WIDTH, load
from export import write_onnx, write_tflite
from faces import PEOPLE, default_cache
from keras import layers

SEED = 7
EPOCHS = 60


def augmentation() -> keras.Sequential:
    """Return the training-time jitter: mirror, shift, turn, zoom, brightness and contrast."""
    return keras.Sequential(
        [
            layers.RandomFlip("horizontal", seed=SEED),
            layers.RandomTranslation(0.05, 0.05, fill_mode="nearest", seed=SEED),
            layers.RandomRotation(0.02, fill_mode="nearest", seed=SEED),
            layers.RandomZoom(0.08, fill_mode="nearest", seed=SEED),
            layers.RandomBrightness(0.1, value_range=(-1, 1), seed=SEED),
            layers.RandomContrast(0.2, value_range=(-1, 1), seed=SEED),
        ]
    )


def network() -> keras.Model:
    """Return the classifier: four strided convolutions, then one that sees all of the remaining 7 x 6 positions."""
    image = x = layers.Input((HEIGHT, WIDTH, 1), name="image")
    for filters in (16, 24, 32, 48):
        x = layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization(momentum=0.9)(x)
        x = layers.ReLU()(x)
    x = layers.Conv2D(len(PEOPLE), (7, 6))(layers.Dropout(0.4, seed=SEED)(x))
    return keras.Model(image, keras.ops.squeeze(x, (1, 2)), name="driver_id")


def train(images: np.ndarray, labels: np.ndarray) -> keras.Model:
    """Train the network with fixed seeds and return it without its augmentation."""
    keras.utils.set_random_seed(SEED)
    model = network()
    trainer = keras.Sequential([layers.Input(images.shape[1:]), augmentation(), model])
    steps = EPOCHS * -(-len(images) // 20)
    trainer.compile(
        keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(2e-3, steps), weight_decay=1e-3),
        keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
    )
    trainer.fit(images, keras.utils.to_categorical(labels, len(PEOPLE)), batch_size=20, epochs=EPOCHS, verbose=2)
    return model


def main() -> None:
    """Train, say how many test images come out right, and write the two files and their labels."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=default_cache(), help="folder for the download [%(default)s]")
    parser.add_argument("-o", "--out", type=Path, default=Path(__file__).parent, help="folder to write [%(default)s]")
    arguments = parser.parse_args()
    model = train(*load("train", arguments.cache))
    images, labels = load("test", arguments.cache)
    right = int((model.predict(images, verbose=0).argmax(axis=1) == labels).sum())
    print(f"{right} of {len(labels)} test images right; {model.count_params()} parameters")
    write_onnx(model, arguments.out / "driver-id.onnx")
    write_tflite(model, arguments.out / "driver-id.tflite")
    (arguments.out / "labels.txt").write_text("".join(f"s{person:02d}\n" for person in PEOPLE))


if __name__ == "__main__":
    main()
