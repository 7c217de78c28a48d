"""The page, the live pictures and the metrics, over HTTP."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from edgemask_runtime.api.errors import RequestError
from edgemask_runtime.api.oip import HEADER_LENGTH
from edgemask_runtime.web import PAGE
from edgemask_runtime.web.dashboard import Dashboard
from edgemask_runtime.web.screen import Screen, Shown

if TYPE_CHECKING:
    from edgemask_runtime.api.http import Api

WAIT_S = 10.0
MAX_LOOKING = 8
# Nothing from elsewhere, and in nobody's frame.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {"content-security-policy": POLICY, "x-content-type-options": "nosniff", "cache-control": "no-cache"}


async def page(_: Api, request: Request) -> Response:
    """A file of the page."""
    name, kind = PAGE[request.url.path]
    content = files("edgemask_runtime.web").joinpath("page", name).read_bytes()
    return Response(content, headers=HEADERS, media_type=kind)


async def status(api: Api, _: Request) -> Any:
    """All counts and states as JSON."""
    return await run_in_threadpool(_dashboard(api).status, api.doors.all())


async def metrics(api: Api, _: Request) -> Response:
    """The counts for Prometheus."""
    # Why here: prometheus_client is loaded where somebody collects.
    from edgemask_runtime.web.metrics import CONTENT_TYPE_LATEST, metrics

    content = await run_in_threadpool(metrics, _dashboard(api), api.doors.all())
    return Response(content, headers={"content-type": CONTENT_TYPE_LATEST})


async def live(api: Api, request: Request) -> Response:
    """What is newer than `after` on a pipeline's screen: JSON, and behind it the picture that it speaks of.

    The header that tells the JSON's length is that of the protocol's binary answers. 204: nothing new in time.
    """
    screens = _dashboard(api).screens
    screen = screens.get(request.path_params["name"])
    if screen is None:
        raise RequestError(404, f"no such pipeline; there are {', '.join(screens) or 'none'}")
    after = request.query_params.get("after", "-1")
    if not after.removeprefix("-").isdecimal() or len(after) > 18:
        raise RequestError(400, "'after' must be the number of what was shown last")
    if screen.viewers >= MAX_LOOKING:
        raise RequestError(503, f"{MAX_LOOKING} are looking already")
    parts = await run_in_threadpool(_look, screen, int(after))
    if parts is None:
        return Response(status_code=204)
    told, picture = parts
    headers = {HEADER_LENGTH: str(len(told)), "cache-control": "no-store"}
    return Response(told + picture, headers=headers, media_type="application/octet-stream")


def _look(screen: Screen, after: int) -> tuple[bytes, bytes] | None:
    shown = screen.newest(after, WAIT_S)
    if shown is None:
        return None
    picture = b"" if shown.pixels is None else screen.picture(shown.pixels)
    return orjson.dumps(_told(shown, screen)), picture


def _told(shown: Shown, screen: Screen) -> dict[str, Any]:
    answer = shown.answer.flat() if shown.answer else None
    frame = screen.frame
    return {"number": shown.number, "answer": answer, "invalid": shown.invalid, "size": [frame.width, frame.height]}


def _dashboard(api: Api) -> Dashboard:
    if api.control.dashboard is None:
        raise RequestError(404, "nothing is counted here")
    return api.control.dashboard
