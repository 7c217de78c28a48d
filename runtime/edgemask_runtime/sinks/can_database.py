"""The DBC of one bundle: the shipped one with its identifiers, its periods and the names of its classes."""

from __future__ import annotations

import re

from edgemask_runtime.errors import UserError
from edgemask_runtime.manifest import Manifest
from edgemask_runtime.sinks.can_messages import NAMES, loaded

NAMED = re.compile(r"TopClass|Object\dClass")


def dbc_of(manifest: Manifest) -> str:
    """The text of a DBC with the messages that this bundle may send, and no other."""
    if not manifest.can:
        hint = "name them as [[runtime.can]] in the recipe, and build the bundle again"
        raise UserError(f"{manifest.name}: this bundle may send no message on a CAN bus", hint)
    database = loaded()
    records = {NAMES[record.message]: record for record in manifest.can}
    for message in tuple(database.messages):
        record = records.get(message.name)
        if record is None:
            database.messages.remove(message)
            continue
        message.frame_id, message.is_extended_frame = record.id, record.extended
        message.cycle_time = record.period_ms
        message.comment = f"{message.comment} Data identifier {record.data_id:#06x}."
        for signal in message.signals:
            if NAMED.fullmatch(signal.name):
                signal.choices = {**_names(manifest, max(signal.choices) - 1), **signal.choices}
    text: str = database.as_dbc_string()
    return text


def _names(manifest: Manifest, most: int) -> dict[int, str]:
    """The classes' names by their index, in what a DBC can hold: cp1252 without quotation marks."""
    plain = [label.replace('"', "'").replace("\\", "/") for label in manifest.labels or ()]
    return {index: label.encode("cp1252", "replace").decode("cp1252") for index, label in enumerate(plain[:most])}
