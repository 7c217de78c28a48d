"""JSON text into frozen dataclasses: every fault is found at once, none is passed over."""

from __future__ import annotations

import json
import math
import re
import types
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from edgemask_runtime.errors import UserError, closest

SHOWN_CHARS = 60
PATH_CHARS = 200
LARGEST_EXACT = 2**53
SHOWN_FAULTS = 50


def known(kind: Any, value: Any) -> Any:
    """Parsed JSON without the keys that the dataclass, or one within it, does not have: those that a newer version
    added, where an older one that was gone back to must read what the newer one left."""
    if is_dataclass(kind) and isinstance(value, dict):
        hints = get_type_hints(kind)
        return {
            field.name: known(hints[field.name], value[field.name]) for field in fields(kind) if field.name in value
        }
    inner = next((one for one in reversed(get_args(kind)) if one not in (types.NoneType, ...)), None)
    if get_origin(kind) in (Union, types.UnionType):
        return known(inner, value)
    if isinstance(value, dict):
        return {name: known(inner, item) for name, item in value.items()}
    return [known(inner, item) for item in value] if isinstance(value, list) else value


class Faults:
    """The faults of one document, in the order they were met; all are counted, as many are kept as are shown."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._lines: list[str] = []
        self._count = 0

    @property
    def enough(self) -> bool:
        """Whether one more would only be counted."""
        return self._count >= SHOWN_FAULTS

    def add(self, path: str, problem: str, *, allowed: str | None = None, match: str | None = None) -> None:
        """Note one fault: where it is, what is there, what may be there, and the nearest allowed word."""
        self._count += 1
        if self._count > SHOWN_FAULTS:
            return
        parts = [f"{self._where}: {path}: {problem}"]
        parts += [f"allowed: {allowed}"] if allowed else []
        parts += [f"did you mean {match!r}?"] if match else []
        self._lines.append("; ".join(parts))

    def error(self, hint: str) -> UserError:
        """Return one error with all the faults."""
        more = self._count - len(self._lines)
        lines = self._lines + ([f"... and {more} more"] if more > 0 else [])
        return UserError("\n".join(lines), hint)

    def __len__(self) -> int:
        return self._count


def parse(text: str, where: str, hint: str | None = None) -> Any:
    """Parse JSON; UserError, with the hint, for bad syntax, repeated keys and numbers that JSON does not have."""
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=parse_number)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not valid JSON: {error}", hint) from error


def structure(kind: Any, value: Any, path: str, faults: Faults) -> Any:
    """Build `kind` (dataclass, Literal, tuple, dict, union with None, path, scalar) from parsed JSON.

    A class that is chosen by what it finds builds itself: `from_parsed(value, path, faults)`, None where there are
    faults.
    """
    if hasattr(kind, "from_parsed"):
        return kind.from_parsed(value, path, faults)
    if is_dataclass(kind):
        return _structure_dataclass(kind, value, path, faults)
    origin = get_origin(kind)
    if origin in STRUCTURES:
        return STRUCTURES[origin](kind, value, path, faults)
    if kind is float and type(value) is int and abs(value) <= LARGEST_EXACT:
        return float(value)
    if kind is Path:
        return Path(value) if isinstance(value, str) and value and "\0" not in value else _no_path(value, path, faults)
    if kind is Any or type(value) is kind:
        return value
    return _wrong(value, path, faults, kind.__name__)


def _structure_dataclass(kind: Any, value: Any, path: str, faults: Faults) -> Any:
    if not isinstance(value, dict):
        return _wrong(value, path, faults, "an object")
    hints, known, before = _hints(kind), {field.name: field for field in fields(kind)}, len(faults)
    for name in sorted(value.keys() - known.keys()):
        match = None if faults.enough else closest(name, known)
        faults.add(_below(path, name), "unknown key", allowed=", ".join(known), match=match)
    for name in sorted(known.keys() - value.keys()):
        if known[name].default is MISSING and known[name].default_factory is MISSING:
            faults.add(f"{path}.{name}", "missing")
    present = [name for name in known if name in value]
    given = {name: _structure_field(known[name], hints[name], value[name], path, faults) for name in present}
    return kind(**given) if len(faults) == before else None


def _structure_field(field: Field[Any], hint: Any, value: Any, path: str, faults: Faults) -> Any:
    rule: Rule | None = field.metadata.get("rule")
    before = len(faults)
    built = structure(hint, value, f"{path}.{field.name}", faults)
    if rule and built is not None and len(faults) == before and not rule.holds(built):
        _wrong(value, f"{path}.{field.name}", faults, rule.allowed)
    return built


class Rule:
    """What a field's value must fulfil beyond its type, as `metadata=Rule(...).metadata` of the field."""

    def __init__(self, allowed: str, holds: Callable[[Any], bool]) -> None:
        self.allowed = allowed
        self.holds = holds

    @property
    def metadata(self) -> dict[str, Rule]:
        """The rule as a dataclass field's metadata."""
        return {"rule": self}


