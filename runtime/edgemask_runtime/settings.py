"""Device settings: which models run here, what they see and who hears of it; nothing that a bundle states itself."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from edgemask_runtime.addresses import SHAPE, Address, is_address
from edgemask_runtime.archive import NAME
from edgemask_runtime.cameras import CAMERAS, camera_settings
from edgemask_runtime.engines import ENGINES
from edgemask_runtime.errors import UserError, closest
from edgemask_runtime.files import read_bytes
from edgemask_runtime.sinks import SINKS, sink_settings
from edgemask_runtime.strict_json import Faults, Rule, between, matching, parse, parse_number, structure

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_SETTINGS_BYTES = 1 << 20
HINT = "docs/formats.md, device settings; `edgemaskd check FILE` reads them and starts nothing"

T = TypeVar("T")


@dataclass(frozen=True)
class DoorSettings:
    """Where a server listens; off loopback it needs a certificate and either a token or the clients' authority."""

    listen: str = field(metadata=Rule(SHAPE, is_address).metadata)
    certificate: Path | None = None
    private_key: Path | None = None
    client_ca: Path | None = None
    token_file: Path | None = None


@dataclass(frozen=True)
class ModelSettings:
    """A bundle under the name that pipelines and clients use, its engine's threads and its key, if it takes one.

    It runs in a process of its own, which is ended and started again when it gives no sign of life for `deadline_s` or
    uses more than `memory_mb` of its own. Local programs of the daemon's user, and of `group`, reach it at `socket`.
    """

    name: str = field(metadata=matching(NAME))
    bundle: Path
    engine: str | None = None
    threads: int = field(default=1, metadata=between(1, 256))
    key: Path | None = None
    socket: Path | None = None
    group: str | None = None
    deadline_s: float = field(default=5.0, metadata=between(0.1, 600))
    memory_mb: int | None = field(default=None, metadata=between(1, 1 << 20))


@dataclass(frozen=True)
class Part:
    """A source or a sink: its kind, and the settings of that kind's own class."""

    kind: str
    settings: Any


class SourcePart(Part):
    """A source of the table of cameras."""

    @classmethod
    def from_parsed(cls, value: Any, path: str, faults: Faults) -> SourcePart | None:
        """Build it from a table with `kind` and that kind's settings."""
        return _part(cls, value, path, faults, CAMERAS, camera_settings)


class SinkPart(Part):
    """A sink of the table of sinks."""

    @classmethod
    def from_parsed(cls, value: Any, path: str, faults: Faults) -> SinkPart | None:
        """Build it from a table with `kind` and that kind's settings."""
        return _part(cls, value, path, faults, SINKS, sink_settings)


@dataclass(frozen=True)
class PipelineSettings:
    """A source, the model that answers its frames, and the sinks; what the manifest limits may only be tightened.

    `max_age_ms` and each of `thresholds` is at most the manifest's. A live source that gives nothing for `stall_s` is
    opened again.
    """

    name: str = field(metadata=matching(NAME))
    model: str
    source: SourcePart
    sinks: tuple[SinkPart, ...] = ()
    max_age_ms: int | None = field(default=None, metadata=between(1, 3_600_000))
    thresholds: dict[str, float] = field(default_factory=dict)
    stall_s: float = field(default=10.0, metadata=between(0.1, 3600))
    max_frames: int | None = field(default=None, metadata=between(1, 2**53))


@dataclass(frozen=True)
class Settings:
    """All of a device's settings; paths are absolute, or relative to where the daemon was started."""

    schema: Literal[1]
    http: DoorSettings | None = None
    grpc: DoorSettings | None = None
    models: tuple[ModelSettings, ...] = ()
    pipelines: tuple[PipelineSettings, ...] = ()


def read_settings(path: Path) -> Settings:
    """Read and check a TOML or JSON file; one UserError names every fault.

    Its paths are relative to its folder; of a link, to the folder of what it points to.
    """
    text = _text(path)
    faults = Faults(str(path))
    parsed = parse(text, str(path)) if path.suffix == ".json" else _parse_toml(text, path)
    settings: Settings | None = structure(Settings, parsed, "$", faults)
    if settings is not None:
        check_together(settings, faults)
    if settings is None or faults:
        raise faults.error(HINT)
    return rebased(settings, path.resolve().parent)


