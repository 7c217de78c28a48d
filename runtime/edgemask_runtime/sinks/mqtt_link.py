"""A connection to an MQTT 5 broker that is made again whenever it is lost."""

from __future__ import annotations

import logging
import os
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, Literal

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edgemask_runtime.backoff import Backoff
from edgemask_runtime.errors import UserError, one_line
from edgemask_runtime.files import read_bytes
from edgemask_runtime.keys import check_owner_only
from edgemask_runtime.strict_json import between

LOOPBACK = ("localhost", "127.0.0.1", "::1")
PLAIN_PORT, TLS_PORT = 1883, 8883
MAX_PASSWORD_BYTES = 4096
FIRST_PAUSE_S = 0.5
FAREWELL_S = 2.0
MAX_WAITING = 1000
STABLE_S = 10.0
"""A connection that broke sooner than this is not made again at once: two clients of one name push each other out."""

log = logging.getLogger("edgemaskd")


@dataclass(frozen=True)
class Broker:
    """Where the broker is and who we are to it; `ca`, a certificate or the port 8883 mean TLS, `tls` states it.

    `password_file` holds the password alone and is its owner's (mode 0600). `qos`: 0 at most once, 1 at least once,
    2 once. `reconnect_s` is the longest pause between two attempts.
    """

    host: str
    port: int | None = field(default=None, metadata=between(1, 65535))
    tls: bool | None = None
    ca: Path | None = None
    certificate: Path | None = None
    private_key: Path | None = None
    username: str | None = None
    password_file: Path | None = None
    client_id: str | None = None
    qos: Literal[0, 1, 2] = 1
    keepalive_s: int = field(default=15, metadata=between(1, 3600))
    reconnect_s: int = field(default=30, metadata=between(1, 3600))

    @property
    def secured(self) -> bool:
        """Whether the connection is TLS."""
        return bool(self.ca or self.certificate or self.port == TLS_PORT) if self.tls is None else self.tls

    @property
    def address(self) -> str:
        """Host and port, for people."""
        return f"{self.host}:{self._port}"

    @property
    def _port(self) -> int:
        return self.port or (TLS_PORT if self.secured else PLAIN_PORT)

    @property
    def place(self) -> tuple[str, int]:
        """Host and port."""
        return self.host, self._port


@dataclass(frozen=True)
class Message:
    """What is published; `expires_s`: after how many seconds the broker forgets it."""

    topic: str
    payload: str
    retain: bool = False
    expires_s: int | None = None


