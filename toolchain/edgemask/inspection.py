"""What a file's own graph shows: steps, cuts, proof."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgemask.artefact import as_artefact
from edgemask.baking import Baked
from edgemask.errors import UserError
from edgemask.listing import chain_text
from edgemask.models import METADATA_KEY, Model, read_model
from edgemask.proof import Proof, prove
from edgemask.releasing.showing import inspected
from edgemask.signing import public_key
from edgemask_runtime.engines import TensorInfo
from edgemask_runtime.release import SUFFIX


def inspect(path: str | Path, key: str | Path | None = None) -> dict[str, Any]:
    """A model file, baked or not, as plain data: format, inputs, outputs, steps and the proof from its graph.

    A release: what it is, for whom, who signed it, and what in it takes how much. With `key`, the file or name of a
    public key, UserError unless that key signed it.
    """
    if Path(path).suffix == SUFFIX:
        return inspected(Path(path), None if key is None else public_key(key))
    if key is not None:
        raise UserError(f"{path}: only a release is signed", f"name a {SUFFIX} file, or leave --key out")
    model = read_model(Path(path))
    return {"file": str(path), **describe(model, prove(model.graph()))}


def explain(baked: Baked) -> str:
    """The chain of a baked file as a table: step, what goes in and out, bytes of entropy, whether it cuts."""
    return chain_text(describe(baked.artefact.model, baked.proof))


def describe(model: Model, proof: Proof) -> dict[str, Any]:
    """A model and its proof as plain data."""
    return {
        "format": model.format,
        "sha256": model.sha256,
        "inputs": [_port(info) for info in model.inputs],
        "outputs": [_port(info) for info in model.outputs],
        "source": _source(model),
        "key": _key(model),
        "steps": _steps(model, proof),
        "proof": proof.to_json(),
    }


def _source(model: Model) -> dict[str, Any] | None:
    """The trained model that the label names, and how it was converted."""
    return asdict(as_artefact(model).label.source) if METADATA_KEY in model.metadata else None


def _key(model: Model) -> dict[str, Any] | None:
    """What the label says of the key; never the key."""
    key = as_artefact(model).label.key if METADATA_KEY in model.metadata else None
    return asdict(key) if key else None


def _port(info: TensorInfo) -> dict[str, Any]:
    return {"name": info.name, "dtype": info.dtype, "shape": list(info.shape)}


def _steps(model: Model, proof: Proof) -> list[dict[str, Any]]:
    """The steps that the label names, with what the graph shows of each."""
    if METADATA_KEY not in model.metadata:
        return []
    notes = enumerate(as_artefact(model).label.chain, 1)
    return [
        {
            "kind": note.kind,
            "role": note.role,
            "params": note.parameters,
            "takes": note.takes,
            "gives": note.gives,
            "entropy_bytes": note.entropy_bytes,
            "key_bytes": note.key_bytes,
            "cuts": proof.steps.get(f"{index}.{note.kind}", False),
        }
        for index, note in notes
    ]
