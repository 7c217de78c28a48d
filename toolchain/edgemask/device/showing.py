"""What the verbs for devices show: steps as they go by, plans, states."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from edgemask.device.discovery import Found
from edgemask.device.flash import Plan
from edgemask.listing import columns
from edgemask_runtime.release import title

WIDTH = 30
MB = 1 << 20


class Steps:
    """Tells steps on standard error: a bar that grows on a terminal, a line for each step anywhere else."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stderr
        self._live = self._out.isatty()
        self._step = ""

    def __call__(self, step: str, done: int, of: int) -> None:
        """Tell a step, of which so much is done."""
        if self._live:
            self._redraw(step, done, of)
        elif step != self._step:
            print(step, file=self._out, flush=True)
        self._step = step

    def end(self) -> None:
        """What comes next begins on a line of its own."""
        if self._live and self._step:
            print(file=self._out, flush=True)
        self._step = ""

    def _redraw(self, step: str, done: int, of: int) -> None:
        if step != self._step:
            self.end()
        filled = WIDTH * done // of if of > 1 else 0
        bar = f" [{'#' * filled}{' ' * (WIDTH - filled)}] {100 * done // of:3} %" if of > 1 else ""
        print(f"\r\033[K{step}{bar}", end="", file=self._out, flush=True)


def plan_text(plan: Plan) -> str:
    """What would be done on a device."""
    values = plan.to_json()
    rows = [
        (one.what, one.here, one.needed, "ok" if one.passed else "FAILS" if one.is_fault else "look")
        for one in plan.checks
    ]
    head = [f"device   {values['host']}: {values['device']}", f"runs     {values['installed'] or 'nothing of ours'}"]
    head.append(f"release  {values['release']} (serial {values['serial']}), {plan.sizes.missing / MB:.1f} MB to send")
    hints = [f"{one.what}: {one.hint}" for one in plan.checks if not one.passed]
    return "\n".join([*head, "", columns(("what", "here", "needed", ""), rows), *hints])


def installed_text(host: str, installed: Mapping[str, Any]) -> str:
    """What runs there now."""
    engines = ", ".join(f"{model} on {engine}" for model, engine in installed.get("engine", {}).items())
    return f"{host}: {title(installed)} runs{f' ({engines})' if engines else ''}"


def status_text(host: str, told: Mapping[str, Any]) -> str:
    """What a device says of itself, as a table."""
    installed, previous, service, failure = (told[key] for key in ("installed", "previous", "service", "failure"))
    detail = f"{service['state']} ({service['detail']}), {service['restarts']} restarts"
    rows = [
        ("runs", f"{title(installed)}, since {installed['since']}" if installed else "nothing"),
        *((f"model {name}", engine) for name, engine in (installed["engine"] if installed else {}).items()),
        ("service", f"{detail}{': ' + service['status'] if service['status'] else ''}"),
        ("health", told["health"]),
        ("before", f"{title(previous)}: edgemask rollback {host}" if previous else "nothing to go back to"),
        ("takes", f"serial {told['floor']} or above"),
        ("settings", told["settings"]),
        ("disk", f"{told['disk']['free_bytes'] / MB:.0f} of {told['disk']['total_bytes'] / MB:.0f} MB free"),
        ("clock", _clock(told["clock"])),
        ("keys", _keys(told["keys"])),
    ]
    busy = told["busy"]
    rows += [("under way", f"{busy['verb']}, since {busy['since']}")] if busy else []
    rows += [("failed", f"{failure['release']} at {failure['at']}: {failure['cause']}")] if failure else []
    rows += [("trouble", trouble) for trouble in told["trouble"]]
    return columns((host, ""), rows)


def bench_text(told: Mapping[str, Any]) -> str:
    """A model's times, step by step, with a bar for each step's part and the target's goal beside the whole."""
    machine, latency, watched = told["machine"], told["latency"], told["profiled"]
    where = machine["board"] or machine["processor"]
    steps = [*([{"step": "drawing entropy", **told["entropy"]}] if told["entropy"] else []), *told["steps"]]
    largest = max((step["median_ms"] for step in steps), default=0.0) or 1.0
    rows = [(one["step"], *_times(one), "#" * round(WIDTH * max(0.0, one["median_ms"]) / largest)) for one in steps]
    rows += [("all, in those runs", *_times(watched), "")] if watched else []
    rows.append(("all", *_times(latency), _goal(latency["median_ms"], told["budget_ms"])))
    lines = [f"{told['model']} for {told['target']} on {told['engine']} ({told['provider']})"]
    lines.append(f"{where}, {machine['processors']} processors, load {machine['load']}, {machine['system']}")
    return "\n".join([*lines, "", columns(("step", "median ms", "p99 ms", ""), rows), "", _how(told)])


def _times(row: Mapping[str, Any]) -> tuple[str, str]:
    return f"{row['median_ms']:9.3f}", "-" if row["p99_ms"] is None else f"{row['p99_ms']:9.3f}"


def _goal(median_ms: float, budget_ms: int | None) -> str:
    return "" if budget_ms is None else f"{median_ms / budget_ms:.1%} of the target's goal, {budget_ms} ms a frame"


def _how(told: Mapping[str, Any]) -> str:
    found = {
        "profiler": "steps by ONNX Runtime's profiler, in runs of their own, which it makes slower: compare both `all`",
        "prefixes": "steps are the differences of the graph cut behind each of them; near 0 is within their noise",
    }
    how = found.get(told["how"], f"steps are not told: {told['how'].removeprefix('none: ')}")
    return f"n = {told['runs']}, {told['threads']} threads; {how}"


def devices_text(found: Sequence[Found]) -> str:
    """What announced itself."""
    if not found:
        return "nothing announced itself: is it on this network? `ping NAME.local` asks for one by its name"
    rows = [(one.host, " ".join(one.addresses), _release(one.release), one.destination) for one in found]
    return columns(("host", "addresses", "runs", "--to"), rows)


def _release(told: Mapping[str, str]) -> str:
    return f"{told.get('release', '?')} {told.get('version', '?')} (serial {told.get('serial', '?')})" if told else "-"


def _clock(clock: Mapping[str, Any]) -> str:
    behind = f", {clock['behind_s']} s behind what it was" if clock["behind_s"] else ""
    return f"{clock['now']}{behind}{'' if clock['synchronised'] else ', not synchronised'}"


def _keys(keys: Mapping[str, Any]) -> str:
    if "trouble" in keys:
        return str(keys["trouble"])
    named = [f"{key['id']}{' (development)' if key['development'] else ''}" for key in keys["enrolled"]]
    return ", ".join(named) or "none"
