from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgemask_runtime.engines import ENGINES, Engine, available, open_engine
from edgemask_runtime.errors import UserError

from . import tiny_tflite
from .tiny import CLASSES, PIXELS, SHAPE, model_bytes, picture

INSTALLED = ["onnxruntime", "litert"]


@pytest.fixture(params=INSTALLED)
def engine(request: pytest.FixtureRequest, weights: np.ndarray[Any, Any]) -> Engine:
    return open_engine(request.param, model_bytes(weights, request.param, noisy=True))


def feeds(answer: int, noise: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    return {"frame": picture(answer)[None], "entropy": np.full((1, PIXELS), noise, np.uint8)}


def test_the_tensors_are_described(engine: Engine) -> None:
    described = {info.name: (info.dtype, info.shape[1:]) for info in (*engine.inputs, *engine.outputs)}
    assert described == {
        "frame": ("uint8", SHAPE),
        "entropy": ("uint8", (PIXELS,)),
        "probabilities": ("float32", (CLASSES,)),
    }
    batch = {info.shape[0] for info in engine.inputs}
    assert batch == ({None} if engine.info.name == "onnxruntime" else {1})
    assert engine.info.version[0].isdigit()
    assert engine.info.provider == {"onnxruntime": "cpu", "litert": "xnnpack"}[engine.info.name]


def test_an_engine_answers_and_its_outputs_are_copies(engine: Engine) -> None:
    first = engine.run(feeds(2))["probabilities"]
    kept = first.copy()
    assert first.argmax() == 2
    assert engine.run(feeds(1))["probabilities"].argmax() == 1
    np.testing.assert_array_equal(first, kept)


def test_engines_agree(weights: np.ndarray[Any, Any]) -> None:
    answers = [open_engine(name, model_bytes(weights, name, True)).run(feeds(3, 77)) for name in INSTALLED]
    np.testing.assert_allclose(answers[0]["probabilities"], answers[1]["probabilities"], atol=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"frame": picture(0)[None]},
        {**feeds(0), "key": np.zeros(1)},
        {**feeds(0), "frame": picture(0)},
        {**feeds(0), "frame": picture(0)[None].astype(np.float32)},
        {**feeds(0), "entropy": np.zeros((1, PIXELS - 1), np.uint8)},
    ],
)
def test_wrong_feeds_are_told_what_is_expected(engine: Engine, wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError) as caught:
        engine.run(wrong)
    assert "frame: uint8 [" in str(caught.value.hint)


@pytest.mark.parametrize("name", INSTALLED)
@pytest.mark.parametrize("content", [b"", b"hello, this is no model", bytes(4) + b"TFL3" + bytes(99)])
def test_what_is_no_model_is_one_line(name: str, content: bytes) -> None:
    with pytest.raises(UserError, match=r"\A.* does not load the model: .+\Z"):
        open_engine(name, content)