def between(low: float, high: float) -> dict[str, Rule]:
    """Metadata for a number from `low` to `high`."""
    return Rule(f"{low} to {high}", lambda value: low <= value <= high).metadata


def matching(pattern: str) -> dict[str, Rule]:
    """Metadata for a string that matches the whole pattern."""
    return Rule(f"text like {pattern}", lambda value: re.fullmatch(pattern, value) is not None).metadata


def _structure_literal(kind: Any, value: Any, path: str, faults: Faults) -> Any:
    words = get_args(kind)
    if any(type(value) is type(word) and value == word for word in words):
        return value
    names = [str(word) for word in words]
    match = closest(value, names) if isinstance(value, str) else None
    return _wrong(value, path, faults, ", ".join(names), match)


def _structure_union(kind: Any, value: Any, path: str, faults: Faults) -> Any:
    options = [option for option in get_args(kind) if option is not types.NoneType]
    return None if value is None else structure(options[0], value, path, faults)


def _structure_tuple(kind: Any, value: Any, path: str, faults: Faults) -> Any:
    if not isinstance(value, list):
        return _wrong(value, path, faults, "a list")
    item = get_args(kind)[0]
    return tuple(structure(item, entry, f"{path}[{index}]", faults) for index, entry in enumerate(value))


def _structure_dict(kind: Any, value: Any, path: str, faults: Faults) -> Any:
    if not isinstance(value, dict):
        return _wrong(value, path, faults, "an object")
    item = get_args(kind)[1]
    return {name: structure(item, entry, _below(path, name), faults) for name, entry in value.items()}


STRUCTURES: dict[Any, Callable[[Any, Any, str, Faults], Any]] = {
    Literal: _structure_literal,
    Union: _structure_union,
    types.UnionType: _structure_union,
    tuple: _structure_tuple,
    dict: _structure_dict,
}


def _no_path(value: Any, path: str, faults: Faults) -> None:
    _wrong(value, path, faults, "the path of a file")


def _wrong(value: Any, path: str, faults: Faults, allowed: str, match: str | None = None) -> None:
    # Why default: TOML has dates, which JSON has not.
    shown = "" if faults.enough else _short(json.dumps(value, default=str))
    faults.add(path, f"value {shown}", allowed=allowed, match=match)


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}..."


def _below(path: str, name: str) -> str:
    # Why short: the path is made for every value below it, and a key may be as long as the document.
    return f"{path}.{name if len(name) <= PATH_CHARS else _short(name)}"


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError(f"repeated key {_short(_repeated(pairs))!r}")
    return made


def _repeated(pairs: list[tuple[str, Any]]) -> str:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            break
        seen.add(name)
    return name


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def parse_number(text: str) -> float:
    """Read a number with a fraction or an exponent; ValueError where it is not finite."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is out of range")
    return number
