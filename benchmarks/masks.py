"""Each mask in the graph, on ONNX Runtime and on LiteRT with one thread, against the same algorithm outside the graph.

    python -m benchmarks.masks [KIND ...] [--seconds 1.0] [--json]

Times are medians of one run, in turn, so that a busy machine hurts all alike; read the ratios. The limit is the time
to copy the frame once; beside it stands the share of a MobileNetV2 on ORT at 224 x 224, timed in the same turns. What
stands outside: Pillow (jpeg), scipy (median), NumPy; nothing where no library has the algorithm.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import median_filter

from benchmarks.mobilenet import mobilenet_v2
from edgemask.listing import columns
from edgemask.models.flatbuffer import pack
from edgemask.ops.onnx import OnnxOps, OnnxValue, value_info
from edgemask.ops.tflite import TfliteOps
from edgemask.spec import Spec
from edgemask.steps import Mask, parse_step, registry
from edgemask_runtime.engines import Engine, open_engine

Pixels = NDArray[np.uint8]
SIZES = {"224×224": (224, 224), "640×480": (480, 640)}
VARIANTS = ("jpeg:subsampling=4:2:0", "noise:distribution=uniform")


def onnx_engine(mask: Mask, spec: Spec) -> Engine:
    """The mask alone as an ONNX graph."""
    ops, frame = OnnxOps(18), OnnxValue("frame", "uint8", spec.sample)
    needs = mask.entropy_bytes(spec) + mask.key_bytes(spec)
    entropy = OnnxValue("entropy", "uint8", (needs,)) if needs else None
    with ops.scope("1.mask"):
        end = ops.alias(mask.build(ops, frame, entropy), "end")
    inputs = [value_info(value, 1) for value in (frame, entropy) if value]
    graph = onnx.helper.make_graph(ops.nodes, "mask", inputs, [value_info(end, 1)], ops.initializers)
    opsets = [onnx.helper.make_opsetid("", 18)]
    return open_engine(
        "onnxruntime", onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    )


def tflite_engine(mask: Mask, spec: Spec) -> Engine:
    """The mask alone as a TFLite graph."""
    model, subgraph = schema.ModelT(), schema.SubGraphT()
    model.version, model.subgraphs, model.operatorCodes, model.buffers = 3, [subgraph], [], [schema.BufferT()]
    subgraph.tensors, subgraph.operators = [], []
    ops = TfliteOps(model)
    values = [ops.tensor("frame", "uint8", spec.sample)]
    needs = mask.entropy_bytes(spec) + mask.key_bytes(spec)
    values += [ops.tensor("entropy", "uint8", (needs,))] if needs else []
    end = mask.build(ops, values[0], values[1] if needs else None)
    subgraph.operators = ops.operators
    subgraph.inputs, subgraph.outputs = [value.index for value in values], [end.index]
    return open_engine("litert", pack(model))


def outside(mask: Mask, frame: Pixels) -> dict[str, Callable[[], Any]]:
    """What a user would run in front of the model instead, if there is such a thing."""
    source = np.random.default_rng(0)
    peers: dict[str, Callable[[], Any]] = {
        "jpeg": partial(_pillow, frame, getattr(mask, "quality", 75), getattr(mask, "subsampling", "")),
        "median": lambda: median_filter(frame, (3, 3, 1), mode="nearest"),
        "bit-depth": lambda: np.rint(np.rint(frame * np.float32(15 / 255)) * np.float32(17)),
        "thermometer": lambda: (frame[..., None] >= np.arange(1, 17) * 256 // 17).astype(np.float32),
        "noise": lambda: np.clip(frame + np.rint(source.normal(0, 8, frame.shape)), 0, 255).astype(np.float32),
    }
    return {"outside": peers[mask.kind]} if mask.kind in peers else {}


def _pillow(frame: Pixels, quality: int, subsampling: str) -> Pixels:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=quality, subsampling=subsampling)
    return np.asarray(Image.open(file))


def medians_ms(candidates: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """The median time of each candidate, in turn, until all together took `seconds`; five rounds at least."""
    for run in candidates.values():
        run()
    rounds: list[list[float]] = []
    while len(rounds) < 5 or np.sum(rounds) < seconds:
        rounds.append([_timed(run) for run in candidates.values()])
    return {name: 1000 * float(median) for name, median in zip(candidates, np.median(rounds, 0), strict=True)}


def _timed(run: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def measure(text: str, size: tuple[int, int], seconds: float) -> dict[str, float]:
    """One row: milliseconds on each engine, outside the graph, and for one copy of the frame."""
    mask = parse_step(text, ("mask",))
    assert isinstance(mask, Mask)
    spec = Spec.image(*size, "rgb", 1)
    source = np.random.default_rng(0)
    smooth = Image.fromarray(source.integers(0, 256, (size[0] // 8, size[1] // 8, 3), np.uint8)).resize(size[::-1])
    frame = np.asarray(smooth)
    feeds: dict[str, Any] = {"frame": frame[None]}
    if needs := mask.entropy_bytes(spec) + mask.key_bytes(spec):
        feeds["entropy"] = source.integers(0, 256, (1, needs), np.uint8)
    ort, lite = onnx_engine(mask, spec), tflite_engine(mask, spec)
    lite_feeds = dict(zip((info.name for info in lite.inputs), feeds.values(), strict=True))
    candidates = {"ort": partial(ort.run, feeds), "litert": partial(lite.run, lite_feeds)}
    network = open_engine("onnxruntime", mobilenet_v2())
    image = source.random((1, 3, 224, 224), np.float32)
    candidates |= {"copy": frame.copy, "mobilenet": partial(network.run, {"image": image})}
    return medians_ms({**candidates, **outside(mask, frame)}, seconds)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help="masks to measure; all if none is named")
    parser.add_argument("--seconds", type=float, default=1.0, help="time for each row")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    kinds = options.kinds or [*sorted(kind for kind, cls in registry().items() if issubclass(cls, Mask)), *VARIANTS]
    cases = [(mask, name, size) for mask in kinds for name, size in SIZES.items()]
    found = [{"mask": mask, "size": name, **measure(mask, size, options.seconds)} for mask, name, size in cases]
    if options.json:
        print(json.dumps(found, indent=2))
        return
    header = ("mask", "size", "ORT ms", "LiteRT ms", "outside ms", "ORT/outside", "ORT/copy", "ORT/MobileNetV2")
    print(columns(header, map(_row, found)))


def _row(entry: dict[str, Any]) -> tuple[str, ...]:
    ort, peer = entry["ort"], entry.get("outside")
    beside = ("-", "-") if peer is None else (f"{peer:.2f}", f"{ort / peer:.2f}")
    shares = (f"{ort / entry['copy']:.0f}", f"{ort / entry['mobilenet']:.0%}")
    return (entry["mask"], entry["size"], f"{ort:.2f}", f"{entry['litert']:.2f}", *beside, *shares)


if __name__ == "__main__":
    main()