@pytest.mark.parametrize("name", INSTALLED)
def test_a_truncated_model_is_refused(name: str, weights: np.ndarray[Any, Any]) -> None:
    content = model_bytes(weights, name, noisy=True)
    for size in (40, len(content) // 2):
        with pytest.raises(UserError, match="does not load"):
            open_engine(name, content[:size])


@pytest.mark.parametrize("name", INSTALLED)
def test_a_model_may_be_a_path(name: str, weights: np.ndarray[Any, Any], tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(model_bytes(weights, name, noisy=False))
    assert (
        open_engine(name, tmp_path / "model", threads=2).run({"frame": picture(3)[None]})["probabilities"].argmax() == 3
    )
    with pytest.raises(UserError):
        open_engine(name, tmp_path / "absent")


def test_an_unknown_engine_gets_the_closest() -> None:
    with pytest.raises(UserError) as caught:
        open_engine("onnx-runtime", b"")
    assert caught.value.hint == "did you mean 'onnxruntime'? allowed: litert, onnxruntime, tflite"


def test_an_engine_that_is_not_installed_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = next(name for name in ENGINES if name not in available())
    with pytest.raises(UserError) as caught:
        open_engine(missing, b"")
    assert caught.value.hint == f"pip install 'edgemask-runtime[{missing}]'"


def test_without_a_signature_the_tensors_names_are_used(weights: np.ndarray[Any, Any]) -> None:
    engine = open_engine("litert", tiny_tflite.classifier(weights, SHAPE, noisy=False, signed=False))
    assert [info.name for info in (*engine.inputs, *engine.outputs)] == ["serving_frame", "softmax"]


def test_intermediates_can_be_kept(weights: np.ndarray[Any, Any]) -> None:
    model = model_bytes(weights, "litert", noisy=True)
    engine = open_engine("litert", model, preserve_all_tensors=True)
    engine.run(feeds(1, 5))
    np.testing.assert_array_equal(engine.tensor("noisy"), picture(1).reshape(1, PIXELS) + np.float32(5))
    np.testing.assert_array_equal(engine.tensor("flat"), picture(1).reshape(1, PIXELS))
    with pytest.raises(UserError, match="no tensor"):
        engine.tensor("absent")
    with pytest.raises(UserError, match="not kept"):
        open_engine("litert", model).tensor("noisy")


def test_onnxruntime_says_that_it_keeps_none(weights: np.ndarray[Any, Any]) -> None:
    model = model_bytes(weights, "onnxruntime", noisy=False)
    with pytest.raises(UserError, match="keeps no intermediate"):
        open_engine("onnxruntime", model, preserve_all_tensors=True)
    with pytest.raises(UserError, match="keeps no intermediate"):
        open_engine("onnxruntime", model).tensor("flat")


def test_litert_does_not_chatter(weights: np.ndarray[Any, Any], capfd: pytest.CaptureFixture[str]) -> None:
    open_engine("litert", model_bytes(weights, "litert", noisy=False))
    assert capfd.readouterr().err == ""


def test_only_the_chosen_engine_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "edgemask_runtime.engines.onnxruntime_engine", raising=False)
    with pytest.raises(UserError, match="no TFLite file"):
        open_engine("litert", b"")


def onnx_model(weights: np.ndarray[Any, Any]) -> bytes:
    return model_bytes(weights, "onnxruntime", noisy=False)


def test_the_first_provider_that_is_there_is_used_and_said(
    weights: np.ndarray[Any, Any], caplog: pytest.LogCaptureFixture
) -> None:
    engine = open_engine("onnxruntime", onnx_model(weights), providers=["tensorrt", "cuda", "cpu"])
    assert engine.info.provider == "cpu"
    assert caplog.messages == [
        "runs on provider cpu; tensorrt: this onnxruntime does not have it; cuda: this onnxruntime does not have it"
    ]
    assert engine.run({"frame": picture(2)[None]})["probabilities"].argmax() == 2


def test_without_an_allowed_provider_nothing_runs(weights: np.ndarray[Any, Any]) -> None:
    with pytest.raises(UserError, match=r"no provider that is allowed .* cuda: this onnxruntime does not") as caught:
        open_engine("onnxruntime", onnx_model(weights), providers=["cuda"])
    assert "`providers`" in str(caught.value.hint)
    with pytest.raises(UserError, match="unknown provider 'cudo'"):
        open_engine("onnxruntime", onnx_model(weights), providers=["cudo"])


def test_a_provider_that_gives_way_in_silence_is_refused(
    weights: np.ndarray[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime lists CUDA although its libraries do not load, and takes the CPU: here it really does."""
    import onnxruntime

    model = onnx_model(weights)
    listed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)
    with (
        pytest.warns(UserWarning, match="not in available provider names"),
        pytest.raises(UserError, match="cuda: ONNX Runtime took CPUExecutionProvider instead"),
    ):
        open_engine("onnxruntime", model, providers=["cuda"])


def test_tflite_engines_have_no_providers(weights: np.ndarray[Any, Any]) -> None:
    with pytest.raises(UserError, match="has no providers to choose from"):
        open_engine("litert", model_bytes(weights, "litert", noisy=False), providers=["cpu"])
