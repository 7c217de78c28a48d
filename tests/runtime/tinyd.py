"""A daemon of a few lines, for the wheel of a test's release; `behaviour` lies beside it there.

Settings with a line `# BEHAVIOUR` have it behave so instead; any comment in them it repeats in its log.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from behaviour import BEHAVIOUR, PORT, VERSION  # type: ignore[import-not-found]

COMMENTS = [line[2:] for line in Path(sys.argv[2]).read_text().splitlines() if line.startswith("# ")]
BEHAVIOUR = next((comment for comment in COMMENTS if comment in ("crash", "cold", "silent")), BEHAVIOUR)


def notify(text: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.sendto(text.encode(), os.environ["NOTIFY_SOCKET"])


def door() -> HTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(503 if BEHAVIOUR == "sick" else 200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", PORT), Handler, bind_and_activate=False)
    server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    server.server_bind()
    server.server_activate()
    return server


def warm_up() -> None:
    print(json.dumps({"warming": "warm-up of tiny"}), flush=True)
    if BEHAVIOUR == "cold":
        sys.exit("error: tiny: on this machine the model answers otherwise")
    if BEHAVIOUR == "slow":
        print(json.dumps({"warming": "building"}), flush=True)
        time.sleep(600)
    model = {"engine": "none 1.0", "provider": "cpu", "digest": VERSION}
    at = {"host": "127.0.0.1", "port": PORT, "tls": False} if PORT else None
    print(json.dumps({"warm": {"models": {"tiny": model}, "door": at}}))


def main() -> None:
    if sys.argv[1] == "warm-up":
        warm_up()
        return
    if COMMENTS:
        print(f"settings: {', '.join(COMMENTS)}", flush=True)
    if BEHAVIOUR == "crash":
        sys.exit("error: no camera")
    if BEHAVIOUR == "silent":
        signal.pause()
    server = door() if PORT else None
    notify(f"READY=1\nSTATUS=version {VERSION}")
    if BEHAVIOUR == "leave":
        sys.exit("error: the camera is gone")
    if server:
        server.serve_forever()
    signal.pause()
