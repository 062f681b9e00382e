"""What a request can be refused with: a status of gRPC's, and a message that says what to do."""

from __future__ import annotations

import enum
import re

from easyrec_lite.errors import UserError


class Status(enum.IntEnum):
    """The canonical codes of gRPC and TensorFlow, which are the same numbers."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16

    @property
    def http(self) -> int:
        """The status of HTTP that says the same, as TF Serving chooses it."""
        return _HTTP.get(self, 500)


_HTTP = {
    Status.OK: 200,
    Status.CANCELLED: 499,
    Status.INVALID_ARGUMENT: 400,
    Status.DEADLINE_EXCEEDED: 504,
    Status.NOT_FOUND: 404,
    Status.RESOURCE_EXHAUSTED: 503,
    Status.FAILED_PRECONDITION: 412,
    Status.OUT_OF_RANGE: 416,
    Status.UNIMPLEMENTED: 501,
    Status.UNAVAILABLE: 503,
}
# What a kernel finds wrong with the values that it was given.
_OF_THE_REQUEST = {Status.INVALID_ARGUMENT, Status.OUT_OF_RANGE, Status.FAILED_PRECONDITION, Status.NOT_FOUND}
_KEPT = {Status.RESOURCE_EXHAUSTED, Status.DEADLINE_EXCEEDED, Status.CANCELLED}

_LONGEST = 1000  # characters of a message that are sent: gRPC's trailers hold 8 KiB
_CAUSE = re.compile(r"\d+ root error\(s\) found\.\s*\(0\) (?:[A-Z_]+: )?(.*?)\s*(?:\(1\) .*)?", re.DOTALL)
_NODES = re.compile(r"\s*\[\[.*", re.DOTALL)  # "[[{{node a/b}}]]" and all that follows it
_ASSERTION = "assertion failed: "


class RequestError(UserError):
    """A request is refused.

    Attributes:
        status: what is wrong, as a code.
    """

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message if len(message) <= _LONGEST else f"{message[:_LONGEST]}...")
        self.status = status


class LoadError(UserError):
    """A folder holds no SavedModel that can be served."""


def invalid(message: str) -> RequestError:
    """The request is wrong, whatever the state of the server."""
    return RequestError(Status.INVALID_ARGUMENT, message)


def not_found(message: str) -> RequestError:
    """What the request asks for isn't there, now."""
    return RequestError(Status.NOT_FOUND, message)


def from_tensorflow(code: int, message: str) -> RequestError:
    """The refusal for a status of TensorFlow's, with what its message says of the request and nothing of the graph."""
    status = Status(code)
    if status not in _KEPT:
        status = Status.INVALID_ARGUMENT if status in _OF_THE_REQUEST else Status.INTERNAL
    return RequestError(status, useful(message))


def useful(message: str) -> str:
    """The part of a message of TensorFlow's that means something to who sent the request."""
    if found := _CAUSE.fullmatch(message):
        message = found[1]
    text = _NODES.sub("", message)
    if text.startswith(_ASSERTION):
        text = re.sub(r"\]\s*\[", " ", text.removeprefix(_ASSERTION)).strip(" []").replace("\\'", "'")
    return re.sub(r"\s+", " ", text).strip() or "TensorFlow refused the request."
