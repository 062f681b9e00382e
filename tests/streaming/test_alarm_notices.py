"""Commands and servers that are told of alarms, and what happens if they don't want to hear of it."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from easyrec_lite.streaming import Notifier

ALARM = {"id": "1-label_mean-click", "value": 0.5, "subject": "Käufe"}
SECRET = "s3cret-token"


class Server:
    """A server that keeps what it is sent."""

    def __init__(self, status: int = 200) -> None:
        self.received: list[tuple[str, str, bytes]] = []
        received = self.received

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                received.append((self.path, self.headers["Content-Type"], body))
                self.send_response(status)
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        self.http = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/{SECRET}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.http.shutdown()
    one.http.server_close()


def told(*, seconds: float = 30.0, alarms: int = 1, **where: object) -> list[str]:
    """Hands alarms on; returns the warnings."""
    warnings: list[str] = []
    notifier = Notifier(**where, seconds=seconds, tell=warnings.append)  # type: ignore[arg-type]
    for _ in range(alarms):
        notifier.send(ALARM)
    notifier.close()
    return warnings


def test_a_server_gets_each(server: Server) -> None:
    assert told(url=server.url, alarms=2) == []
    assert [(path, kind, json.loads(body)) for path, kind, body in server.received] == [
        (f"/{SECRET}", "application/json", ALARM)
    ] * 2


def test_a_command_gets_each_on_standard_input(tmp_path: Path) -> None:
    target = tmp_path / "a file; with $(odd) name"
    program = "import sys; open(sys.argv[1], 'ab').write(sys.stdin.buffer.read() + b'\\n')"
    assert told(command=[sys.executable, "-c", program, str(target)], alarms=2) == []
    assert [json.loads(line) for line in target.read_text().splitlines()] == [ALARM, ALARM]


def test_both(server: Server, tmp_path: Path) -> None:
    assert told(command=["tee", str(tmp_path / "alarm")], url=server.url) == []
    assert json.loads((tmp_path / "alarm").read_text()) == json.loads(server.received[0][2]) == ALARM


def test_an_answer_that_is_an_error() -> None:
    server = Server(status=503)
    [warning] = told(url=server.url)
    assert "alarm_url: the server answered 503" in warning
    assert SECRET not in warning
    server.http.shutdown()
    server.http.server_close()


@pytest.mark.parametrize("url", [f"http://127.0.0.1:1/{SECRET}", f"http://[{SECRET}", f"nothing://{SECRET}", SECRET])
def test_nobody_there(url: str, caplog: pytest.LogCaptureFixture) -> None:
    [warning] = told(url=url)
    assert "alarm_url: the alarm could not be sent" in warning
    assert SECRET not in warning + caplog.text


def test_a_server_that_never_answers() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        [warning] = told(url=f"http://127.0.0.1:{silent.getsockname()[1]}/{SECRET}", seconds=0.2)
    assert "could not be sent" in warning
    assert SECRET not in warning


def test_a_command_that_fails() -> None:
    [warning] = told(command=[sys.executable, "-c", "import sys; sys.exit('no disk')"])
    assert "alarm_command" in warning
    assert "ended with code 1: no disk" in warning
    [warning] = told(command=["/no/such/program", "--password", SECRET])
    assert "'/no/such/program' could not be run: No such file" in warning
    assert SECRET not in warning  # arguments are not shown


def test_a_command_that_takes_too_long(tmp_path: Path) -> None:
    """It and its children end; one that left a child behind is not waited for."""
    began = time.monotonic()
    [warning] = told(command=["sh", "-c", "sleep 60 & sleep 60"], seconds=0.3)
    assert "was ended: it took longer than 0.3 s" in warning
    assert told(command=["sh", "-c", "sleep 60 & exit 0"]) == []
    assert time.monotonic() - began < 30


def test_nobody_to_tell() -> None:
    assert told() == []
