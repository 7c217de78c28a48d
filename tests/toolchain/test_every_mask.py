"""What holds for every mask that there is: engines agree, samples do not mix, the spec and the listing are true."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

import edgemask
from edgemask.listing import step_catalogue
from edgemask.spec import Spec
from edgemask.steps import Mask

from .harness import INTERPRETERS, Array, read_bytes, stepped
from .mask_trials import MASKS, PICTURES, SETTINGS, SMALL, entropy_for, mask_of
from .pictures import RGB, cropped, spec_of

MAX_FLIPS = 1e-4


def assert_agrees(mask: Mask, given: Array, expected: Array, why: str) -> None:
    """Identical, or for a mask that is not exact all but 0.01 %."""
    if mask.exact:
        np.testing.assert_array_equal(given, expected, err_msg=why)
    assert np.mean(given != expected) <= MAX_FLIPS, why


def trials() -> Iterator[object]:
    """Every setting on every picture; on the largest one those that are not the usual ones are for the long form."""
    largest = max(PICTURES, key=lambda name: PICTURES[name].size)
    for text, picture in itertools.product(SETTINGS, PICTURES):
        long = picture == largest and text not in MASKS
        yield pytest.param(text, picture, marks=[pytest.mark.slow] if long else [])


@pytest.mark.parametrize(("text", "picture"), list(trials()))
def test_engines_give_what_numpy_gives(text: str, picture: str) -> None:
    mask, frame = mask_of(text), PICTURES[picture][None]
    entropy = entropy_for(mask, frame)
    expected = stepped(mask, frame, entropy)
    for interpreter in INTERPRETERS:
        assert_agrees(mask, stepped(mask, frame, entropy, interpreter), expected, interpreter)


@pytest.mark.parametrize("text", SETTINGS)
def test_samples_do_not_mix(text: str) -> None:
    mask = mask_of(text)
    frames = np.stack([cropped(name, 33, 47) for name in RGB[:3]])
    entropy = entropy_for(mask, frames)
    alone = [stepped(mask, frames[i : i + 1], None if entropy is None else entropy[i : i + 1]) for i in range(3)]
    for interpreter in ("numpy", "onnx-13"):
        assert_agrees(mask, stepped(mask, frames, entropy, interpreter), np.concatenate(alone), interpreter)


@pytest.mark.parametrize("text", SETTINGS)
@settings(max_examples=10, deadline=None)
@given(frame=SMALL)
def test_the_spec_says_what_comes_out(text: str, frame: Array) -> None:
    mask = mask_of(text)
    spec = mask.spec(spec_of(frame[0]))
    y = stepped(mask, frame, entropy_for(mask, frame))
    assert y.shape[1:] == spec.sample
    assert spec.range is not None
    assert spec.range[0] <= y.min() <= y.max() <= spec.range[1]
    np.testing.assert_array_equal(y, np.rint(y))


@pytest.mark.parametrize("interpreter", ["onnx-18", "tflite"])
@pytest.mark.parametrize("text", SETTINGS)
def test_the_declared_cut_is_the_graphs(text: str, interpreter: str) -> None:
    """From the frame alone: entropy is no path of the attacker's."""
    mask, frame = mask_of(text), np.zeros((1, 24, 32, 3), np.uint8)
    entropy = entropy_for(mask, frame)
    inputs = [frame] if entropy is None else [frame, entropy]
    graph = read_bytes(interpreter, lambda ops, x, *more: mask.build(ops, x, *more or (None,)), inputs).graph()
    reached = {"x0"}
    for node in graph.nodes:
        live = [position for position, name in enumerate(node.inputs) if name in reached]
        reached |= {name for o, name in enumerate(node.outputs) if any((i, o) not in node.cuts for i in live)}
    assert (not reached & set(graph.outputs.values())) is mask.cuts


@pytest.mark.parametrize("kind", MASKS)
def test_the_listing_is_true(kind: str) -> None:
    entry = next(entry for entry in step_catalogue() if entry["kind"] == kind)
    needs = MASKS[kind]().entropy_bytes(Spec.image(224, 224, "rgb"))
    assert entry["deterministic"] is (needs == 0)
    assert (entry["family"] == "stochastic") is (needs > 0)
    assert all(entry[key] for key in ("paper", "claim", "fate", "summary"))


@pytest.mark.parametrize("kind", [kind for kind, cls in MASKS.items() if not cls.retrain])
def test_it_bakes_into_both_families(kind: str, tmp_path: Path) -> None:
    for name in ("torch_nchw.onnx", "keras_float.tflite"):
        source = Path(__file__).parents[1] / "models" / name
        baked = edgemask.bake(source, tmp_path / name, masks=[kind])
        assert baked.parity.passed
        assert baked.proof.masked is MASKS[kind].cuts