class Link:
    """Keeps connected; `welcome` is called once connected, `settled` when the broker took one, both from our thread.

    Every connection is a client of its own: what was under way on a lost one is never sent on the next, so that no
    answer comes late. `fault` says why there is no connection; only while `awaited` is `settled` called.
    """

    def __init__(self, broker: Broker, will: Message, welcome: Callable[[], None], settled: Callable[[], None]) -> None:
        self._broker, self._will, self._welcome, self._settled = broker, will, welcome, settled
        self._tls = _tls(broker)
        self._password = _password(broker)
        self.fault: str | None = "not connected yet"
        self.awaited = False
        self._client: paho.Client | None = None
        self._count, self._under_way = Lock(), 0
        self._accepted = self._lost = False
        self._wake, self._stopping = Event(), Event()
        self._thread = Thread(target=self._keep, name=f"mqtt {broker.address}", daemon=True)

    def start(self) -> None:
        """Begin to connect."""
        self._thread.start()

    @property
    def under_way(self) -> int:
        """How many messages the broker has not taken yet."""
        return self._under_way

    def publish(self, message: Message) -> paho.MQTTMessageInfo | None:
        """Hand the message over; None, and the message is gone, where there is no connection."""
        client = self._client
        if client is None:
            return None
        with self._count:
            self._under_way += 1
        properties = _properties(message)
        return client.publish(message.topic, message.payload, self._broker.qos, message.retain, properties)

    def close(self, farewell: Message) -> None:
        """Say farewell, if somebody listens, and end; two seconds at most for either."""
        info = self.publish(farewell)
        if info is not None:
            with suppress(RuntimeError, ValueError):
                info.wait_for_publish(FAREWELL_S)
        self._stopping.set()
        self._wake.set()
        self._thread.join()

    def _keep(self) -> None:
        # Spread, so that a fleet does not come back to a broker all at once.
        backoff = Backoff(FIRST_PAUSE_S, self._broker.reconnect_s)
        while not self._stopping.is_set():
            began_s = time.monotonic()
            try:
                self._session()
            except Exception as error:
                log.debug("mqtt %s", self._broker.address, exc_info=error)
                self._client = None
                self._failed(one_line(error))
            lasted = time.monotonic() - began_s > STABLE_S
            self._stopping.wait(backoff.delay_s())
            if lasted:
                backoff.reset()

    def _session(self) -> None:
        """Connect and serve until the connection is lost."""
        self._accepted = self._lost = False
        client = self._made()
        try:
            client.connect(*self._broker.place, keepalive=self._broker.keepalive_s, clean_start=True)
        except (OSError, ValueError) as error:
            self._failed(_reason(error))
            return
        client.loop_start()
        while self._wake.wait() and not self._lost and not self._stopping.is_set():
            self._wake.clear()
            self._serve(client)
        self._wake.clear()
        self._client = None
        _end(client)

    def _serve(self, client: paho.Client) -> None:
        # Why not in paho's callbacks? It holds a lock there that publish takes, and so may we.
        if self._accepted and self._client is None:
            self._under_way = 0
            self._client, self.fault = client, None
            log.info("mqtt %s: connected", self._broker.address)
            self._welcome()
        elif self._accepted:
            self._settled()

    def _made(self) -> paho.Client:
        broker = self._broker
        name = broker.client_id or f"edgemask-{socket.gethostname()}-{self._will.topic.replace('/', '-')}"
        client = paho.Client(CallbackAPIVersion.VERSION2, name, protocol=paho.MQTTv5, reconnect_on_failure=False)
        if broker.username is not None:
            client.username_pw_set(broker.username, self._password)
        if self._tls:
            client.tls_set_context(self._tls)
        client.will_set(self._will.topic, self._will.payload, broker.qos, self._will.retain)
        client.max_queued_messages_set(MAX_WAITING)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_publish, client.on_socket_open = self._on_publish, self._on_socket_open
        return client

    def _on_connect(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._failed(f"the broker refuses the connection: {reason}")
        self._accepted, self._lost = not reason.is_failure, bool(reason.is_failure)
        self._wake.set()

    def _on_disconnect(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if not self._lost and not self._stopping.is_set():
            # TLS 1.3 says so late that it wants a certificate that we seem to be connected.
            self._failed(f"{'connection lost' if self._accepted else 'hangs up before it answers'}: {reason}")
        self._lost = True
        self._wake.set()

    def _on_publish(self, _client: Any, _data: Any, _mid: int, reason: Any, _properties: Any) -> None:
        with self._count:
            self._under_way = max(0, self._under_way - 1)
        if reason.is_failure:
            log.warning("mqtt %s: the broker refuses a message: %s", self._broker.address, reason)
        if self.awaited:
            self._wake.set()

    def _on_socket_open(self, _client: Any, _data: Any, opened: Any) -> None:
        # A peer that is gone is noticed after the keepalive, not after the kernel's quarter of an hour.
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self._broker.keepalive_s * 1000)

    def _failed(self, why: str) -> None:
        if why != self.fault:
            log.warning("mqtt %s: %s", self._broker.address, why)
        self.fault = why


def _properties(message: Message) -> Any:
    untyped: Any = Properties
    properties = untyped(PacketTypes.PUBLISH)
    if message.expires_s is not None:
        properties.MessageExpiryInterval = message.expires_s
    return properties


def _end(client: paho.Client) -> None:
    client.disconnect()
    opened: Any = client.socket()
    # A broker that hangs would hold us until the keepalive is over.
    with suppress(OSError, AttributeError):
        opened.shutdown(socket.SHUT_RDWR)
    client.loop_stop()


def _reason(error: Exception) -> str:
    return os.strerror(error.errno) if isinstance(error, ConnectionError) and error.errno else one_line(error)


def _tls(broker: Broker) -> ssl.SSLContext | None:
    if not broker.secured:
        _check_plain(broker)
        return None
    try:
        context = ssl.create_default_context(cafile=broker.ca)
        if broker.certificate:
            context.load_cert_chain(broker.certificate, broker.private_key)
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(str(path) for path in (broker.ca, broker.certificate, broker.private_key) if path)
        raise UserError(f"mqtt {broker.address}: TLS with {files}: {one_line(error)}") from error
    return context


def _check_plain(broker: Broker) -> None:
    if broker.ca or broker.certificate:
        raise UserError(f"mqtt {broker.address}: a certificate and tls = false", hint="leave out one of them")
    if broker.password_file and broker.host not in LOOPBACK:
        log.warning("mqtt %s: the password goes over the network in clear; `tls` or `ca`", broker.address)


def _password(broker: Broker) -> str | None:
    path = broker.password_file
    if path is None:
        return None
    if broker.username is None:
        raise UserError(f"mqtt {broker.address}: a password_file and no username")
    content = read_bytes(path, limit_bytes=MAX_PASSWORD_BYTES)
    check_owner_only(path, "read this password")
    try:
        return content.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text") from error
