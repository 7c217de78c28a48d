"""What the HTTP and the gRPC door have in common beyond infer: the server itself, shared memory, the repository."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgemask_runtime import __version__
from edgemask_runtime.api.doors import Door, Doors
from edgemask_runtime.api.errors import RequestError
from edgemask_runtime.api.oip import as_object, whole
from edgemask_runtime.api.regions import Regions
from edgemask_runtime.api.repository import Entry, Repository
from edgemask_runtime.errors import UserError

if TYPE_CHECKING:
    from edgemask_runtime.web.dashboard import Dashboard

NAME = "edgemaskd"
EXTENSIONS = ("binary_tensor_data", "model_configuration", "statistics", "model_repository")
SHARED_MEMORY = "system_shared_memory"
NO_CUDA = "CUDA shared memory is not spoken; system shared memory is"
NO_SETTINGS = "tracing and logging are set where the daemon is started, not by clients"
UNLOAD_DEPENDENTS = "unload_dependents"
TRACE_SETTINGS = {
    "trace_level": ["OFF"],
    "trace_rate": "1000",
    "trace_count": "-1",
    "log_frequency": "0",
    "trace_file": "",
    "trace_mode": "triton",
}
LOG_SETTINGS = {
    "log_file": "",
    "log_info": True,
    "log_warning": True,
    "log_error": True,
    "log_verbose_level": 0,
    "log_format": "default",
}
"""What Triton states of tracing and logging, as it is here: tracing is off, the log goes to standard error."""


@dataclass(frozen=True)
class Control:
    """The models, and what clients may do beside asking them.

    `regions` is None where clients may use no shared memory, `repository` where they may not load and unload. `alarm`
    says why the device must not be trusted, if so: it is then not live. `dashboard` is what people look at.
    """

    doors: Doors
    regions: Regions | None = None
    repository: Repository | None = None
    alarm: Callable[[], str | None] = lambda: None
    dashboard: Dashboard | None = None


def server_metadata(control: Control) -> dict[str, Any]:
    """Name, version and the protocol's extensions that are spoken here."""
    extensions = [*EXTENSIONS, *([SHARED_MEMORY] if control.regions else [])]
    return {"name": NAME, "version": __version__, "extensions": extensions}


def regions(control: Control) -> Regions:
    """The registered regions; RequestError where shared memory may not be used."""
    if control.regions is None:
        raise RequestError(400, "shared memory is for clients of this machine")
    return control.regions


def register_region(control: Control, name: str, key: Any, sizes: Mapping[str, Any]) -> None:
    """Register a region of a client's shared memory."""
    offset, size = whole(sizes.get("offset", 0)), whole(sizes.get("byte_size"))
    if not isinstance(key, str) or offset is None or size is None:
        raise RequestError(400, "a region takes 'key', text, and whole numbers 'offset' and 'byte_size'")
    regions(control).register(name, key, offset, size)


def index(control: Control, ready_only: Any) -> list[dict[str, Any]]:
    """The installed bundles, or the loaded models where nothing can be loaded."""
    if not isinstance(ready_only, bool):
        raise RequestError(400, "'ready' must be true or false")
    entries = control.repository.index() if control.repository else map(_loaded, control.doors.all())
    return [
        {"name": entry.name, "version": entry.version, "state": entry.state, "reason": entry.reason}
        for entry in entries
        if entry.state == "READY" or not ready_only
    ]


def _loaded(door: Door) -> Entry:
    return Entry(door.name, door.version, "READY" if door.is_ready else "UNAVAILABLE")


def check_load(request: Mapping[str, Any]) -> None:
    """Refuse whatever would bring a model or its configuration along."""
    for name in as_object(request.get("parameters", {}), "'parameters'"):
        if name != UNLOAD_DEPENDENTS:
            raise RequestError(400, f"{name[:80]!r}: models come from installed bundles alone, nothing can be uploaded")


def load(control: Control, name: str) -> None:
    """Load an installed bundle by its name."""
    _change(control, lambda repository: repository.load(name))


def unload(control: Control, name: str) -> None:
    """Let go of a loaded model."""
    _change(control, lambda repository: repository.unload(name))


def _change(control: Control, change: Callable[[Repository], None]) -> None:
    if control.repository is None:
        raise RequestError(403, "models are loaded and unloaded where the daemon is started, not by clients")
    try:
        change(control.repository)
    except UserError as error:
        raise RequestError(400, error.message) from error
