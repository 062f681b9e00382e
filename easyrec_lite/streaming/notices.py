"""Who is told of an alarm: a command, a URL."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from easyrec_lite.terminal import warn

_CLOSE_SECONDS = 60.0


class Notifier:
    """Hands alarms on, beside the training and one after the other; what goes wrong is a warning.

    Args:
        command: a program and its arguments, run without a shell, with the alarm as JSON on standard input.
        url: gets the alarm as a POST of JSON. It is a secret, and so in no message.
        seconds: after which a program is ended, or an answer no longer waited for.
        tell: where warnings go.
    """

    def __init__(
        self,
        command: Sequence[str] = (),
        url: str = "",
        seconds: float = 30.0,
        tell: Callable[[str], None] = warn,
    ) -> None:
        self._command, self._url, self._seconds, self._tell = tuple(command), url, seconds, tell
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="alarms")
        self._sent: list[Future[None]] = []

    def send(self, alarm: Mapping[str, Any]) -> None:
        """Hands an alarm on, later."""
        if self._command or self._url:
            self._sent.append(self._worker.submit(self._send, json.dumps(alarm, ensure_ascii=False).encode()))

    def close(self) -> None:
        """Returns when all was handed on; after a minute it gives up on what still waits."""
        _, late = wait(self._sent, _CLOSE_SECONDS)
        self._worker.shutdown(wait=True, cancel_futures=True)
        if lost := sum(future.cancelled() for future in late):
            self._tell(f"{lost} alarms were not handed on: alarm_command and alarm_url were too slow")
        self._sent = []

    def _send(self, text: bytes) -> None:
        if self._command:
            self._run(text)
        if self._url:
            self._post(text)

    def _run(self, text: bytes) -> None:
        place = f"stream_config.drift.alarm_command: {self._command[0]!r}"
        # Files, not pipes: a grandchild that lives on would keep a pipe open.
        with tempfile.TemporaryFile() as alarm, tempfile.TemporaryFile() as errors:
            alarm.write(text)
            alarm.seek(0)
            try:
                process = subprocess.Popen(
                    self._command, stdin=alarm, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True
                )
            except OSError as error:
                self._tell(f"{place} could not be run: {error.strerror}")
                return
            try:
                code = process.wait(self._seconds)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                self._tell(f"{place} was ended: it took longer than {self._seconds:g} s")
                return
            if code:
                errors.seek(0)
                said = errors.read().decode(errors="replace").strip()[-200:]
                self._tell(f"{place} ended with code {code}" + (f": {said}" if said else ""))

    def _post(self, text: bytes) -> None:
        place = "stream_config.drift.alarm_url"
        try:
            request = urllib.request.Request(self._url, text, {"Content-Type": "application/json"}, method="POST")
            with urllib.request.urlopen(request, timeout=self._seconds):
                pass
        except urllib.error.HTTPError as error:
            self._tell(f"{place}: the server answered {error.code}")
        except Exception as error:  # of whatever library; their texts may hold the URL
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            cause = reason.strerror if isinstance(reason, OSError) and reason.strerror else type(reason).__name__
            self._tell(f"{place}: the alarm could not be sent ({cause})")
