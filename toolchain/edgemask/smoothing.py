"""Least total variation in a fixed number of steps, for the masks that smooth with it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgemask.ops.protocol import Ops, T

PRIMAL_STEP, DUAL_STEP = 0.25, 0.5
"""Their product is 1/8: the steps converge when it is at most 1 / |gradient|**2, which is 1/8 in two dimensions."""


def least_variation(ops: Ops[T], x: T, keep: T | None, start: T, weight: float, iterations: int) -> T:
    """`start` on its way to the least of 1/2 sum(keep * (z - x)**2) + weight * TV(z), all float32 H x W x C.

    TV is isotropic, each channel for itself; `keep` is 0 or 1, and 1 everywhere when it is None. Chambolle and Pock
    2011, algorithm 1, theta = 1; the dual is held times PRIMAL_STEP.
    """
    height, width, channels = ops.shape(x)
    x, z = (ops.reshape(value, (height, width * channels)) for value in (x, start))
    steps = [(axis, step) for axis, step in ((0, 1), (1, channels)) if ops.shape(x)[axis] > step]
    share, pull = _anchor(ops, x, None if keep is None else ops.reshape(keep, ops.shape(x)))
    duals, ahead = [ops.const(np.zeros((1, 1), np.float32))] * len(steps), z
    for _ in range(iterations if steps else 0):
        slopes = [ops.mul(_slope(ops, ahead, *step), PRIMAL_STEP * DUAL_STEP) for step in steps]
        duals = _within(ops, [ops.add(*pair) for pair in zip(slopes, duals, strict=True)], PRIMAL_STEP * weight)
        before, z = z, ops.add(ops.mul(_descended(ops, z, duals, steps), share), pull)
        ahead = ops.sub(ops.mul(z, 2.0), before)
    return ops.reshape(z, (height, width, channels))


def _anchor(ops: Ops[T], x: T, keep: T | None) -> tuple[T | float, T]:
    """How much of a step stays, and what `x` adds to it: the proximal map of the distance to `x` where it is kept."""
    pulled = PRIMAL_STEP / (1 + PRIMAL_STEP)
    if keep is None:
        return 1 - pulled, ops.mul(x, pulled)
    strength = ops.mul(keep, pulled)
    return ops.add(ops.mul(strength, -1.0), 1.0), ops.mul(x, strength)


def _slope(ops: Ops[T], x: T, axis: int, step: int) -> T:
    """How much further on the next pixel along `axis` is; 0 at the last."""
    size = ops.shape(x)[axis]
    inner = ops.sub(ops.slice(x, axis, step, size), ops.slice(x, axis, 0, size - step))
    return ops.pad(inner, [(0, step if i == axis else 0) for i in range(2)])


def _descended(ops: Ops[T], z: T, duals: Sequence[T], steps: Sequence[tuple[int, int]]) -> T:
    """`z` plus the divergence of `duals`, whose last along their own axis are 0."""
    for dual, (axis, step) in zip(duals, steps, strict=True):
        earlier = ops.slice(dual, axis, 0, ops.shape(dual)[axis] - step)
        shifted = ops.pad(earlier, [(step if i == axis else 0, 0) for i in range(2)])
        z = ops.add(z, ops.sub(dual, shifted))
    return z


def _within(ops: Ops[T], duals: Sequence[T], radius: float) -> list[T]:
    """Each pixel's vector, no longer than `radius`."""
    squares = [ops.mul(dual, dual) for dual in duals]
    length = ops.sqrt(squares[0] if len(squares) == 1 else ops.add(*squares))
    scale = ops.div(ops.const(np.full((1, 1), radius, np.float32)), ops.max(length, radius))
    return [ops.mul(dual, scale) for dual in duals]
