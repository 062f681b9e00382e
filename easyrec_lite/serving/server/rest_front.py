"""TF Serving's REST interface, and the numbers for Prometheus.

POST /v1/models/NAME[/versions/N | /labels/L]:predict
GET  /v1/models/NAME[/versions/N | /labels/L]            status
GET  /v1/models/NAME[/versions/N | /labels/L]/metadata
GET  /monitoring/prometheus/metrics
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.protobuf.json_format import MessageToDict

from easyrec_lite.errors import UserError
from easyrec_lite.serving.failures import RequestError, Status, invalid, not_found
from easyrec_lite.serving.server.grpc_front import signature_map, status_response
from easyrec_lite.serving.server.json_tensors import read_body, read_inputs, signature_name, write_predictions
from easyrec_lite.serving.server.service import PredictService

METRICS_PATH = "/monitoring/prometheus/metrics"
_MODEL = re.compile(
    r"/v1/models/(?P<model>[^/:]+)(?:/versions/(?P<version>\d{1,19})|/labels/(?P<label>[^/:]+))?(?P<action>:\w+|/metadata)?"
)
_IDLE_SECONDS = 60.0  # a connection that sends nothing, or a request too slowly, is closed
_DISCARDING_SECONDS = 5.0
_LARGEST_VERSION = 2**63 - 1


class RestFront:
    """The REST side of a server.

    Args:
        service: answers.
        host: address of the interface.
        port: 0 takes a free one.
        connections: open at a time; further ones are answered 503 and closed.

    Attributes:
        port: where it listens.

    Raises:
        UserError: the port can't be had.
    """

    def __init__(self, service: PredictService, host: str, port: int, connections: int) -> None:
        try:
            self._server = _Server(service, host, port, connections)
        except (OSError, OverflowError) as error:
            raise UserError(
                f"--rest_port: found {port}, which can't be had at {host} ({error}); expected a free port. Stop what"
                " uses it, or name another."
            ) from None
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="rest", daemon=True)

    def start(self) -> None:
        """Begins to serve; returns at once."""
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Takes no more requests, and ends when those it has are answered, or `seconds` later."""
        if self._thread.ident is not None:
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
        self._server.drain(seconds)


