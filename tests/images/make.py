"""Write the test images from the wheel of scikit-image 0.26.0 and from Fashion-MNIST: make.py WHEEL FASHION_FOLDER."""

import io
import sys
import zipfile
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "models" / "make"))

import data  # noqa: E402

NATURAL = {
    "cat.png": ("chelsea.png", (225, 150)),
    "coffee.png": ("coffee.png", (224, 224)),
    "rocket.jpg": ("rocket.jpg", (320, 213)),
    "galaxies.png": ("hubble_deep_field.jpg", (224, 224)),
    "retina.png": ("retina.jpg", (224, 224)),
    "bricks.png": ("brick.png", (224, 224)),
    "gravel.png": ("gravel.png", (224, 224)),
    "grass.png": ("grass.png", (224, 224)),
}


def write_natural(wheel: Path) -> None:
    """Shrink scikit-image's pictures; their mode (RGB or grey) stays."""
    with zipfile.ZipFile(wheel) as archive:
        for name, (member, size) in NATURAL.items():
            picture = Image.open(io.BytesIO(archive.read(f"skimage/data/{member}")))
            picture.resize(size, Image.Resampling.LANCZOS).save(HERE / name, quality=92, optimize=True)


def write_fashion(folder: Path) -> None:
    """Write the first test image of every class, coloured as the models expect it."""
    images, labels = data.load(folder, "t10k", 2_000)
    (HERE / "fashion").mkdir(exist_ok=True)
    for label, name in enumerate(data.NAMES):
        first = int((labels == label).argmax())
        Image.fromarray(images[first]).save(HERE / "fashion" / f"{label}_{name}.png", optimize=True)


if __name__ == "__main__":
    write_natural(Path(sys.argv[1]))
    write_fashion(Path(sys.argv[2]))
