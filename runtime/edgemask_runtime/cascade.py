"""A detector and the recogniser behind it: what its boxes hold goes through a second model."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from edgemask_runtime.about import About, Outputs
from edgemask_runtime.bundle import Bundle, Manifest, payload_digest
from edgemask_runtime.crops import Box, crop
from edgemask_runtime.detections import read_detections
from edgemask_runtime.engines import Array
from edgemask_runtime.errors import UserError
from edgemask_runtime.formats import YUV, Format, Pixels, colours_of, pixels_of, planes_of
from edgemask_runtime.images import in_format, recolour
from edgemask_runtime.predictor import Predictor, takes_key
from edgemask_runtime.recognised import BOX, NO_BOX, PREFIX, sample_shape, with_crops


def open_bundle(
    bundle: Bundle,
    *,
    engine: str | None = None,
    threads: int = 1,
    key: Path | None = None,
    cache: Path | None = None,
) -> Predictor | Cascade:
    """Load a bundle, with its recogniser if it has one; `key` goes to the one of them that takes a key.

    What a GPU's engine builds for them is kept in a folder of its own in `cache`.
    """
    inner = bundle.open_recogniser()
    cache = engine_folder(cache, bundle.manifest) if cache else None
    if inner is None:
        return Predictor.open(bundle, engine=engine, threads=threads, key=key, cache=cache)
    inside = key if takes_key(inner.manifest) else None
    outside = None if inside else key
    detector = Predictor.open(bundle, engine=engine, threads=threads, key=outside, cache=cache)
    return Cascade(detector, Predictor.open(inner, threads=threads, key=inside, cache=cache))


def engine_folder(cache: Path, manifest: Manifest) -> Path:
    """Where in `cache` that lies which is built for this bundle: by the digest of its payload."""
    folder = cache / payload_digest(manifest)
    folder.mkdir(exist_ok=True)
    return folder


class Cascade:
    """Answers like a Predictor: the detector's outputs, and the recogniser's for each crop.

    `recognised.NAME` holds the recogniser's output NAME, [N, max_crops, ...], and `recognised.box` which of the boxes
    each crop was cut from, int32 [N, max_crops]; -1 and zeros where there is no crop.
    """

    def __init__(self, detector: Predictor, recogniser: Predictor) -> None:
        record = detector.manifest.recogniser
        if record is None:
            raise UserError("the detector's bundle states no recogniser", hint="build the bundle again")
        self._record = record
        self._detector, self._recogniser = detector, recogniser
        both = with_crops(detector.manifest, recogniser.manifest, record)
        self.about = About(both, detector.digest, detector.engine, recogniser.manifest)
        self.manifest, self.digest, self.engine = both, detector.digest, detector.engine
        self.inference_s = detector.inference_s + record.max_crops * recogniser.inference_s

    def predict(self, frames: Pixels) -> Outputs:
        """Run uint8 [N, ...] frames and return every output of both by name."""
        outputs = self._detector.predict(frames)
        rows = [self._recognise(frame, outputs, row) for row, frame in enumerate(frames)]
        return Outputs({**outputs, **{name: np.stack([row[name] for row in rows]) for name in rows[0]}}, self.about)

    def begin(self, frames: Pixels) -> Callable[[], Outputs]:
        """Return what runs them: here nobody else could."""
        return partial(self.predict, frames)

    def _recognise(self, frame: Pixels, outputs: dict[str, Array], row: int) -> dict[str, Array]:
        """The recogniser's outputs for each crop of one frame."""
        boxes = self._chosen(outputs, row)
        size = self._record.max_crops
        crops = [self._recogniser.predict(self._cut(frame, box)) for _, box in boxes]
        numbers = [index for index, _ in boxes] + [NO_BOX] * (size - len(boxes))
        made: dict[str, Array] = {BOX: np.array(numbers, np.int32)}
        for record in self._recogniser.manifest.outputs:
            values = np.zeros((size, *sample_shape(record)), record.dtype)
            for at, given in enumerate(crops):
                values[at] = given[record.name][0]
            made[PREFIX + record.name] = values
        return made

    def _chosen(self, outputs: dict[str, Array], row: int) -> list[tuple[int, Box]]:
        """The boxes to crop, the best first, each with its number."""
        manifest = self._detector.manifest
        rows = {record.name: outputs[record.name][row] for record in manifest.outputs}
        detections = read_detections(manifest, rows) or ()
        boxes = [
            (number, Box(*(math.nan if side is None else side for side in detection.box)))
            for number, detection in enumerate(detections)
            if self._record.label in (None, detection.label)
        ]
        return [(number, box) for number, box in boxes if box.is_drawable][: self._record.max_crops]

    def _cut(self, frame: Pixels, box: Box) -> Pixels:
        """One crop as the recogniser takes it, as often as its batch is long."""
        inner = self._recogniser.manifest.frame
        area = box.grown(self._record.margin, inner.width / inner.height, self._record.offset)
        part = _part(frame, self._detector.manifest.frame, area, (inner.height, inner.width))
        pixels = recolour(part, "rgb" if inner.colour in YUV else inner.colour)
        return np.repeat(in_format(pixels, inner.format)[np.newaxis], inner.batch or 1, 0)


def _part(frame: Pixels, camera: Format, area: Box, size: tuple[int, int]) -> Pixels:
    """What `area` of the frame holds, gray or RGB; of YUV each plane is cropped, and only the crop is decoded."""
    if camera.colour not in YUV:
        part = crop(pixels_of(frame, camera), area, *size)[:, :, :3]
        return part[:, :, ::-1] if camera.colour in ("bgr", "bgra") else part
    luma, chroma = planes_of(frame, camera)
    rows, columns = YUV[camera.colour]
    fewer = Box(area.left / columns, area.top / rows, area.right / columns, area.bottom / rows)
    return colours_of(np.concatenate([crop(luma, area, *size), crop(chroma, fewer, *size)], 2), camera)
