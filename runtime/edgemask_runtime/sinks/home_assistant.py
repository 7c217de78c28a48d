"""What Home Assistant is told to find a pipeline by itself (MQTT discovery)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from edgemask_runtime import __version__
from edgemask_runtime.manifest import Manifest, payload_digest

ONLINE, OFFLINE = "online", "offline"
DIGEST_CHARS = 12
BEST = "(value_json.detections or value_json.top or [{}])[0]"


def configurations(prefix: str, base: str, pipeline: str, manifest: Manifest, expires_s: int) -> dict[str, str]:
    """Topics and payloads that make the pipeline's entities; `base` is where it publishes."""
    node = re.sub(r"[^A-Za-z0-9_-]", "_", base)
    shared = {
        "device": {
            "identifiers": [node],
            "name": pipeline,
            "manufacturer": "Edgemask",
            "model": manifest.name,
            "sw_version": payload_digest(manifest)[:DIGEST_CHARS],
        },
        "origin": {"name": "edgemaskd", "sw_version": __version__},
    }
    found = {}
    for component, name, entity in _entities(base, manifest, expires_s):
        configuration = {"name": name, "unique_id": f"{node}_{name}", **entity, **shared}
        found[f"{prefix}/{component}/{node}/{name}/config"] = json.dumps(configuration)
    return found


def _entities(base: str, manifest: Manifest, expires_s: int) -> Iterator[tuple[str, str, dict[str, Any]]]:
    told = {"state_topic": f"{base}/state", "availability_topic": f"{base}/availability", "expire_after": expires_s}
    roles = {output.role for output in manifest.outputs}
    if roles & {"probabilities", "top-indices", "count"}:
        yield "sensor", "class", {**told, "value_template": _label(BEST)}
        score = f"{{{{ {BEST}.score | default(none) }}}}"
        yield "sensor", "score", {**told, "value_template": score, "state_class": "measurement"}
    if "count" in roles:
        count = "{{ value_json.detections | count }}"
        yield "sensor", "objects", {**told, "value_template": count, "state_class": "measurement"}
    if "value" in roles:
        value = "{{ value_json['values'][0].value }}"
        yield "sensor", "value", {**told, "value_template": value, "state_class": "measurement", **_unit(manifest)}
    if manifest.thresholds:
        suspicious = "{{ 'ON' if value_json.suspicious else 'OFF' }}"
        yield "binary_sensor", "suspicious", {**told, "value_template": suspicious, "device_class": "problem"}
    yield "binary_sensor", "problem", _problem(base)


def _problem(base: str) -> dict[str, Any]:
    """On when there is no valid answer, for whatever reason: it follows the availability, which is our last will."""
    return {
        "state_topic": f"{base}/availability",
        "payload_on": OFFLINE,
        "payload_off": ONLINE,
        "device_class": "problem",
        "entity_category": "diagnostic",
        "json_attributes_topic": f"{base}/status",
    }


def _label(best: str) -> str:
    return f"{{% set best = {best} %}}{{{{ best.label or best.index | default('nothing') }}}}"


def _unit(manifest: Manifest) -> dict[str, str]:
    unit = next((str(step.parameters["unit"]) for step in manifest.chain if step.parameters.get("unit")), None)
    return {"unit_of_measurement": unit} if unit else {}
