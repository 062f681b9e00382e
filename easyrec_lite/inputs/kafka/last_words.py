"""What a broker says before it closes a connection is heard.

kafka-python's TLS connections read until nothing more is there, and drop what they have read if the end of the
connection comes with it: so the answer that a password is wrong was lost where the reader was a little late.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kafka.net import transport as kafka_transport

_Receive = Callable[[Any], tuple[bytes, Exception | None]]


def hear_last_words() -> None:
    """Has all TLS connections of this process hand on what came before the end; the next read finds the end again.

    What is replaced is private: where another version has none of it, it is left alone.
    """
    tls: Any = getattr(kafka_transport, "KafkaSSLTransport", None)
    receive = getattr(tls, "_sock_recv", None)
    if receive is not None and receive.__module__ == kafka_transport.__name__:
        tls._sock_recv = data_first(receive)


def data_first(receive: _Receive) -> _Receive:
    """`receive`, but for an error that comes together with data: that is left to the next call."""

    def received(transport: Any) -> tuple[bytes, Exception | None]:
        data, error = receive(transport)
        return data, None if data else error

    return received
