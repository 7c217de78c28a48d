"""Parity: the baked file on its own engine against the reference chain and the trained model on its engine."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemask.artefact import Artefact
from edgemask.chain import Chain, Link, Rewritten
from edgemask.decibels import decibels
from edgemask.errors import UserError
from edgemask.models import ENTROPY, Graph, Model
from edgemask.models.rewriting import sites_of
from edgemask.ops.numpy import NumpyOps
from edgemask.ops.protocol import Array
from edgemask.proof import prove
from edgemask.spec import Spec
from edgemask.steps import Map, Wrap
from edgemask_runtime.engines import Engine, open_engine

Frames = Sequence[NDArray[np.uint8]]
MAX_DIFFERING_SHARE = 1e-4
"""Of whole numbers: rounding may fall to the other side where an engine sums in another order."""
MAX_RELATIVE_ERROR = 1e-4
"""Of real numbers, against the largest of them."""
MODEL = "the model's input"
OTHER_DRAWS = 16
SEED = 20180201


@dataclass(frozen=True)
class Agreement:
    """One step or output over all frames: how many values were compared and how far apart they were."""

    name: str
    values: int
    differing_share: float
    max_difference: float
    passed: bool


@dataclass(frozen=True)
class Distance:
    """How far an output is from the unquantised model's: signal over error in dB, and the largest difference."""

    name: str
    sqnr_db: float
    max_difference: float


