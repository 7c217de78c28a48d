"""All models of a daemon, each in a worker of its own: started together, kept alive and exchanged one by one."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from edgemask_runtime.about import About
from edgemask_runtime.errors import unknown
from edgemask_runtime.keeper import Keeper
from edgemask_runtime.remote import Remote
from edgemask_runtime.ring.access import listen
from edgemask_runtime.worker_process import ModelOptions


class Supervisor:
    """Runs models; as a context it ends all of them.

    with Supervisor([ModelOptions("driver-id", bundle)]) as running:
        outputs = running.models["driver-id"].predict(frames)
    """

    def __init__(self, models: Sequence[ModelOptions], meanwhile: Callable[[], object] = lambda: None) -> None:
        """Start all, and do something else `meanwhile`.

        UserError of the first that cannot be started, and none is left running.
        """
        self._keepers: dict[str, Keeper] = {}
        with ExitStack() as ending:
            for options in models:
                keeper = Keeper(options, _listener(options, ending))
                self._keepers[options.name] = keeper
                keeper.start()
                ending.callback(keeper.stop)
            loading = [keeper.load() for keeper in self._keepers.values()]
            meanwhile()
            for loaded in loading:
                loaded.result()
            self._ending = ending.pop_all()
        self.models: Mapping[str, Remote] = {name: keeper.remote for name, keeper in self._keepers.items()}

    def reload(self, name: str, bundle: Path) -> About:
        """Exchange a model's bundle without losing a frame, and say what runs now.

        UserError when the new one does not start, fails its probe, or takes or gives something else; the old one has
        then never stopped.
        """
        return self._keeper(name).reload(bundle).result()

    def unload(self, name: str) -> None:
        """End a model's worker; its frames get ModelDown until it is loaded again."""
        self._keeper(name).unload().result()

    def load(self, name: str) -> About:
        """Start an unloaded model again, or one that runs anew, from the bundle that is there now."""
        return self._keeper(name).load().result()

    def close(self) -> None:
        """End all workers, each after the request in hand."""
        self._ending.close()

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _keeper(self, name: str) -> Keeper:
        if name not in self._keepers:
            raise unknown("model", name, self._keepers)
        return self._keepers[name]


def _listener(options: ModelOptions, ending: ExitStack) -> socket.socket | None:
    if options.socket is None:
        return None
    listener = ending.enter_context(listen(options.socket, options.group))
    ending.callback(options.socket.unlink, missing_ok=True)
    return listener
