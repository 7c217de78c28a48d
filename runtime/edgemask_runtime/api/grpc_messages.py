"""The messages of GRPCInferenceService, as the Open Inference Protocol and Triton's extensions number them.

They live in a pool of their own: two packages that put `inference.*` into protobuf's common pool end each other's
process, and Triton's client is such a package.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"
SCALARS = {
    name: getattr(FieldDescriptorProto, f"TYPE_{name.upper()}")
    for name in ("bool", "bytes", "double", "float", "int32", "int64", "string", "uint32", "uint64")
}

NAMED = "1 name string, 2 version string"
DURATIONS = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss")
REPOSITORY_REQUEST = "1 repository_name string, 2 model_name string, 3 parameters <ModelRepositoryParameter"
TENSOR_PARAMETERS = "parameters <InferParameter"

MESSAGES = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "1 live bool",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "1 ready bool",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "1 name string, 2 version string, 3 extensions *string",
    "ModelReadyRequest": NAMED,
    "ModelReadyResponse": "1 ready bool",
    "ModelMetadataRequest": NAMED,
    "ModelMetadataResponse": "1 name string, 2 versions *string, 3 platform string, 4 inputs *TensorMetadata,"
    " 5 outputs *TensorMetadata",
    "TensorMetadata": "1 name string, 2 datatype string, 3 shape *int64",
    "ModelConfigRequest": NAMED,
    "ModelConfigResponse": "1 config ModelConfig",
    "ModelConfig": "1 name string, 2 platform string, 17 backend string, 3 version_policy ModelVersionPolicy,"
    " 4 max_batch_size int32, 5 input *ModelInput, 6 output *ModelOutput, 7 instance_group *ModelInstanceGroup,"
    " 14 parameters <ModelParameter",
    "ModelVersionPolicy": "1 latest LatestVersions",
    "LatestVersions": "1 num_versions uint32",
    "ModelInput": "1 name string, 2 data_type %DataType, 4 dims *int64",
    "ModelOutput": "1 name string, 2 data_type %DataType, 3 dims *int64",
    "ModelInstanceGroup": "1 name string, 4 kind %Kind, 2 count int32",
    "ModelParameter": "1 string_value string",
    "InferParameter": "1 bool_param |bool, 2 int64_param |int64, 3 string_param |string, 4 double_param |double,"
    " 5 uint64_param |uint64",
    "InferTensorContents": "1 bool_contents *bool, 2 int_contents *int32, 3 int64_contents *int64,"
    " 4 uint_contents *uint32, 5 uint64_contents *uint64, 6 fp32_contents *float, 7 fp64_contents *double,"
    " 8 bytes_contents *bytes",
    "ModelInferRequest": f"1 model_name string, 2 model_version string, 3 id string, 4 {TENSOR_PARAMETERS},"
    " 5 inputs *InferInputTensor, 6 outputs *InferRequestedOutputTensor, 7 raw_input_contents *bytes",
    "InferInputTensor": f"1 name string, 2 datatype string, 3 shape *int64, 4 {TENSOR_PARAMETERS},"
    " 5 contents InferTensorContents",
    "InferRequestedOutputTensor": f"1 name string, 2 {TENSOR_PARAMETERS}",
    "ModelInferResponse": f"1 model_name string, 2 model_version string, 3 id string, 4 {TENSOR_PARAMETERS},"
    " 5 outputs *InferOutputTensor, 6 raw_output_contents *bytes",
    "InferOutputTensor": f"1 name string, 2 datatype string, 3 shape *int64, 4 {TENSOR_PARAMETERS},"
    " 5 contents InferTensorContents",
    "ModelStreamInferResponse": "1 error_message string, 2 infer_response ModelInferResponse",
    "ModelStatisticsRequest": NAMED,
    "ModelStatisticsResponse": "1 model_stats *ModelStatistics",
    "ModelStatistics": f"{NAMED}, 3 last_inference uint64, 4 inference_count uint64, 5 execution_count uint64,"
    " 6 inference_stats InferStatistics, 7 batch_stats *InferBatchStatistics, 8 memory_usage *MemoryUsage",
    "InferStatistics": ", ".join(f"{at} {name} StatisticDuration" for at, name in enumerate(DURATIONS, 1)),
    "InferBatchStatistics": "1 batch_size uint64, 2 compute_input StatisticDuration, 3 compute_infer StatisticDuration,"
    " 4 compute_output StatisticDuration",
    "StatisticDuration": "1 count uint64, 2 ns uint64",
    "MemoryUsage": "1 type string, 2 id int64, 3 byte_size uint64",
    "ModelRepositoryParameter": "1 bool_param |bool, 2 int64_param |int64, 3 string_param |string,"
    " 4 bytes_param |bytes",
    "RepositoryIndexRequest": "1 repository_name string, 2 ready bool",
    "RepositoryIndexResponse": "1 models *ModelIndex",
    "ModelIndex": f"{NAMED}, 3 state string, 4 reason string",
    "RepositoryModelLoadRequest": REPOSITORY_REQUEST,
    "RepositoryModelLoadResponse": "",
    "RepositoryModelUnloadRequest": REPOSITORY_REQUEST,
    "RepositoryModelUnloadResponse": "",
    "SystemSharedMemoryStatusRequest": "1 name string",
    "SystemSharedMemoryStatusResponse": "1 regions <RegionStatus",
    "RegionStatus": "1 name string, 2 key string, 3 offset uint64, 4 byte_size uint64",
    "SystemSharedMemoryRegisterRequest": "1 name string, 2 key string, 3 offset uint64, 4 byte_size uint64",
    "SystemSharedMemoryRegisterResponse": "",
    "SystemSharedMemoryUnregisterRequest": "1 name string",
    "SystemSharedMemoryUnregisterResponse": "",
    "CudaSharedMemoryStatusRequest": "1 name string",
    "CudaSharedMemoryStatusResponse": "",
    "CudaSharedMemoryRegisterRequest": "1 name string",
    "CudaSharedMemoryRegisterResponse": "",
    "CudaSharedMemoryUnregisterRequest": "1 name string",
    "CudaSharedMemoryUnregisterResponse": "",
    "TraceSettingRequest": "1 settings <TraceValue, 2 model_name string",
    "TraceSettingResponse": "1 settings <TraceValue",
    "TraceValue": "1 value *string",
    "LogSettingsRequest": "1 settings <LogValue",
    "LogSettingsResponse": "1 settings <LogValue",
    "LogValue": "1 bool_param |bool, 2 uint32_param |uint32, 3 string_param |string",
}
"""Number, name and type of each field: `*` is repeated, `<` a map from text, `|` one of several, `%` an enumeration.

