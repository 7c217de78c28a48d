"""The probe: answers to frames that anyone can make, recorded when a bundle is built and replayed on the device."""

from __future__ import annotations

import hashlib
import math
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from edgemask_runtime.engines import Array, Engine
from edgemask_runtime.entropy import expand
from edgemask_runtime.errors import UserError
from edgemask_runtime.formats import Pixels
from edgemask_runtime.manifest import Manifest, OutputRecord
from edgemask_runtime.strict_json import Faults, structure

EVIDENCE_KEY = "probe"
ROUNDS = 2
BLOCK = 16
MAX_VALUES = 256
SAME_ERROR = 1e-4
SAME_DB = 120.0
LEAST_REACH = 0.01
FLOAT_DB, INEXACT_DB, WHOLE_SUMS_DB = 60.0, 40.0, 15.0
"""What another processor's outputs must reach: of float sums; of steps or numbers that round; of int8 sums."""
INSTRUCTIONS = "avx avx2 fma avx512f avx512_vnni avx_vnni avx512_fp16 amx_int8 asimd asimddp asimdhp i8mm sve bf16"
MEASURED = ("probabilities", "top-scores", "scores", "embedding", "value", "suspicion")
"""Roles whose values are near where the sums are; boxes, classes and indices change places between equal scores."""


