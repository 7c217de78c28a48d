"""The models as clients meet them: by name and version, described without what only the runtime fills."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from edgemask_runtime.about import About, Outputs
from edgemask_runtime.api.errors import RequestError
from edgemask_runtime.api.oip import DATATYPES, InferRequest, batch_limit
from edgemask_runtime.api.statistics import Spent, Statistics
from edgemask_runtime.errors import ModelDown, UserError, closest
from edgemask_runtime.manifest import Manifest
from edgemask_runtime.predictor import Served

VERSION_DIGITS = 12

Encoded = TypeVar("Encoded")
Decode = Callable[[Manifest], InferRequest]


class Door:
    """One model: what it says of itself, and the way in for every protocol."""

    def __init__(self, name: str, served: Served) -> None:
        self.name, self.served = name, served
        self.statistics = Statistics()

    @property
    def about(self) -> About:
        """What is loaded now, or was last; RequestError while nothing ever was."""
        try:
            return self.served.about
        except ModelDown as error:
            raise RequestError(503, error.message) from error

    @property
    def is_ready(self) -> bool:
        """Whether the model answers; a model that is being started again does not."""
        return getattr(self.served, "trouble", None) is None

    @property
    def version(self) -> str:
        """The version that is loaded now."""
        return version_of(self.about)

    def answer(self, decode: Decode, encode: Callable[[InferRequest, Outputs], Encoded], received_ns: int) -> Encoded:
        """Decode a request, run the model on its frames, encode the outputs; all of it is counted."""
        begun = time.perf_counter_ns()
        try:
            request = decode(self.about.manifest)
            decoded = time.perf_counter_ns()
            outputs = self._predict(request)
            predicted = time.perf_counter_ns()
            encoded = encode(request, outputs)
        except BaseException:
            self.statistics.failed(time.perf_counter_ns() - received_ns)
            raise
        spent = Spent(begun - received_ns, decoded - begun, predicted - decoded, time.perf_counter_ns() - predicted)
        self.statistics.answered(len(request.frames), spent)
        return encoded

    def _predict(self, request: InferRequest) -> Outputs:
        try:
            outputs = self.served.predict(request.frames)
            if any(wanted.name not in outputs for wanted in request.outputs):
                raise ModelDown(f"{self.name} was replaced by a bundle of other outputs meanwhile; ask again")
            return outputs
        except ModelDown as error:
            raise RequestError(503, error.message) from error
        except UserError as error:
            raise RequestError(500, error.message) from error

    def metadata(self) -> dict[str, Any]:
        """The model's metadata; entropy and key are the runtime's own and are not shown."""
        manifest = self.about.manifest
        frame = manifest.frame
        return {
            "name": self.name,
            "versions": [self.version],
            "platform": f"{self.about.engine.name}_{manifest.model.format}",
            "inputs": [{"name": frame.name, "datatype": "UINT8", "shape": [frame.batch or -1, *frame.shape]}],
            "outputs": [
                {"name": record.name, "datatype": DATATYPES[record.dtype], "shape": _open_shape(record.shape)}
                for record in manifest.outputs
            ],
        }

    def config(self) -> dict[str, Any]:
        """The model's configuration in Triton's words: sizes without the batch where the batch is free."""
        manifest = self.about.manifest
        frame, free = manifest.frame, manifest.frame.batch is None
        frame_dims = frame.shape if free else (frame.batch, *frame.shape)
        return {
            "name": self.name,
            "platform": f"{self.about.engine.name}_{manifest.model.format}",
            "backend": self.about.engine.name,
            "version_policy": {"latest": {"num_versions": 1}},
            "max_batch_size": batch_limit(frame) if free else 0,
            "input": [{"name": frame.name, "data_type": "TYPE_UINT8", "dims": list(frame_dims)}],
            "output": [
                {
                    "name": record.name,
                    "data_type": f"TYPE_{DATATYPES[record.dtype]}",
                    "dims": _open_shape(record.shape[1:] if free else record.shape),
                }
                for record in manifest.outputs
            ],
            "instance_group": [{"name": f"{self.name}_0", "kind": self._kind(), "count": 1}],
            "parameters": {name: {"string_value": text} for name, text in self._facts().items()},
        }

    def _kind(self) -> str:
        return "KIND_GPU" if self.about.engine.provider in ("cuda", "tensorrt") else "KIND_CPU"

    def _facts(self) -> dict[str, str]:
        """What Triton has no words for; the provider is the one in use, not the one that was wished for."""
        engine = self.about.engine
        return {"digest": self.about.digest, "engine": str(engine), "provider": engine.provider}

    def stats(self) -> dict[str, Any]:
        """The model's counts and times."""
        return {"name": self.name, "version": self.version, **self.statistics.to_dict()}


class Doors:
    """All models that are loaded at the moment; their counts outlive a bundle's swap."""

    def __init__(self, models: Mapping[str, Served]) -> None:
        self._models = models
        self._doors: dict[str, Door] = {}

    def find(self, name: str, version: str = "") -> Door:
        """The model of this name and, if one is given, this version; RequestError when there is none."""
        served = self._models.get(name)
        if served is None:
            raise RequestError(404, f"unknown model {name!r}; {self._known(name)}")
        door = self._doors.get(name)
        if door is None:
            door = self._doors.setdefault(name, Door(name, served))
        door.served = served
        if version not in ("", door.version):
            raise RequestError(404, f"unknown version {version!r} of {name!r}; the one loaded is {door.version}")
        return door

    def all(self) -> list[Door]:
        """Every model, by name."""
        return [self.find(name) for name in sorted(self._models)]

    def _known(self, name: str) -> str:
        match = closest(name, self._models)
        loaded = ", ".join(sorted(self._models)) or "none"
        return f"loaded: {loaded}" + (f"; did you mean {match!r}?" if match else "")


def version_of(about: About) -> str:
    """The first 48 bits of the bundle's digest as a number: perf_analyzer knows no other versions."""
    return str(int(about.digest[:VERSION_DIGITS], 16))


def _open_shape(shape: tuple[int | None, ...]) -> list[int]:
    return [-1 if size is None else size for size in shape]