Messages that others nest inside one another stand side by side here: the wire knows no names of messages.
"""
ENUMS = {
    "DataType": "INVALID BOOL UINT8 UINT16 UINT32 UINT64 INT8 INT16 INT32 INT64 FP16 FP32 FP64 STRING BF16",
    "Kind": "AUTO GPU CPU MODEL",
}
PREFIXES = {"DataType": "TYPE_", "Kind": "KIND_"}


def _file() -> FileDescriptorProto:
    file = FileDescriptorProto(name="edgemask/inference.proto", package=PACKAGE, syntax="proto3")
    for name, words in ENUMS.items():
        enum = file.enum_type.add(name=name)
        for number, word in enumerate(words.split()):
            enum.value.add(name=PREFIXES[name] + word, number=number)
    for name, fields in MESSAGES.items():
        _describe(file.message_type.add(name=name), fields)
    return file


def _describe(message: DescriptorProto, fields: str) -> None:
    for field in filter(None, fields.split(",")):
        number, name, kind = field.split()
        if kind.startswith("|") and not message.oneof_decl:
            message.oneof_decl.add(name="parameter_choice")
        if kind.startswith("<"):
            kind = _map_entry(message, name, kind[1:])
        made = message.field.add(name=name, number=int(number), label=_label(kind))
        _set_type(made, kind.lstrip("*|"))
        if kind.startswith("|"):
            made.oneof_index = 0


def _map_entry(message: DescriptorProto, name: str, kind: str) -> str:
    """Add the message that a map's entries are, and return its type as a repeated field's."""
    entry = message.nested_type.add(name="".join(part.title() for part in name.split("_")) + "Entry")
    entry.options.map_entry = True
    _describe(entry, f"1 key string, 2 value {kind}")
    return f"*{message.name}.{entry.name}"


def _label(kind: str) -> Any:
    return FieldDescriptorProto.LABEL_REPEATED if kind.startswith("*") else FieldDescriptorProto.LABEL_OPTIONAL


def _set_type(field: FieldDescriptorProto, kind: str) -> None:
    if kind in SCALARS:
        field.type = SCALARS[kind]
        return
    field.type = FieldDescriptorProto.TYPE_ENUM if kind.startswith("%") else FieldDescriptorProto.TYPE_MESSAGE
    field.type_name = f".{PACKAGE}.{kind.lstrip('%')}"


def _classes() -> dict[str, Any]:
    pool = DescriptorPool()
    pool.AddSerializedFile(_file().SerializeToString())
    return {name: GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in MESSAGES}


CLASSES = _classes()
"""The class of each message by its name."""
