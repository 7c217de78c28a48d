"""The warm-up: every model starts once as the daemon would run it, beside the daemon that still runs."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgemask_runtime.install.doors import door_of
from edgemask_runtime.service import BUILD_LIMIT_S, check, model_options
from edgemask_runtime.settings import ModelSettings, Settings
from edgemask_runtime.supervisor import Supervisor

TELL_EVERY_S = 5.0

Tell = Callable[[str], None]


def warm_up(settings: Settings, where: str, tell: Tell) -> dict[str, Any]:
    """Start the models one after the other, replay their probes, build what their engines build; what was found.

    UserError of the first that does not run. Nothing is served: sockets and servers are the running daemon's.
    """
    manifests = check(settings, where)
    models: dict[str, Any] = {}
    for model in settings.models:
        options = model_options(dataclasses.replace(model, socket=None, group=None), manifests[model.name])
        with _telling(model.name, tell), Supervisor([dataclasses.replace(options, start_limit_s=BUILD_LIMIT_S)]) as on:
            served = on.models[model.name]
            models[model.name] = {
                "engine": f"{served.engine.name} {served.engine.version}",
                "provider": served.engine.provider,
                "digest": served.digest,
            }
    return {"models": models, "door": _door(settings)}


def within(settings: Settings, slot: Path) -> Settings:
    """The settings with everything below `current` taken from a slot that is not current yet."""
    current = slot.parent.parent / "current"

    def moved(path: Path) -> Path:
        return slot / path.relative_to(current) if path.is_relative_to(current) else path

    def of(model: ModelSettings) -> ModelSettings:
        return dataclasses.replace(model, bundle=moved(model.bundle), key=moved(model.key) if model.key else None)

    return dataclasses.replace(settings, models=tuple(map(of, settings.models)))


def teller(as_json: bool) -> Tell:
    """Prints what is being done."""
    return lambda text: print(json.dumps({"warming": text}) if as_json else text, flush=True)


@contextmanager
def _telling(name: str, tell: Tell) -> Iterator[None]:
    """Say every few seconds that it is still at it: an engine may take ten minutes to be built."""
    over, begun_s = threading.Event(), time.monotonic()

    def keep_telling() -> None:
        while not over.wait(TELL_EVERY_S):
            tell(f"warm-up of {name}, for {time.monotonic() - begun_s:.0f} s")

    tell(f"warm-up of {name}")
    thread = threading.Thread(target=keep_telling, name="telling", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _door(settings: Settings) -> dict[str, Any] | None:
    """How this machine can ask the HTTP server, if there is one at a port that is known."""
    http = settings.http
    door = door_of(http.listen, tls=bool(http.certificate), certified=bool(http.client_ca)) if http else None
    return dataclasses.asdict(door) if door else None