def check_together(settings: Settings, faults: Faults) -> None:
    """Check what no field can know alone."""
    _check_names("models", [model.name for model in settings.models], faults)
    _check_names("pipelines", [pipeline.name for pipeline in settings.pipelines], faults)
    for index, model in enumerate(settings.models):
        if model.engine is not None:
            _check_known(f"$.models[{index}].engine", model.engine, ENGINES, faults)
        if model.group is not None and model.socket is None:
            faults.add(f"$.models[{index}].socket", "missing", allowed="socket and group together, or socket alone")
    for index, pipeline in enumerate(settings.pipelines):
        _check_known(f"$.pipelines[{index}].model", pipeline.model, [model.name for model in settings.models], faults)
    for name, door in (("http", settings.http), ("grpc", settings.grpc)):
        if door:
            for fault in door_faults(door):
                faults.add(f"$.{name}.{fault.field}", fault.problem, allowed=fault.allowed)
    if not settings.models:
        faults.add("$.models", "missing", allowed="at least one [[models]]")
    elif not (settings.pipelines or settings.http or settings.grpc):
        faults.add("$", "nothing to do", allowed="at least one of [[pipelines]], [http] and [grpc]")


class DoorFault(NamedTuple):
    """What a door lacks: the setting, what is there, what may be there, and the same as a sentence."""

    field: str
    problem: str
    allowed: str
    sentence: str


def door_faults(door: DoorSettings) -> Iterator[DoorFault]:
    """Why a door may not open, as far as its settings alone can say; `listen` is an address."""
    if (door.certificate is None) != (door.private_key is None):
        lacking, together = "private_key" if door.certificate else "certificate", "certificate and private_key"
        yield DoorFault(lacking, "missing", f"{together} together", f"{together} come together")
    if door.client_ca and not door.certificate:
        allowed = "clients are known by TLS only"
        yield DoorFault("client_ca", "without a certificate", allowed, f"client_ca without a certificate: {allowed}")
    if Address.parse(door.listen).is_loopback:
        return
    given, away = f"value {door.listen!r}", "away from loopback a server"
    if not door.certificate:
        yield DoorFault("listen", given, "loopback, or certificate and private_key", f"{away} needs TLS")
    if not (door.client_ca or door.token_file):
        yield DoorFault("listen", given, "loopback, or token_file, or client_ca", f"{away} must know who asks")


def rebased(value: T, folder: Path) -> T:
    """The same settings with every relative path put behind `folder`."""
    made: Any = value
    if isinstance(value, Path):
        made = folder / value.expanduser()
    elif isinstance(value, tuple):
        made = tuple(rebased(item, folder) for item in value)
    elif is_dataclass(value) and not isinstance(value, type):
        fields = {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
        made = dataclasses.replace(value, **{name: rebased(item, folder) for name, item in fields.items()})
    return made  # type: ignore[no-any-return]


def _text(path: Path) -> str:
    try:
        return read_bytes(path, limit_bytes=MAX_SETTINGS_BYTES).decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text") from error


def _parse_toml(text: str, path: Path) -> Any:
    try:
        return tomllib.loads(text, parse_float=parse_number)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid TOML: {error}", HINT) from error


def _part(
    made: Callable[[str, Any], T],
    value: Any,
    path: str,
    faults: Faults,
    table: Iterable[str],
    settings_of: Callable[[str], Any],
) -> T | None:
    if not isinstance(value, dict) or not isinstance(value.get("kind"), str):
        faults.add(f"{path}.kind", "missing", allowed=", ".join(table))
        return None
    kind = value["kind"]
    form = (
        _settings_class(path, kind, faults, settings_of) if _check_known(f"{path}.kind", kind, table, faults) else None
    )
    if form is None:
        return None
    before = len(faults)
    settings = structure(form, {name: item for name, item in value.items() if name != "kind"}, path, faults)
    return made(kind, settings) if len(faults) == before else None


def _settings_class(path: str, kind: str, faults: Faults, settings_of: Callable[[str], Any]) -> Any:
    """The class of a kind's settings, None where what it needs is not installed."""
    try:
        return settings_of(kind)
    except UserError as error:
        faults.add(f"{path}.kind", error.message, allowed=error.hint)
        return None


def _check_known(path: str, word: str, allowed: Iterable[str], faults: Faults) -> bool:
    words = list(allowed)
    if word not in words:
        faults.add(path, f"value {word!r}", allowed=", ".join(words) or "none is stated", match=closest(word, words))
    return word in words


def _check_names(section: str, names: list[str], faults: Faults) -> None:
    for index, name in enumerate(names):
        if name in names[:index]:
            faults.add(f"$.{section}[{index}].name", f"value {name!r}", allowed="a name of its own")
