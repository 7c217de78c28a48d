"""Open the HTTP and the gRPC door on the same models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

from edgemask_runtime.api.access import Access, check_access
from edgemask_runtime.api.control import Control
from edgemask_runtime.api.doors import Doors
from edgemask_runtime.api.regions import Regions
from edgemask_runtime.api.repository import Repository
from edgemask_runtime.errors import UserError
from edgemask_runtime.predictor import Served
from edgemask_runtime.settings import DoorSettings
from edgemask_runtime.web.dashboard import Dashboard


class OpenDoor(Protocol):
    """A server that answers until it is closed."""

    @property
    def url(self) -> str:
        """Where clients ask."""

    def close(self) -> None:
        """Answer what is in hand, then stop."""


def control_of(
    models: Mapping[str, Served],
    repository: Repository | None = None,
    *,
    alarm: Callable[[], str | None] = lambda: None,
    dashboard: Dashboard | None = None,
) -> Control:
    """What the doors have in common; the mapping may change while they are open."""
    return Control(Doors(models), Regions(), repository, alarm, dashboard)


def open_door(protocol: str, control: Control, settings: DoorSettings) -> OpenDoor:
    """Listen for `http` or `grpc`; UserError when the door may not open or cannot."""
    opened = {"http": _open_http, "grpc": _open_grpc}[protocol]
    access = check_access(settings)
    # Shared memory, loading and unloading are for this machine's own programs.
    allowed = control if access.address.is_loopback else replace(control, regions=None, repository=None)
    return opened(allowed, access)


def _open_http(control: Control, access: Access) -> OpenDoor:
    # Why here: whoever opens only the other door loads neither uvicorn nor asyncio.
    from edgemask_runtime.api.http import Api
    from edgemask_runtime.api.server import Server, bind

    return Server(Api(control, access.guard), bind(access.address), access.tls)


def _open_grpc(control: Control, access: Access) -> OpenDoor:
    try:
        # Why here: gRPC is an extra.
        from edgemask_runtime.api.grpc_server import GrpcServer
    except ImportError as error:
        raise UserError("gRPC needs grpcio and protobuf", hint="pip install 'edgemask-runtime[grpc]'") from error
    return GrpcServer(control, access)
