"""Folders of target.toml into targets: what a family has in common is said once, and holds for its members."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources.abc import Traversable
from typing import Any

import tomllib

from edgemask.errors import Faults, UserError, closest, structure
from edgemask.target import Budget, Target

HINT = "see docs/targets.md for what a target states"


def read_targets(folder: Traversable) -> dict[str, Target]:
    """Every target of the folder, by name; one UserError with the faults of all."""
    files = {item.name: item / "target.toml" for item in folder.iterdir() if item.is_dir()}
    files = {name: files[name] for name in sorted(files) if files[name].is_file()}
    errors: list[UserError] = []
    raw = {name: values for name, file in files.items() if (values := _parsed(file, errors)) is not None}
    read = [_read(name, raw, str(files[name]), errors) for name in raw]
    found = {target.name: target for target in read if target is not None}
    if not errors:
        errors += _doubles(found, str(folder))
    if errors:
        raise UserError("\n".join(error.message for error in errors), errors[0].hint)
    return {name: _joined(target, found) for name, target in found.items()}


def _parsed(file: Traversable, errors: list[UserError]) -> dict[str, Any] | None:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        errors.append(UserError(f"{file}: not valid TOML: {error}", HINT))
        return None


def _read(name: str, raw: Mapping[str, dict[str, Any]], where: str, errors: list[UserError]) -> Target | None:
    """One target, with what its family says where it says nothing itself."""
    faults, own = Faults(where), raw[name]
    values = _over(_common(own, raw, faults), own)
    if "members" in own:
        faults.add("$.members", "unknown key", allowed="none: a member names its family")
    target: Target | None = structure(Target, values, "$", faults)
    if target is not None:
        _check_together(target, name, faults)
    if faults:
        errors.append(faults.error(HINT))
        return None
    return target


def _common(own: Mapping[str, Any], raw: Mapping[str, dict[str, Any]], faults: Faults) -> dict[str, Any]:
    family = own.get("family")
    if not isinstance(family, str):
        return {}
    heads = [name for name, values in raw.items() if "family" not in values]
    if family not in heads:
        faults.add("$.family", f'value "{family}"', allowed=", ".join(heads), match=closest(family, heads))
        return {}
    return {key: value for key, value in raw[family].items() if key != "name"}


def _over(common: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """`own` over `common`, table by table."""
    both = {key: {**common[key], **own[key]} for key in common.keys() & own.keys() if _tables(common[key], own[key])}
    return {**common, **own, **both}


def _tables(*values: Any) -> bool:
    return all(isinstance(value, dict) for value in values)


def _check_together(target: Target, folder: str, faults: Faults) -> None:
    """Check what no field can know alone."""
    if target.name != folder:
        faults.add("$.name", f'value "{target.name}"', allowed=f"the folder's name, {folder}")
    if target.family is not None and (not target.boards or target.memory_mb is None):
        faults.add("$", "a family's member", allowed="one that states its boards and its memory_mb")
    if target.memory_mb is not None and target.budget.memory_mb >= target.memory_mb:
        faults.add("$.budget.memory_mb", f"value {target.budget.memory_mb}", allowed=f"less than {target.memory_mb}")
    providers = {*target.engines.providers, *target.engines.on_request}
    if (target.unit == "cuda") != ("cuda" in providers):
        faults.add("$.unit", f'value "{target.unit}"', allowed="cuda with the provider cuda, else cpu")
    if target.power is not None and target.power.shipped not in target.power.modes:
        allowed, shipped = ", ".join(target.power.modes), target.power.shipped
        faults.add("$.power.shipped", f'value "{shipped}"', allowed=allowed, match=closest(shipped, target.power.modes))


def _doubles(found: Mapping[str, Target], where: str) -> list[UserError]:
    """A board that two targets claim could not be told."""
    faults = Faults(where)
    for board, times in Counter(board for target in found.values() for board in target.boards).items():
        if times > 1:
            names = sorted(name for name, target in found.items() if board in target.boards)
            faults.add(board, f"stated by {', '.join(names)}", allowed="one target")
    return [faults.error(HINT)] if faults else []


def _joined(head: Target, found: Mapping[str, Target]) -> Target:
    """A family as all its members are; any other target as it is."""
    members = [target for target in found.values() if target.family == head.name]
    if not members:
        return head
    return replace(
        head,
        members=tuple(member.name for member in members),
        cpu=", ".join(dict.fromkeys(member.cpu for member in members)),
        features=tuple(f for f in members[0].features if all(f in member.features for member in members)),
        memory_mb=min(member.memory_mb or 0 for member in members),
        boards=tuple(board for member in members for board in member.boards),
        systems=tuple(dict.fromkeys(system for member in members for system in member.systems)),
        budget=_lowest([member.budget for member in members]),
    )


def _lowest(budgets: Sequence[Budget]) -> Budget:
    return Budget(max(budget.latency_ms for budget in budgets), min(budget.memory_mb for budget in budgets))