@dataclass(frozen=True)
class Parity:
    """What a run of the baked file showed.

    `outputs` is empty when no trained model was there to compare with: then only the prefix was verified.
    `replays`: the same entropy gave the same answer, and other entropy another masked tensor (None without entropy).
    `keyed`: the same of the key (None without a key that the file takes). `fp32`: how far the outputs of a quantised
    model are from those of the trained one; that is no fault.
    """

    engine: str
    images: int
    random_frames: int
    steps: tuple[Agreement, ...]
    outputs: tuple[Agreement, ...]
    replays: bool | None
    keyed: bool | None = None
    fp32: tuple[Distance, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether everything that was compared agrees."""
        decided = self.replays is not False and self.keyed is not False
        return decided and all(entry.passed for entry in (*self.steps, *self.outputs))

    def require(self) -> None:
        """UserError that names what differs, unless parity holds."""
        failed = [entry for entry in (*self.steps, *self.outputs) if not entry.passed]
        for name, decides in (("entropy", self.replays), ("key", self.keyed)):
            if decides is False:
                raise UserError(f"parity fails: the {name} input does not decide the masked tensor")
        if failed:
            lines = [
                f"{e.name}: {e.differing_share:.3%} of values differ, by {e.max_difference:g} at most" for e in failed
            ]
            raise UserError("parity fails: " + "; ".join(lines), "nothing was written; please report this model")

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"passed": self.passed, **asdict(self)}


def _reference(source: Model, chain: Chain) -> Engine:
    """The trained model, rewritten where the chain says so; each rewritten node is compared with NumPy besides."""
    return (source.rewritten(chain.rewrites) if chain.rewrites else source).open()


def random_frames(frame: Spec, count: int) -> list[NDArray[np.uint8]]:
    """Frames of uniform noise, the same ones every time: [1, ...] each."""
    source = np.random.default_rng(SEED)
    return [source.integers(0, 256, (1, *frame.sample), np.uint8) for _ in range(count)]


def verify_chain(
    artefact: Artefact,
    chain: Chain,
    randoms: Frames,
    source: Model | None = None,
    images: Frames = (),
    exact: tuple[Model, Chain] | None = None,
) -> Parity:
    """Run the baked file on every frame and compare step by step, and its outputs if `source` is given.

    `exact` is the trained model where `source` is quantised, and its chain: how far `images` are off is told apart.
    """
    trial = _Trial(artefact, chain)
    frames = [_batched(frame, artefact.label.frame.batch) for frame in (*images, *randoms)]
    steps, outputs = _Tally(), _Tally()
    trained = _reference(source, chain) if source else None
    for index, frame in enumerate(frames):
        drawn = trial.draw(len(frame), entropy=index, key=index)
        trial.compare_steps(frame, drawn, steps)
        if trained is not None:
            trial.compare_outputs(frame, drawn, trained, outputs)
    replays = trial.replays(frames[0]) if chain.entropy_bytes else None
    keyed = trial.keyed(frames[0]) if chain.key_bytes and artefact.published_key is None else None
    compared = steps.agreements(), outputs.agreements()
    fp32 = trial.distances(frames[: len(images)], *exact) if exact else ()
    return Parity(trial.engine_name, len(images), len(randoms), *compared, replays, keyed, fp32)


@dataclass(frozen=True)
class _Drawn:
    """The bytes that a run takes beside its frame, [N, bytes] each."""

    entropy: Array | None
    key: Array | None


class _Trial:
    """A baked file opened twice: as it is, and with the end of every step as a further output."""

    def __init__(self, artefact: Artefact, chain: Chain) -> None:
        model, graph = artefact.model, artefact.model.graph()
        self._chain = chain
        self._published_key = artefact.published_key
        self._ends = step_ends(graph, chain)
        self._entry = prove(graph).lift_at[:1]
        self._sites = {inside: sites_of(graph, inside) for inside in chain.rewrites}
        inner = [name for sites in self._sites.values() for site in sites for name in site]
        data, self._probes = model.probe([*self._ends.values(), *self._entry, *inner])
        self._probed = open_engine(model.engine, data)
        self._engine = model.open()
        self.engine_name = str(self._engine.info)

    def draw(self, batch: int, *, entropy: int = 0, key: int = 0) -> _Drawn:
        """The draws of these numbers, the same ones every time; a published key is what it is."""
        secret = (
            _random_bytes((1, self._chain.key_bytes), key, 1) if self._published_key is None else self._published_key
        )
        return _Drawn(
            _random_bytes((batch, self._chain.entropy_bytes), entropy) if self._chain.entropy_bytes else None,
            np.repeat(secret, batch, 0) if self._chain.key_bytes else None,
        )

    def compare_steps(self, frame: Array, drawn: _Drawn, tally: _Tally) -> None:
        """Each step alone, on what the baked file itself gave it, and whether the model takes what the last one gave.

        A step that left no node must be one that changes nothing.
        """
        given = self._probed.run(self._feeds(frame, drawn))
        x = frame
        for link in self._chain.links:
            if isinstance(link.step, Map):
                expected = link.step.build(NumpyOps(), x, _share(link, drawn))
                x = given[self._probes[self._ends[link.index]]] if link.index in self._ends else x
                tally.add(link.name, expected, x, whole=link.gives.dtype != "float32")
                x = x if x.shape == expected.shape else expected
        for name in self._entry:
            tally.add(MODEL, x, given[self._probes[name]], whole=True)
        for inside, sites in self._sites.items():
            values = [given[self._probes[taken]] for taken, _ in sites]
            shares = _site_shares(inside, values, drawn.entropy)
            for taken, share, (_, made) in zip(values, shares, sites, strict=True):
                expected = inside.step.build(NumpyOps(), taken, share)
                tally.add(inside.name, expected, given[self._probes[made]], whole=False, exact=inside.step.exact)

    def compare_outputs(self, frame: Array, drawn: _Drawn, trained: Engine, tally: _Tally) -> None:
        """The whole file against the reference chain around the trained model."""
        given = self._engine.run(self._feeds(frame, drawn))
        expected = self._chain.run(
            NumpyOps(), frame, drawn.entropy, lambda x: trained.run(_model_feeds(trained, x, drawn)), key=drawn.key
        )
        if expected.keys() != given.keys():
            raise UserError(f"parity fails: the outputs are {', '.join(given)}, not {', '.join(expected)}")
        for output, value in expected.items():
            tally.add(output, value, given[output], whole=value.dtype.kind in "iub")

    def distances(self, frames: Frames, exact: Model, chain: Chain) -> tuple[Distance, ...]:
        """How far each output of real numbers is from those of the unquantised model in the same chain."""
        engine = exact.open()
        name, most = engine.inputs[0].name, dict[str, float]()
        signal, error = defaultdict[str, float](float), defaultdict[str, float](float)
        for index, frame in enumerate(frames):
            drawn = self.draw(len(frame), entropy=index, key=index)
            given = self._engine.run(self._feeds(frame, drawn))
            wanted = chain.run(
                NumpyOps(), frame, drawn.entropy, lambda x: engine.run({name: _contiguous(x)}), key=drawn.key
            )
            for output, value in wanted.items():
                if value.dtype.kind == "f" and value.shape == given[output].shape:
                    apart = value.astype(np.float64) - given[output]
                    signal[output] += float(np.sum(value.astype(np.float64) ** 2))
                    error[output] += float(np.sum(apart**2))
                    most[output] = max(most.get(output, 0.0), float(np.max(np.abs(apart), initial=0.0)))
        return tuple(Distance(output, decibels(signal[output], error[output]), most[output]) for output in most)

    def replays(self, frame: Array) -> bool:
        """The same entropy gives the same masked tensors, and one of 16 other draws gives others."""
        others = (self.draw(len(frame), entropy=number) for number in range(1, OTHER_DRAWS + 1))
        links = [link for link in self._chain.links if link.entropy[0] < link.entropy[1]]
        inside = [inside for inside in self._sites if inside.entropy[0] < inside.entropy[1]]
        return self._decides(frame, others, links, inside)

    def keyed(self, frame: Array) -> bool:
        """The same key gives the same masked tensors, and one of 16 other keys gives others."""
        others = (self.draw(len(frame), key=number) for number in range(1, OTHER_DRAWS + 1))
        return self._decides(frame, others, [link for link in self._chain.links if link.key[0] < link.key[1]])

    def _decides(
        self, frame: Array, others: Iterable[_Drawn], links: Sequence[Link], inside: Sequence[Rewritten] = ()
    ) -> bool:
        first, again = (self._given(frame, self.draw(len(frame)), links, inside) for _ in range(2))
        return _same(first, again) and any(
            not _same(first, self._given(frame, other, links, inside)) for other in others
        )

    def _given(self, frame: Array, drawn: _Drawn, links: Sequence[Link], inside: Sequence[Rewritten]) -> list[Array]:
        """What the steps give: of a Wrap, which gives no tensor of its own, all outputs."""
        given = self._probed.run(self._feeds(frame, drawn))
        ends = [self._probes[self._ends[link.index]] for link in links if link.index in self._ends]
        ends += [self._probes[made] for rewritten in inside for _, made in self._sites[rewritten]]
        outputs = self._chain.outputs if any(isinstance(link.step, Wrap) for link in links) else ()
        return [given[name] for name in (*ends, *outputs)]

    def _feeds(self, frame: Array, drawn: _Drawn) -> dict[str, Array]:
        feeds = {"frame": frame, "entropy": drawn.entropy, "key": drawn.key if self._published_key is None else None}
        return {name: value for name, value in feeds.items() if value is not None}


class _Tally:
    """Collects how far values are apart, by name."""

    def __init__(self) -> None:
        self._found: dict[str, list[Agreement]] = {}

    def add(self, name: str, expected: Array, given: Array, *, whole: bool, exact: bool = True) -> None:
        """Compare one pair of arrays; `whole` numbers must be equal, but for a few that fall to the other side.

        So may a few real numbers that are not `exact`: those that hang on a comparison.
        """
        entry = Agreement(name, expected.size, 1.0, float(np.finfo(np.float64).max), passed=False)
        if expected.shape == given.shape:
            entry = agreement(name, expected, given, whole=whole, exact=exact)
        self._found.setdefault(name, []).append(entry)

    def agreements(self) -> tuple[Agreement, ...]:
        """One line a name over all frames."""
        return tuple(_summed(entries) for entries in self._found.values())


def agreement(name: str, expected: Array, given: Array, *, whole: bool, exact: bool = True) -> Agreement:
    """How far two arrays of one shape are apart; `whole` numbers, and those not `exact`, may differ in a few places."""
    apart = _apart(expected.astype(np.float64), given.astype(np.float64))
    reach = max(1.0, float(np.max(np.abs(expected[np.isfinite(expected)]), initial=0)))
    limit = 0.0 if whole else MAX_RELATIVE_ERROR * reach
    share = float(np.mean(apart > limit)) if apart.size else 0.0
    passed = share <= (MAX_DIFFERING_SHARE if whole or not exact else 0.0)
    return Agreement(name, apart.size, share, float(np.max(apart, initial=0)), passed)


def _apart(expected: NDArray[np.float64], given: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far apart, as finite numbers; the same infinity and two that are no number are not apart."""
    with np.errstate(invalid="ignore"):
        apart = np.nan_to_num(np.abs(expected - given), nan=np.finfo(np.float64).max)
    return np.where((expected == given) | (np.isnan(expected) & np.isnan(given)), 0.0, apart)


def step_ends(graph: Graph, chain: Chain) -> dict[int, str]:
    """The tensor that each Map of the chain gives, by the step's index; steps that left no node are not in it."""
    return {
        link.index: end
        for link in chain.links
        if isinstance(link.step, Map)
        for end in [_end(graph, link.name)]
        if end is not None
    }


def _end(graph: Graph, step: str) -> str | None:
    """The first tensor of the step's nodes that others read."""
    made = [name for node in graph.nodes if node.step == step for name in node.outputs]
    outside = {name for node in graph.nodes if node.step != step for name in node.inputs}
    return next((name for name in made if name in outside), None)


def _summed(entries: Sequence[Agreement]) -> Agreement:
    values = sum(entry.values for entry in entries)
    differing = sum(entry.differing_share * entry.values for entry in entries)
    return Agreement(
        entries[0].name,
        values,
        differing / max(values, 1),
        max(entry.max_difference for entry in entries),
        all(entry.passed for entry in entries),
    )


def _random_bytes(shape: tuple[int, int], *number: int) -> NDArray[np.uint8]:
    return np.random.default_rng((SEED, *number)).integers(0, 256, shape, np.uint8)


def _share(link: Link, drawn: _Drawn) -> Array | None:
    given, begin, end = link.share(drawn.entropy, drawn.key)
    return None if given is None or begin == end else given[:, begin:end]


def _site_shares(inside: Rewritten, x: Sequence[Array], entropy: Array | None) -> list[Array | None]:
    """The entropy of each rewritten node, given what went into it."""
    needs = [inside.step.entropy_bytes(taken.shape[1:]) for taken in x]
    ends = list(accumulate(needs, initial=inside.entropy[0]))
    if ends[-1] != inside.entropy[1]:
        size = inside.entropy[1] - inside.entropy[0]
        raise UserError(f"{inside.name} takes {sum(needs)} bytes of entropy, not {size} as stated", "bake it again")
    return [entropy[:, a:b] if entropy is not None and a < b else None for a, b in pairwise(ends)]


def _model_feeds(trained: Engine, x: Array, drawn: _Drawn) -> dict[str, Array]:
    """What the trained model takes: its image, and the same entropy as the baked file if it was rewritten with any."""
    feeds = {info.name: drawn.entropy if info.name == ENTROPY else _contiguous(x) for info in trained.inputs}
    return {name: value for name, value in feeds.items() if value is not None}


def _batched(frame: NDArray[np.uint8], batch: int | None) -> NDArray[np.uint8]:
    return frame if batch in (None, 1) else np.repeat(frame, batch, 0)


def _contiguous(x: Array) -> Array:
    return np.ascontiguousarray(x)


def _same(first: Sequence[Array], second: Sequence[Array]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
