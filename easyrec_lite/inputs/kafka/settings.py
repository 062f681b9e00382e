"""What a config says of a Kafka topic, checked all at once; librdkafka's keys for either client."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from easyrec_lite.config import ConfigError, Problem, did_you_mean, is_reference, resolve_secret
from easyrec_lite.protos import data_pb2

_Kind = Literal["earliest", "latest", "time", "offsets"]

# librdkafka's key, kafka-python's argument, how its value reads. Both clients take these; librdkafka takes more.
_KEYS: dict[str, tuple[str, type]] = {
    "security.protocol": ("security_protocol", str),
    "ssl.ca.location": ("ssl_cafile", str),
    "ssl.certificate.location": ("ssl_certfile", str),
    "ssl.key.location": ("ssl_keyfile", str),
    "ssl.key.password": ("ssl_password", str),
    "ssl.crl.location": ("ssl_crlfile", str),
    "ssl.cipher.suites": ("ssl_ciphers", str),
    "ssl.endpoint.identification.algorithm": ("ssl_check_hostname", str),
    "sasl.mechanism": ("sasl_mechanism", str),
    "sasl.mechanisms": ("sasl_mechanism", str),
    "sasl.username": ("sasl_plain_username", str),
    "sasl.password": ("sasl_plain_password", str),
    "sasl.kerberos.service.name": ("sasl_kerberos_service_name", str),
    "client.id": ("client_id", str),
    "client.rack": ("client_rack", str),
    "check.crcs": ("check_crcs", bool),
    "fetch.min.bytes": ("fetch_min_bytes", int),
    "fetch.wait.max.ms": ("fetch_max_wait_ms", int),
    "fetch.max.bytes": ("fetch_max_bytes", int),
    "fetch.message.max.bytes": ("max_partition_fetch_bytes", int),
    "max.partition.fetch.bytes": ("max_partition_fetch_bytes", int),
    "receive.message.max.bytes": ("receive_message_max_bytes", int),
    "connections.max.idle.ms": ("connections_max_idle_ms", int),
    "reconnect.backoff.ms": ("reconnect_backoff_ms", int),
    "reconnect.backoff.max.ms": ("reconnect_backoff_max_ms", int),
    "retry.backoff.ms": ("retry_backoff_ms", int),
    "socket.timeout.ms": ("request_timeout_ms", int),
    "socket.receive.buffer.bytes": ("receive_buffer_bytes", int),
    "socket.send.buffer.bytes": ("send_buffer_bytes", int),
}
_OURS = {
    "bootstrap.servers": "the field `server`",
    "metadata.broker.list": "the field `server`",
    "group.id": "the field `group`",
    "auto.offset.reset": "the field `start`, and `skip_lost` for messages that are gone",
    "enable.auto.commit": "nothing: progress is committed with each checkpoint",
    "enable.auto.offset.store": "nothing: progress is committed with each checkpoint",
    "enable.partition.eof": "nothing",
    "isolation.level": "nothing: only committed messages are read",
}
_SECRETS = re.compile(r"[\w.]*(password|secret|token|jaas\.config|key\.pem)[\w.]*|sasl\.username")
_BOOLS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class Where:
    """A place in each partition.

    Attributes:
        kind: What the place is given by.
        time_ms: Milliseconds since 1970, for a time.
        offsets: Offset by partition, for offsets.
    """

    kind: _Kind
    time_ms: int = 0
    offsets: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Settings:
    """A checked KafkaServer message.

    Attributes:
        path: Its path in the config, for errors.
        servers: host:port, one or more.
        topic: The topic.
        group: The group that offsets are committed to.
        client: A `KafkaServer.Client`.
        options: Settings of the client by librdkafka's keys, secrets resolved; never shown.
        start: Where a run without a position starts.
        end: Where the run ends; None: never.
        max_wait: Seconds after which a batch goes out that isn't full.
        skip_lost: Go on behind messages that the broker no longer has.
        dead_letter_topic: Gets the messages that can't be read; "" for none.
        workers: Processes that share the topic.
        worker: The number of this one, from 0.
    """

    path: str
    servers: tuple[str, ...]
    topic: str
    group: str
    client: int = data_pb2.KafkaServer.KAFKA_PYTHON
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    start: Where = Where("earliest")
    end: Where | None = None
    max_wait: float = 1.0
    skip_lost: bool = False
    dead_letter_topic: str = ""
    workers: int = 1
    worker: int = 0

    @property
    def bootstrap(self) -> str:
        """The brokers as one text."""
        return ",".join(self.servers)

    def reads(self, partition: int) -> bool:
        """Whether this process reads the partition."""
        return partition % self.workers == self.worker

    @classmethod
    def from_config(cls, server: data_pb2.KafkaServer, path: str = "kafka_train_input") -> Settings:
        """Checks a config and resolves its secrets.

        Raises:
            ConfigError: All that is wrong with it.
        """
        problems: list[Problem] = []
        servers = tuple(part.strip() for part in server.server.split(",") if part.strip())
        for name in servers or ("",):
            if not re.fullmatch(r"(\w+://)?(\[[0-9A-Fa-f:]+\]|[^\s:]+):\d{1,5}", name):
                problems.append(Problem(f"{path}.server", repr(name), "host:port, several separated by commas"))
        for value, what in ((server.topic, "topic"), (server.group, "group")):
            if not value.strip():
                problems.append(Problem(f"{path}.{what}", "nothing", f"the name of the {what}"))
        for topic, what in ((server.topic, "topic"), (server.dead_letter_topic, "dead_letter_topic")):
            if topic.strip() and not re.fullmatch(r"[A-Za-z0-9._-]{1,249}", topic):
                problems.append(Problem(f"{path}.{what}", repr(topic), "letters, digits, dots, dashes, underscores"))
        if server.topic and server.topic == server.dead_letter_topic:
            problems.append(Problem(f"{path}.dead_letter_topic", repr(server.topic), "another topic than `topic`"))
        if not server.workers:
            problems.append(Problem(f"{path}.workers", "0", "at least 1"))
        elif server.worker >= server.workers:
            expected = f"a number below workers = {server.workers}; processes count from 0"
            problems.append(Problem(f"{path}.worker", str(server.worker), expected))
        options = _options(server, path, problems)
        start = _start(server, path, problems)
        end = _end(server, path, problems)
        if problems:
            raise ConfigError(problems)
        return cls(
            path,
            servers,
            server.topic,
            server.group,
            server.client,
            options,
            start,
            end,
            server.max_wait_ms / 1000,
            server.skip_lost,
            server.dead_letter_topic,
            server.workers,
            server.worker,
        )


def kafka_python_options(options: Mapping[str, str]) -> dict[str, Any]:
    """The arguments of kafka-python that mean the same."""
    arguments: dict[str, Any] = {}
    for key, value in options.items():
        name, type_ = _KEYS[key]
        arguments[name] = _BOOLS[value.lower()] if type_ is bool else type_(value)
    for name in ("security_protocol", "sasl_mechanism"):
        if name in arguments:
            arguments[name] = arguments[name].upper()
    if "ssl_check_hostname" in arguments:
        arguments["ssl_check_hostname"] = arguments["ssl_check_hostname"].lower() == "https"
    return arguments


def _options(server: data_pb2.KafkaServer, path: str, problems: list[Problem]) -> dict[str, str]:
    options: dict[str, str] = {}
    only_ours = server.client == data_pb2.KafkaServer.KAFKA_PYTHON
    for name, items in (("config_global", server.config_global), ("config_topic", server.config_topic)):
        for index, item in enumerate(items):
            place = f"{path}.{name}[{index}]"
            key, equals, value = (part.strip() for part in item.partition("="))
            if not (key and equals):
                # The text isn't shown: who knows what it is.
                problems.append(Problem(place, "a setting without `=`", "key=value"))
            elif key in _OURS:
                problems.append(Problem(place, repr(key), f"no setting that is made elsewhere: use {_OURS[key]}"))
            elif only_ours and key not in _KEYS:
                more = "librdkafka's other keys take `client: CONFLUENT`"
                hint = did_you_mean(key, _KEYS)
                problems.append(
                    Problem(place, repr(key), "a key that kafka-python knows", f"{hint} {more}" if hint else more)
                )
            elif key in options:
                problems.append(Problem(place, f"{key!r} a second time", "each key once"))
            else:
                options[key] = _value(place, key, value, problems)
    return options


def _value(place: str, key: str, value: str, problems: list[Problem]) -> str:
    if _SECRETS.fullmatch(key):
        if not is_reference(value) and key == "sasl.username":
            return value
        try:
            return resolve_secret(value, place)
        except ConfigError as error:
            problems += error.problems
            return ""
    if re.fullmatch(r"ssl\.\w+\.location", key) and not os.access(value, os.R_OK):
        problems.append(Problem(place, f"{key}={value}, which can't be read", "the path of a file"))
    type_ = _KEYS.get(key, ("", str))[1]
    if type_ is int and not re.fullmatch(r"\d+", value):
        problems.append(Problem(place, f"{key}={value}", "a whole number"))
    if type_ is bool and value.lower() not in _BOOLS:
        problems.append(Problem(place, f"{key}={value}", "true or false"))
    return value


def _start(server: data_pb2.KafkaServer, path: str, problems: list[Problem]) -> Where:
    which = server.WhichOneof("offset")
    if which == "offset_info":
        return Where("offsets", offsets=_offsets(server.offset_info, f"{path}.offset_info", problems))
    if which == "offset_time":
        return Where("time", _time_ms(server.offset_time, f"{path}.offset_time", problems))
    if which == "start_after_base" and server.start_after_base:
        expected = "offset_time: only a training has a base model"
        problems.append(Problem(f"{path}.start_after_base", "true", expected))
    latest = which == "start" and server.start == data_pb2.KafkaServer.LATEST
    return Where("latest" if latest else "earliest")


def _end(server: data_pb2.KafkaServer, path: str, problems: list[Problem]) -> Where | None:
    which = server.WhichOneof("end")
    if which == "end_offset_info":
        return Where("offsets", offsets=_offsets(server.end_offset_info, f"{path}.end_offset_info", problems))
    if which == "end_offset_time":
        return Where("time", _time_ms(server.end_offset_time, f"{path}.end_offset_time", problems))
    return Where("latest") if which == "end_at_start" and server.end_at_start else None


def _offsets(text: str, place: str, problems: list[Problem]) -> dict[int, int]:
    """Offset by partition from JSON; booleans are no numbers."""
    try:
        found = json.loads(text)
        offsets = {int(partition): offset for partition, offset in found.items()}
    except (ValueError, AttributeError):
        offsets = {-1: -1}
    if not all(partition >= 0 and type(offset) is int and offset >= 0 for partition, offset in offsets.items()):
        problems.append(Problem(place, repr(text[:200]), 'offsets by partition: {"0": 5, "1": 10}'))
    return offsets


def _time_ms(text: str, place: str, problems: list[Problem]) -> int:
    """Milliseconds since 1970 of a local time, or of seconds since 1970 (milliseconds, where there are 13 digits)."""
    if re.fullmatch(r"\d{1,12}(\.\d+)?", text):
        return int(float(text) * 1000)
    if re.fullmatch(r"\d{13}", text):
        return int(text)
    try:
        return int(datetime.strptime(text, "%Y%m%d %H:%M:%S").timestamp() * 1000)
    except ValueError:
        expected = "a time: `20261122 08:30:00` (local), or seconds since 1970"
        problems.append(Problem(place, repr(text[:100]), expected))
        return 0
