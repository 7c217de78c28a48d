"""Answers to an MQTT 5 broker: the newest as retained state, suspicious frames as events, availability as last will."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, field
from threading import Lock

from edgemask_runtime.answers import Answer
from edgemask_runtime.formats import Pixels
from edgemask_runtime.frames import NS_PER_MS, wall_clock
from edgemask_runtime.sinks import STOPPING, SinkContext, Unreachable
from edgemask_runtime.sinks.home_assistant import OFFLINE, ONLINE, configurations
from edgemask_runtime.sinks.mqtt_link import Broker, Link, Message
from edgemask_runtime.strict_json import between, matching

MS_PER_S = 1000


@dataclass(frozen=True)
class MqttSettings(Broker):
    """The broker and how much it gets: `topic` is where topics begin, `discovery` Home Assistant's prefix or None.

    `max_in_flight`: how many messages may be under way before answers wait, of which only the newest is kept.
    `min_interval_ms`: the least time between two states; suspicious ones are sent in any case.
    """

    topic: str = field(default="edgemask", metadata=matching(r"[^+#\0$][^+#\0]{0,199}"))
    discovery: str | None = field(default=None, metadata=matching(r"[A-Za-z0-9_/-]{1,100}"))
    max_in_flight: int = field(default=4, metadata=between(1, 100))
    min_interval_ms: int = field(default=0, metadata=between(0, 3_600_000))


class Mqtt:
    """Publishes under `TOPIC/PIPELINE/`: state, event, availability, status; what is too old is never sent."""

    Settings = MqttSettings
    wants_pixels = False

    def __init__(self, settings: MqttSettings, context: SinkContext) -> None:
        self._settings, self._context = settings, context
        self._base = f"{settings.topic}/{context.pipeline}"
        self._max_age_ns = context.manifest.max_age_ms * NS_PER_MS
        self._expires_s = math.ceil(context.manifest.max_age_ms / MS_PER_S)
        self._lock = Lock()
        self._waiting: Answer | None = None
        self._newest: Answer | None = None
        self._told: str | None = None
        self._reason, self._sent_ns = "starting", 0
        self._link = Link(settings, self._availability(OFFLINE), self._welcome, self._settled)
        self._link.start()

    def write(self, answer: Answer, pixels: Pixels | None) -> None:
        """Publish the answer, or keep it while the broker is busy; Unreachable while there is no connection."""
        with self._lock:
            self._newest = answer
            if self._link.fault is None and self._is_due(answer):
                self._offer(answer)
        if fault := self._link.fault:
            raise Unreachable(f"mqtt {self._settings.address}: {fault}")

    def invalidate(self, reason: str) -> None:
        """Turn the availability to offline and say why."""
        with self._lock:
            self._newest = self._waiting = None
            self._reason = reason
            self._tell(OFFLINE)

    def close(self) -> None:
        """Turn the availability to offline and disconnect."""
        if self._newest:
            self.invalidate(STOPPING)
        self._link.close(self._availability(OFFLINE))

    def _is_due(self, answer: Answer) -> bool:
        waited_ms = (time.monotonic_ns() - self._sent_ns) / NS_PER_MS
        return waited_ms >= self._settings.min_interval_ms or bool(answer.reading.suspicious)

    def _offer(self, answer: Answer) -> None:
        """Publish it if the broker keeps up, else leave it until it does: the newest one wins."""
        # Awaited first: a message that is taken between the two lines is then heard of.
        self._link.awaited = True
        if self._link.under_way >= self._settings.max_in_flight:
            self._waiting = answer
            return
        self._link.awaited = False
        if time.monotonic_ns() - answer.captured_ns <= self._max_age_ns:
            self._publish(answer)

    def _publish(self, answer: Answer) -> None:
        self._tell(ONLINE)
        line, self._sent_ns, self._waiting = answer.to_json(), time.monotonic_ns(), None
        self._link.publish(Message(f"{self._base}/state", line, retain=True, expires_s=self._expires_s))
        if answer.reading.suspicious:
            self._link.publish(Message(f"{self._base}/event", line, expires_s=self._expires_s))

    def _tell(self, availability: str) -> None:
        """Publish availability and status when they are not known to the broker yet."""
        told = availability if availability == ONLINE else self._reason
        if told == self._told:
            return
        self._told = told
        reason = None if availability == ONLINE else self._reason
        status = json.dumps({"valid": reason is None, "reason": reason, "at": wall_clock()})
        self._link.publish(Message(f"{self._base}/status", status, retain=True))
        self._link.publish(self._availability(availability))

    def _availability(self, word: str) -> Message:
        return Message(f"{self._base}/availability", word, retain=True)

    def _welcome(self) -> None:
        """On a new connection: what there is, and the newest answer if it still holds."""
        settings, context = self._settings, self._context
        if settings.discovery:
            given = settings.discovery, self._base, context.pipeline, context.manifest, self._expires_s
            for topic, payload in configurations(*given).items():
                self._link.publish(Message(topic, payload, retain=True))
        with self._lock:
            self._told = self._waiting = None
            newest = self._newest
            if newest and time.monotonic_ns() - newest.captured_ns <= self._max_age_ns:
                self._publish(newest)
            else:
                self._reason = "expired" if newest else self._reason
                self._tell(OFFLINE)

    def _settled(self) -> None:
        with self._lock:
            if self._waiting:
                self._offer(self._waiting)