@dataclass(frozen=True)
class ProbedOutput:
    """An output of one frame: its shape, and evenly chosen values of it, null where they are not finite."""

    name: str
    frame: int
    shape: tuple[int, ...]
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class Probe:
    """What the building machine saw, and on what: engine, version, provider, processor.

    There everything must be the same again; elsewhere `elsewhere_db` is the least signal over error of real outputs.
    """

    schema: Literal[1]
    engine: str
    provider: str
    machine: str
    elsewhere_db: float
    outputs: tuple[ProbedOutput, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


class Replayed(NamedTuple):
    """What was compared, in words, and how long one inference took."""

    compared: str
    inference_s: float


def record(manifest: Manifest, engine: Engine, elsewhere_db: float) -> Probe:
    """Run the probe's frames and keep what came."""
    given, _ = _answers(manifest, engine)
    outputs = tuple(
        ProbedOutput(name, number, value.shape, _listed(_chosen(value))) for (name, number), value in given.items()
    )
    return Probe(1, str(engine.info), engine.info.provider, machine(), elsewhere_db, outputs)


def replay(manifest: Manifest, engine: Engine, evidence: Mapping[str, Any], where: str) -> Replayed:
    """Run the frames again and say what was compared; UserError when this machine answers otherwise.

    Without a probe in the evidence the engine is only warmed up.
    """
    given, inference_s = _answers(manifest, engine)
    if EVIDENCE_KEY not in evidence:
        return Replayed("no probe in its evidence", inference_s)
    return Replayed(_compared(manifest, engine, given, read_probe(evidence, where), where), inference_s)


def _compared(
    manifest: Manifest, engine: Engine, given: Mapping[tuple[str, int], Array], probe: Probe, where: str
) -> str:
    here = (str(engine.info), engine.info.provider, machine())
    same = here == (probe.engine, probe.provider, probe.machine)
    if same:
        _compare(probe.outputs, given, SAME_DB, where)
        return "the same as where it was built"
    measured = {output.name for output in manifest.outputs if _is_measured(output)}
    compared = [output for output in probe.outputs if output.name in measured]
    _compare(compared, given, probe.elsewhere_db, where)
    return f"{len(compared)} of {len(probe.outputs)} outputs like {probe.engine} ({probe.provider}, {probe.machine})"


def read_probe(evidence: Mapping[str, Any], where: str) -> Probe:
    """The probe of a bundle's evidence."""
    faults = Faults(f"{where}: evidence.json")
    probe: Probe | None = structure(Probe, evidence[EVIDENCE_KEY], f"$.{EVIDENCE_KEY}", faults)
    if probe is None or faults:
        raise faults.error("build the bundle again")
    return probe


def _compare(
    outputs: Sequence[ProbedOutput], given: Mapping[tuple[str, int], Array], least_db: float, where: str
) -> None:
    for output in outputs:
        value = given.get((output.name, output.frame), np.empty(0))
        agreed_db = agreement_db(output.values, _chosen(value)) if value.shape == output.shape else -math.inf
        if agreed_db < least_db:
            hint = "the engine here computes otherwise: install the version that built it, or build for this machine"
            raise UserError(
                f"{where}: on this machine the model answers otherwise than where it was built: {output.name!r} agrees"
                f" to {agreed_db:.0f} dB, of {least_db:.0f}",
                hint,
            )


def _is_measured(output: OutputRecord) -> bool:
    """Whether small errors leave it near: no row changes its place, and its size is not found in the frame."""
    numbers = output.role in MEASURED or (output.role == "raw" and output.dtype.startswith("float"))
    return numbers and None not in output.shape[1:]


def agreement_db(expected: tuple[float | None, ...], given: Array) -> float:
    """Signal over error in dB; 120 where no value is off by more than 1e-4 of the largest.

    What is not finite must be so.
    """
    finite = np.array([value is not None for value in expected], bool)
    if len(expected) != len(given) or not np.array_equal(finite, np.isfinite(given)):
        return -math.inf
    wanted = np.array([value for value in expected if value is not None], np.float64)
    apart = np.abs(wanted - given[finite])
    if np.all(apart <= SAME_ERROR * float(np.max(np.abs(wanted), initial=LEAST_REACH))):
        return SAME_DB
    signal, error = float(np.sum(wanted**2)), float(np.sum(apart**2))
    return 10 * math.log10(signal / error) if signal > 0 else -math.inf


def machine() -> str:
    """The processor's architecture and the instructions that decide how an engine sums."""
    known = set(INSTRUCTIONS.split())
    lines: list[str] = []
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return " ".join([platform.machine(), *sorted(known & set(flags.split()))])


def frames(manifest: Manifest) -> Iterator[Pixels]:
    """The probe's frames, one a round, as often as the batch is long: noise, and blocks of noise."""
    shape, batch = manifest.frame.shape, manifest.frame.batch or 1
    for number in range(ROUNDS):
        noise = expand(_seed(f"frame {number}"), math.prod(shape))
        frame = noise.reshape(shape)
        if number % 2:
            frame = frame[: -(-shape[0] // BLOCK)].repeat(BLOCK, 0)[: shape[0]]
        yield np.repeat(frame[np.newaxis], batch, 0)


def _answers(manifest: Manifest, engine: Engine) -> tuple[dict[tuple[str, int], Array], float]:
    """Every output of every frame, and the time in s of the last one: the first also warms the engine up."""
    given: dict[tuple[str, int], Array] = {}
    took_s = 0.0
    for number, frame in enumerate(frames(manifest)):
        feeds, begun_s = _feeds(manifest, frame, number), time.monotonic()
        outputs = engine.run(feeds)
        took_s = time.monotonic() - begun_s
        given |= {(name, number): value for name, value in outputs.items()}
    return given, took_s


def _feeds(manifest: Manifest, frame: Pixels, number: int) -> dict[str, Array]:
    """Not the device's key and no entropy of its own: both are the probe's, like the frames."""
    feeds: dict[str, Array] = {manifest.frame.name: frame}
    if manifest.entropy:
        drawn = expand(_seed(f"entropy {number}"), manifest.entropy.bytes)
        feeds[manifest.entropy.name] = np.tile(drawn, (len(frame), 1))
    if manifest.key and not manifest.key.published:
        feeds[manifest.key.name] = np.tile(expand(_seed("key"), manifest.key.bytes), (len(frame), 1))
    return feeds


def _seed(what: str) -> bytes:
    return hashlib.sha256(f"edgemask probe {what}".encode()).digest()


def _chosen(value: Array) -> Array:
    """Up to so many of the values, evenly chosen."""
    flat = value.ravel()
    count = min(MAX_VALUES, flat.size)
    chosen: Array = flat[np.arange(count) * flat.size // max(count, 1)].astype(np.float64)
    return chosen


def _listed(values: Array) -> tuple[float | None, ...]:
    return tuple(float(value) if math.isfinite(value) else None for value in values)