class _Server(ThreadingHTTPServer):
    """Listens, with a bound on its connections and a way to end them without cutting an answer."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, service: PredictService, host: str, port: int, connections: int) -> None:
        self.service = service
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._connections = connections
        self._open: dict[Any, bool] = {}  # by socket: whether a request is being answered
        self._changed = threading.Condition()
        self.draining = False
        super().__init__((host, port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._changed:
            full = len(self._open) >= self._connections
            if not full:
                self._open[request] = False
        if full:
            self._refuse(request)
        else:
            super().process_request(request, client_address)

    def _refuse(self, request: socket.socket) -> None:
        body = _error_body(f"The server has {self._connections} connections open and takes no more. Try again later.")
        head = (
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        with contextlib.suppress(OSError):  # the client may be gone
            request.settimeout(1.0)
            request.sendall(head.encode() + body)
        self.shutdown_request(request)

    def mark(self, request: Any, busy: bool) -> None:
        """Says whether a connection's request is being answered."""
        with self._changed:
            if request in self._open:
                self._open[request] = busy
            if self.draining and not busy:
                _end_reading(request)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        with self._changed:
            self._open.pop(request, None)
            self._changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are no news."""

    def drain(self, seconds: float) -> None:
        """Ends idle connections now and the others after their answers, or after `seconds`."""
        with self._changed:
            self.draining = True
            for request, busy in self._open.items():
                if not busy:
                    _end_reading(request)
            self._changed.wait_for(lambda: not self._open, seconds)


def _end_reading(request: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it may be closed already
        request.shutdown(socket.SHUT_RD)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version, sys_version = "easyrec_lite", ""
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_SECONDS
    disable_nagle_algorithm = True
    wbufsize = -1  # one packet for headers and body where they fit

    def parse_request(self) -> bool:
        self.server.mark(self.request, True)
        return super().parse_request()

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        finally:
            if self.server.draining:
                self.close_connection = True
            self.server.mark(self.request, False)

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def _refuse_method(self) -> None:
        self._answer(self._wrong_method)

    do_PUT = do_DELETE = do_PATCH = do_HEAD = do_OPTIONS = _refuse_method  # noqa: N815 - named by http.server

    # ---- requests

    def _get(self) -> tuple[int, str, bytes]:
        path = self.path.partition("?")[0]
        if path == METRICS_PATH:
            return 200, "text/plain; version=0.0.4; charset=utf-8", self.server.service.metrics.text()
        found = self._target(path)
        versions = self.server.service.versions
        version, label = _number(found["version"]), _unquoted(found["label"])
        self.server.service.check_model(_unquoted(found["model"]))
        if found["action"] is None:
            return 200, "application/json", _pretty(_as_dict(status_response(versions.statuses(version, label))))
        if found["action"] != "/metadata":
            return 405, "application/json", _error_body(f"GET {path[:100]}: expected POST.")
        with versions.held(version, label) as served:
            spec = {"name": versions.name, "signature_name": "", "version": str(served.version)}
            signatures = _as_dict(signature_map(served.model.signatures.values()))
        return 200, "application/json", _pretty({"model_spec": spec, "metadata": {"signature_def": signatures}})

    def _post(self) -> tuple[int, str, bytes]:
        content = self._body()
        found = self._target(self.path.partition("?")[0])
        action = found["action"]
        if action in (":classify", ":regress"):
            raise RequestError(
                Status.UNIMPLEMENTED, f"{action}: this server answers :predict; the others take tf.Examples."
            )
        if action != ":predict":
            return 405, "application/json", _error_body(f"POST: found {action or 'a model'}; expected MODEL:predict.")
        service = self.server.service
        with service.call("rest") as call:
            service.check_model(_unquoted(found["model"]))
            body = read_body(content)
            name = _unquoted(found["model"])
            call.open(name, signature_name(body), _number(found["version"]), _unquoted(found["label"]))
            outputs = call.run(read_inputs(body, call.signature, service.limits))
            return 200, "application/json", write_predictions(outputs, as_rows="instances" in body)

    def _wrong_method(self) -> tuple[int, str, bytes]:
        self.close_connection = True  # a body may follow, which nobody reads
        return 405, "application/json", _error_body(f"Method {self.command}: expected GET or POST.")

    def _target(self, path: str) -> re.Match[str]:
        found = _MODEL.fullmatch(path)
        if found is None:
            raise not_found(
                f"Path {path[:100]!r}: expected /v1/models/NAME, with /versions/N or /labels/L if wanted, and :predict"
                " or /metadata."
            )
        return found

    def _body(self) -> bytes:
        """The bytes of the body; where they can't be read, the connection is of no further use."""
        keep, self.close_connection = self.close_connection, True
        if self.headers.get("Transfer-Encoding"):
            raise _HttpError(411, "Transfer-Encoding: found one; expected a body with Content-Length.")
        if self.headers.get("Content-Encoding", "identity") != "identity":
            raise _HttpError(415, "Content-Encoding: found one; expected a body that is not compressed.")
        text = self.headers.get("Content-Length")
        if text is None:
            raise _HttpError(411, "Content-Length: found none; expected the number of bytes of the body.")
        if not (text.isascii() and text.isdecimal() and len(text) < 20):
            raise _HttpError(400, f"Content-Length: found {text[:30]!r}; expected a number of bytes.")
        most = self.server.service.limits.bytes
        if int(text) > most:
            self._discard(int(text))
            raise _HttpError(413, f"The body has {int(text):,} bytes; expected at most {most:,}.")
        content = self._read(int(text))
        self.close_connection = keep
        return content

    def _read(self, size: int) -> bytes:
        parts, left, deadline = [], size, time.monotonic() + _IDLE_SECONDS
        while left:
            part = self.rfile.read1(min(left, 2**20))
            if not part or time.monotonic() > deadline:
                raise _HttpError(400 if not part else 408, f"The body ended after {size - left:,} of {size:,} bytes.")
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    def _discard(self, size: int) -> None:
        """Reads what nobody wants, for a while: a client that is still sending would not see the answer."""
        deadline = time.monotonic() + _DISCARDING_SECONDS
        with contextlib.suppress(OSError):
            while size > 0 and time.monotonic() < deadline and (part := self.rfile.read1(min(size, 2**20))):
                size -= len(part)

    # ---- answers

    def _answer(self, method: Any) -> None:
        try:
            status, kind, body = method()
        except _HttpError as error:
            status, kind, body = error.http, "application/json", _error_body(str(error))
        except TimeoutError:
            status, kind, body = 408, "application/json", _error_body("The body came too slowly.")
        except ConnectionError:
            self.close_connection = True
            return
        except Exception as error:
            refusal = self.server.service.refusal(error)
            status, kind, body = refusal.status.http, "application/json", _error_body(str(refusal))
        self._send(status, kind, body)

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection or self.server.draining:
            self.close_connection = True
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class finds wrong with a request, as JSON."""
        self.close_connection = True
        self.command = self.command or ""
        if not hasattr(self, "request_version") or self.request_version == "HTTP/0.9":
            self.request_version = self.protocol_version
        self._send(code, "application/json", _error_body(f"HTTP: {message or self.responses[code][0]}"))

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: requests are counted, not listed."""


class _HttpError(Exception):
    """A request that HTTP itself refuses."""

    def __init__(self, http: int, message: str) -> None:
        super().__init__(message)
        self.http = http


def _number(text: str | None) -> int | None:
    if text is None:
        return None
    if int(text) > _LARGEST_VERSION:
        raise invalid(f"Version {text}: expected at most {_LARGEST_VERSION}.")
    return int(text)


def _unquoted(text: str | None) -> str:
    return urllib.parse.unquote(text) if text else ""


def _as_dict(message: Any) -> dict[str, Any]:
    result: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return result


def _pretty(values: Any) -> bytes:
    return (json.dumps(values, indent=1) + "\n").encode()


def _error_body(message: str) -> bytes:
    return json.dumps({"error": message}).encode()
