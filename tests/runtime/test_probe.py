"""The probe against models that compute a little, or altogether, otherwise."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgemask_runtime.bundle import Bundle, write_bundle
from edgemask_runtime.engines import open_engine
from edgemask_runtime.errors import UserError
from edgemask_runtime.predictor import Predictor
from edgemask_runtime.probe import FLOAT_DB, WHOLE_SUMS_DB, Probe, agreement_db, frames, machine, record, replay
from edgemask_runtime.supervisor import Supervisor
from edgemask_runtime.worker_process import ModelOptions

from .tiny import CLASSES, PIXELS, SHAPE, manifest_of, model_bytes

Weights = np.ndarray[Any, Any]


def small(weights: Weights) -> Weights:
    """Weights under which no class has all of the probability."""
    return weights * 0.05


def probed(weights: Weights, engine: str = "onnxruntime", *, noisy: bool = True, elsewhere_db: float = FLOAT_DB) -> Any:
    model = model_bytes(weights, engine, noisy)
    manifest = manifest_of(model, engine, noisy)
    return manifest, open_engine(engine, model), record(manifest, open_engine(engine, model), elsewhere_db)


def evidence(probe: Probe, **changes: Any) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps({"probe": dataclasses.replace(probe, **changes).to_json()}))
    return plain


def test_the_answers_are_those_of_the_formula(weights: Weights) -> None:
    manifest, _, probe = probed(small(weights), noisy=False)
    for output, frame in zip(probe.outputs, frames(manifest), strict=True):
        logits = frame.reshape(PIXELS).astype(np.float64) @ small(weights).T
        expected = np.exp(logits) / np.exp(logits).sum()
        np.testing.assert_allclose(output.values, expected, rtol=1e-5)
        assert output.shape == (1, CLASSES)


def test_frames_are_the_same_everywhere(weights: Weights) -> None:
    noise, blocks = frames(manifest_of(b"", "onnxruntime", noisy=False))
    seed = hashlib.sha256(b"edgemask probe frame 0").digest()
    assert noise.tobytes() == hashlib.shake_128(seed).digest(PIXELS)
    assert noise.shape == blocks.shape == (1, *SHAPE)
    assert (blocks == blocks[:, :1]).all()


@pytest.mark.parametrize("engine", ["onnxruntime", "litert"])
def test_the_same_machine_must_answer_the_same(weights: Weights, engine: str) -> None:
    manifest, opened, probe = probed(small(weights), engine)
    assert replay(manifest, opened, evidence(probe), "x").compared == "the same as where it was built"
    nearly = open_engine(engine, model_bytes(small(weights) * 1.01, engine, True))
    with pytest.raises(UserError, match=r"x: on this machine .* 'probabilities' agrees to \d+ dB, of 120") as caught:
        replay(manifest, nearly, evidence(probe), "x")
    assert "build for this machine" in str(caught.value.hint)


def test_another_machine_must_come_near(weights: Weights) -> None:
    manifest, _, probe = probed(small(weights))
    elsewhere = evidence(probe, machine="aarch64 asimd asimddp")
    other_engine = open_engine("litert", model_bytes(small(weights), "litert", True))
    assert replay(manifest, other_engine, elsewhere, "x").compared.startswith("2 of 2 outputs like onnxruntime")
    for factor, near in ((1.0001, True), (1.05, False), (-1.0, False)):
        other = open_engine("onnxruntime", model_bytes(small(weights) * factor, "onnxruntime", True))
        if near:
            replay(manifest, other, elsewhere, "x")
        else:
            with pytest.raises(UserError, match="of 60"):
                replay(manifest, other, elsewhere, "x")


def test_int8_sums_need_not_be_as_near(weights: Weights) -> None:
    manifest, _, probe = probed(small(weights), elsewhere_db=WHOLE_SUMS_DB)
    source = np.random.default_rng(0)
    coarse = np.round(small(weights) * 127 / 0.0005) / 127 * 0.0005
    other = open_engine("onnxruntime", model_bytes(coarse, "onnxruntime", True))
    replay(manifest, other, evidence(probe, machine="aarch64"), "x")
    noise = source.normal(size=weights.shape) * 0.0005
    broken = open_engine("onnxruntime", model_bytes(noise, "onnxruntime", True))
    with pytest.raises(UserError, match="of 15"):
        replay(manifest, broken, evidence(probe, machine="aarch64"), "x")


@pytest.mark.parametrize(
    ("expected", "given", "db"),
    [
        ((1.0, 2.0), (1.0, 2.0), 120),
        ((1.0, 2.0), (1.0, 2.0001), 120),
        ((10.0, 0.0), (10.0, 1.0), 20),
        ((1.0, 0.0), (0.0, 1.0), -3),
        ((1.0, None), (1.0, math.nan), 120),
        ((1.0, 2.0), (1.0, math.nan), -math.inf),
        ((1.0, None), (1.0, 2.0), -math.inf),
        ((1.0,), (1.0, 2.0), -math.inf),
        ((0.0, 0.0), (1.0, 2.0), -math.inf),
    ],
)
def test_agreement_is_signal_over_error(expected: Any, given: Any, db: float) -> None:
    assert agreement_db(expected, np.array(given)) == pytest.approx(db, abs=0.5)


def test_the_processor_is_named() -> None:
    words = machine().split()
    assert words[0] in ("x86_64", "aarch64", "armv7l")
    assert set(words[1:]) <= set(Path("/proc/cpuinfo").read_text().split())


def bundle_with(path: Path, weights: Weights, probe: Any) -> Path:
    model = model_bytes(weights, "onnxruntime", True)
    manifest = manifest_of(model, "onnxruntime", True)
    write_bundle(path, manifest, {manifest.model.file: model}, {"probe": probe})
    return path


def test_a_bundle_that_fails_its_probe_never_takes_over(weights: Weights, tmp_path: Path) -> None:
    good = bundle_with(tmp_path / "good", small(weights), probed(small(weights))[2].to_json())
    wrong = bundle_with(tmp_path / "wrong", weights, probed(small(weights))[2].to_json())
    with Supervisor([ModelOptions("tiny", good)]) as running:
        before = running.models["tiny"].process_id
        with pytest.raises(UserError, match=r"wrong: on this machine the model answers otherwise"):
            running.reload("tiny", wrong)
        assert running.models["tiny"].process_id == before
        assert running.models["tiny"].predict(np.zeros((1, *SHAPE), np.uint8)).keys() == {"probabilities"}


@pytest.mark.parametrize("broken", [None, 7, {"schema": 2}, {"schema": 1, "engine": "x"}])
def test_a_broken_probe_is_one_clear_error(weights: Weights, tmp_path: Path, broken: Any) -> None:
    path = bundle_with(tmp_path / "tiny", weights, broken)
    with pytest.raises(UserError, match=r"evidence.json: \$.probe") as caught:
        Predictor.open(Bundle.open(path))
    assert caught.value.hint == "build the bundle again"
