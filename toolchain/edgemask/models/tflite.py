"""TFLite model files."""

from __future__ import annotations

import copy
import io
import struct
import zipfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, cast

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from edgemask.chain import Chain, Rewritten
from edgemask.errors import UserError, one_line
from edgemask.models import ENTROPY, METADATA_KEY, RESERVED, Format, Graph, Model, Node, tflite_card
from edgemask.models.card import Card
from edgemask.models.flatbuffer import operator_name, pack, unpack
from edgemask.models.rewrite_tflite import rewrite
from edgemask.models.rewriting import entropy_end
from edgemask.models.tflite_card import Origin, Tensor, with_labels
from edgemask.models.tflite_cuts import cuts
from edgemask.ops.scope import owner
from edgemask.ops.tflite import TfliteOps, TfliteValue, text
from edgemask.spec import DType
from edgemask.steps import Rewrite
from edgemask_runtime.bundle import SourceRecord
from edgemask_runtime.engines import Engine, TensorInfo, open_engine

SIGNATURE_KEY = "serving_default"
MAX_ENTROPY_BYTES = 1 << 30
MAX_LABELS_BYTES = 1 << 20


class TfliteModel(Model):
    """A TFLite model; the engine's verifier has accepted the file before its bytes are read here."""

    format: ClassVar[Format] = "tflite"
    engine: ClassVar[str] = "litert"

    def __init__(self, path: Path, data: bytes, origin: SourceRecord | None = None) -> None:
        super().__init__(path, data, origin)
        try:
            self._info = open_engine(self.engine, data)
            self._model = unpack(data)
            _check_main_graph(self._model, self._info)
        except UserError as error:
            raise UserError(f"{path}: no sound TFLite model: {error.message}", error.hint) from error
        except (TypeError, ValueError, IndexError, struct.error) as error:
            raise UserError(f"{path}: no sound TFLite model: {one_line(error)}", "export or copy it again") from error

    @cached_property
    def inputs(self) -> tuple[TensorInfo, ...]:
        return self._info.inputs

    @cached_property
    def outputs(self) -> tuple[TensorInfo, ...]:
        return self._info.outputs

    @cached_property
    def metadata(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for entry in self._model.metadata:
            data = self._model.buffers[entry.buffer].data
            if data is not None and text(entry.name) == METADATA_KEY:
                found[METADATA_KEY] = bytes(data).decode(errors="replace")
        return found

    @cached_property
    def labels(self) -> tuple[str, ...] | None:
        return _packed_labels(self.data)

    def sums_whole_numbers(self) -> bool:
        return any(_is_quantised(tensor) for subgraph in self._model.subgraphs for tensor in subgraph.tensors)

    def graph(self) -> Graph:
        subgraph = self._model.subgraphs[0]
        names = _tensor_names(subgraph)
        nodes = tuple(self._node(operator, subgraph, names) for operator in subgraph.operators)
        outputs = {info.name: names[index] for info, index in zip(self.outputs, subgraph.outputs, strict=True)}
        return Graph(nodes, tuple(names[index] for index in subgraph.inputs), outputs)

    def constant(self, name: str) -> NDArray[np.uint8] | None:
        for tensor in self._model.subgraphs[0].tensors:
            data = self._model.buffers[tensor.buffer].data if tensor.buffer < len(self._model.buffers) else None
            if text(tensor.name) == name and tensor.type == schema.TensorType.UINT8 and data is not None:
                return np.frombuffer(bytes(data), np.uint8)[np.newaxis]
        return None

    def graft(self, chain: Chain, metadata: str, published_key: bytes | None = None, card: Card | None = None) -> bytes:
        self.require_trained()
        model = copy.deepcopy(self._model)
        _free_names(model.subgraphs[0])
        entropy = _entropy(model, chain.entropy_bytes)
        rewrite(model, chain.rewrites, entropy)
        _Graft(model, chain, [info.name for info in self.outputs], entropy, published_key).build()
        _set_metadata(model, METADATA_KEY, metadata.encode())
        if card is None:
            return pack(model)
        _describe(model, card, chain, _origin(self._model))
        return with_labels(pack(model), card)

    def rewritten(self, rewrites: Sequence[Rewritten]) -> TfliteModel:
        model = copy.deepcopy(self._model)
        main = model.subgraphs[0]
        _free_names(main)
        entropy = _entropy(model, entropy_end(rewrites))
        rewrite(model, rewrites, entropy)
        if entropy is not None:
            main.inputs = [*main.inputs, entropy.index]
            names = [f"model/{info.name}" if info.name == ENTROPY else info.name for info in self.inputs]
            inputs = dict(zip([*names, ENTROPY], main.inputs, strict=True))
            _set_signature(model, inputs, dict(zip((info.name for info in self.outputs), main.outputs, strict=True)))
        return TfliteModel(self.path, pack(model), self._origin)

    def rewrite_bytes(self, rewrites: Sequence[Rewrite]) -> list[int]:
        model = copy.deepcopy(self._model)
        _free_names(model.subgraphs[0])
        return rewrite(model, [Rewritten(0, step, (0, 0)) for step in rewrites], _entropy(model, MAX_ENTROPY_BYTES))

    def probe(self, tensors: Sequence[str]) -> tuple[bytes, dict[str, str]]:
        model = copy.deepcopy(self._model)
        subgraph = model.subgraphs[0]
        index = {name: i for i, name in enumerate(_tensor_names(subgraph))}
        public = dict(zip(subgraph.outputs, (info.name for info in self.outputs), strict=True))
        for name in tensors:
            if index[name] not in public:
                public[index[name]] = name
                subgraph.outputs = [*subgraph.outputs, index[name]]
        names = [info.name for info in self.inputs]
        _set_signature(model, dict(zip(names, subgraph.inputs, strict=True)), {n: i for i, n in public.items()})
        return pack(model), {name: public[index[name]] for name in tensors}

    def _node(self, operator: schema.OperatorT, subgraph: schema.SubGraphT, names: list[str]) -> Node:
        op = operator_name(self._model.operatorCodes[operator.opcodeIndex])
        inputs = [int(index) for index in operator.inputs if index >= 0]
        outputs = [int(index) for index in operator.outputs]
        kinds = [subgraph.tensors[index].type for index in (inputs[0], outputs[0])] if inputs and outputs else []
        truncates = len(kinds) == 2 and kinds[0] in _REAL and kinds[1] not in _REAL
        return Node(
            op,
            owner(names[outputs[0]]) if outputs else None,
            tuple(names[index] for index in inputs),
            tuple(names[index] for index in outputs),
            cuts(op, len(inputs), len(outputs), truncates=truncates),
        )


def _check_main_graph(model: schema.ModelT, engine: Engine) -> None:
    """UserError for what the engine lets pass and a walk of the graph cannot: names twice, numbers of nothing."""
    main = model.subgraphs[0]
    if (len(engine.inputs), len(engine.outputs)) != (len(main.inputs), len(main.outputs)):
        raise UserError("two of its inputs or outputs have one name", "export or copy it again")
    ends = [entry.buffer for entry in model.metadata]
    if any(end >= len(model.buffers) for end in ends):
        raise UserError("its metadata is not in the file", "export or copy it again")


class _Graft:
    """Puts a chain around the model's main subgraph, in place."""

    def __init__(
        self,
        model: schema.ModelT,
        chain: Chain,
        output_names: Sequence[str],
        entropy: TfliteValue | None,
        published_key: bytes | None,
    ) -> None:
        self._entropy = entropy
        self._published_key = published_key
        self._model = model
        self._subgraph = model.subgraphs[0]
        self._chain = chain
        self._ops = TfliteOps(model)
        self._own = list(self._subgraph.operators)
        self._input = int(self._subgraph.inputs[0])
        self._outputs = dict(zip(output_names, (int(index) for index in self._subgraph.outputs), strict=True))
        self._calls = 0

    def build(self) -> None:
        """Write the chain's operators before and after the model's own, new inputs and outputs."""
        chain = self._chain
        frame = self._ops.tensor("frame", "uint8", chain.frame.sample)
        inputs = {"frame": frame.index}
        if self._entropy is not None:
            inputs[ENTROPY] = self._entropy.index
        key = self._key(inputs) if chain.key_bytes else None
        outputs = chain.run(self._ops, frame, self._entropy, self._call, key=key)
        self._subgraph.operators = self._ops.operators
        self._subgraph.inputs = list(inputs.values())
        self._subgraph.outputs = [value.index for value in outputs.values()]
        _set_signature(self._model, inputs, {name: value.index for name, value in outputs.items()})

    def _key(self, inputs: dict[str, int]) -> TfliteValue:
        """The key as one more of the `inputs`, or as a constant."""
        if self._published_key is not None:
            return self._ops.named_const("key", np.frombuffer(self._published_key, np.uint8))
        key = self._ops.tensor("key", "uint8", (self._chain.key_bytes,))
        inputs["key"] = key.index
        return key

    def _call(self, x: TfliteValue) -> dict[str, TfliteValue]:
        self._calls += 1
        if self._calls == 1:
            self._ops.alias(x, self._input)
            self._ops.operators.extend(self._own)
            return {name: self._value(index) for name, index in self._outputs.items()}
        indices = {self._input: self._copied_tensor(self._input)}
        self._ops.alias(x, indices[self._input])
        self._copy_operators(indices)
        return {name: self._value(indices.get(index, index)) for name, index in self._outputs.items()}

    def _copy_operators(self, indices: dict[int, int]) -> None:
        """The model's operators once more, on tensors of their own that go into `indices`; weights are shared."""
        for operator in self._own:
            again = copy.copy(operator)
            for index in operator.outputs:
                indices[int(index)] = self._copied_tensor(int(index))
            again.inputs = [indices.get(int(index), int(index)) for index in operator.inputs]
            again.outputs = [indices[int(index)] for index in operator.outputs]
            self._ops.operators.append(again)

    def _copied_tensor(self, index: int) -> int:
        tensor = copy.copy(self._subgraph.tensors[index])
        tensor.name = f"call{self._calls}/{text(tensor.name)}".encode()
        self._subgraph.tensors.append(tensor)
        return len(self._subgraph.tensors) - 1

    def _value(self, index: int) -> TfliteValue:
        tensor = self._subgraph.tensors[index]
        return TfliteValue(index, cast(DType, _TYPE_NAMES[tensor.type]), tuple(int(size) for size in tensor.shape[1:]))


_TYPE_NAMES: dict[int, str] = {
    value: name.lower() for name, value in vars(schema.TensorType).items() if isinstance(value, int)
}
_REAL = {schema.TensorType.FLOAT16, schema.TensorType.FLOAT32, schema.TensorType.FLOAT64}


def _entropy(model: schema.ModelT, count: int) -> TfliteValue | None:
    """The tensor that becomes the input `entropy`, of so many bytes."""
    return TfliteOps(model).tensor(ENTROPY, "uint8", (count,)) if count else None


def _tensor_names(subgraph: schema.SubGraphT) -> list[str]:
    """Each tensor's name, made unique: the format does not ask for it."""
    names: dict[str, None] = {}
    for index, tensor in enumerate(subgraph.tensors):
        name = text(tensor.name)
        while not name or name in names:
            name = f"{name}#{index}"
        names[name] = None
    return list(names)


def _free_names(subgraph: schema.SubGraphT) -> None:
    """Rename the model's own tensors that have a name which the chain needs; signatures go by number."""
    for tensor in subgraph.tensors:
        name = text(tensor.name)
        if name in RESERVED or owner(name):
            tensor.name = f"model/{name}".encode()


def _set_signature(model: schema.ModelT, inputs: dict[str, int], outputs: dict[str, int]) -> None:
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = SIGNATURE_KEY, 0
    signature.inputs, signature.outputs = _tensor_map(inputs), _tensor_map(outputs)
    others = [entry for entry in model.signatureDefs if entry.subgraphIndex != 0]
    model.signatureDefs = [signature, *others]


def _tensor_map(indices: dict[str, int]) -> list[schema.TensorMapT]:
    entries: list[schema.TensorMapT] = []
    for name, index in indices.items():
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name.encode(), index
        entries.append(entry)
    return entries


def _set_metadata(model: schema.ModelT, name: str, data: bytes) -> None:
    """Put `data` into the file under `name`; what describes the trained model's own input goes."""
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(data, np.uint8)
    model.buffers.append(buffer)
    entry = schema.MetadataT()
    entry.name, entry.buffer = name.encode(), len(model.buffers) - 1
    kept = [other for other in model.metadata if text(other.name) != tflite_card.NAME]
    model.metadata = [*kept, entry]


def _describe(model: schema.ModelT, card: Card, chain: Chain, origin: Origin) -> None:
    """Put TFLite's own metadata into the file; tensors go by the names of the signature, in the subgraph's order."""
    main, signature = model.subgraphs[0], model.signatureDefs[0]
    inputs = _told(main, signature.inputs, main.inputs)
    outputs = _told(main, signature.outputs, main.outputs)
    _set_metadata(model, tflite_card.NAME, tflite_card.metadata(card, chain, inputs, outputs, origin))


def _told(subgraph: schema.SubGraphT, entries: Sequence[schema.TensorMapT], order: Sequence[int]) -> list[Tensor]:
    names = {entry.tensorIndex: text(entry.name) for entry in entries}
    shapes = [subgraph.tensors[int(index)].shape[1:] for index in order]
    told = zip(order, shapes, strict=True)
    return [Tensor(names[int(index)], tuple(int(size) for size in shape)) for index, shape in told]


def _origin(model: schema.ModelT) -> Origin:
    """What the trained model says of its version, author and licence."""
    own = (entry.buffer for entry in model.metadata if text(entry.name) == tflite_card.NAME)
    data = next((model.buffers[buffer].data for buffer in own), None)
    return tflite_card.origin_of(bytes(data)) if data is not None else Origin()


def _packed_labels(data: bytes) -> tuple[str, ...] | None:
    """The label file that TFLite's metadata packs as a ZIP behind the flatbuffer."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [entry for entry in archive.infolist() if "label" in entry.filename.lower()]
            if not names or names[0].file_size > MAX_LABELS_BYTES:
                return None
            return tuple(archive.read(names[0]).decode(errors="replace").splitlines())
    except (zipfile.BadZipFile, ValueError, OSError, RuntimeError, NotImplementedError):
        return None


def _is_quantised(tensor: schema.TensorT) -> bool:
    scale = tensor.quantization.scale if tensor.quantization else None
    whole = (schema.TensorType.INT8, schema.TensorType.UINT8)
    return tensor.type in whole and scale is not None and len(scale) > 0
