"""Why a request is refused."""

from __future__ import annotations


class RequestError(Exception):
    """A request that is refused; `status` is the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
