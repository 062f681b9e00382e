"""A real Apache Kafka broker on this machine, to try streams and to test against.

    python -m tools.kafka_broker start --dir runs/kafka
    python -m tools.kafka_broker topics create clicks --partitions 4 --dir runs/kafka
    python -m tools.kafka_broker stop --dir runs/kafka

One node (KRaft mode, no ZooKeeper, no Docker), reachable on the loopback interface only, with everything it keeps in
the directory: messages in `data/`, its log in `server.log`. It takes Java 11 or newer, and Maven once, to fetch
Kafka's jars (46 MB, kept in ~/.cache/easyrec_lite or where EASYREC_LITE_CACHE says). With EASYREC_LITE_KAFKA=host:port
that broker is used instead and nothing is started.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from easyrec_lite.terminal import main_guard, table
from tools._kafka_jars import BROKER_VARIABLE, KAFKA_VERSION, BrokerError, jars, java
from tools._kafka_server import (
    HOST,
    Child,
    end,
    free_ports,
    is_process,
    java_command,
    wait_until_it_listens,
    write_settings,
)
from tools._kafka_topics import Cluster
from tools.data._files import replacing

__all__ = ["BROKER_VARIABLE", "BrokerError", "Cluster", "KafkaBroker", "any_broker", "existing_broker"]

_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
_TRIES = 3  # of the first start, should somebody take a port between its choice and its use


class KafkaBroker(Cluster):
    """One Apache Kafka broker as a child process.

        with KafkaBroker("runs/kafka") as broker:
            broker.create_topic("clicks", partitions=4)
            train(broker.bootstrap)
            broker.kill()
            broker.start()    # the same address, the same messages

    Started by this class it ends with this process, even if that one is killed; `detached` ones live on until `stop`,
    called by any process on the same directory.

    Args:
        directory: Where it keeps everything; one that exists is continued with its ports and messages.
        heap_mb: Java's heap in MiB.
        settings: More lines of server.properties, which win over ours; `{port}` and `{controller_port}` are filled in.
        detached: It outlives this process.
        start_timeout: Seconds that a start may take.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        heap_mb: int = 256,
        settings: Mapping[str, str] | None = None,
        detached: bool = False,
        start_timeout: float = _START_SECONDS,
    ):
        self.directory = Path(directory).resolve()
        self._heap_mb = heap_mb
        self._more_settings = dict(settings or {})
        self._detached = detached
        self._start_timeout = start_timeout
        self._child: Child | None = None

    @property
    def bootstrap(self) -> str:
        """The address for clients, host:port; the same over restarts.

        Raises:
            BrokerError: The broker was never started.
        """
        return f"{HOST}:{self._identity()['port']}"

    @property
    def pid(self) -> int | None:
        """The number of the running process, whoever started it; None if none runs."""
        with contextlib.suppress(OSError, ValueError):
            pid = int(self._pid_file.read_text(encoding="ascii"))
            if is_process(pid, str(self._settings_file)):
                return pid
        return None

    def start(self) -> Self:
        """Starts the broker, unless it runs, and waits until it answers.

        Raises:
            BrokerError: Java, Maven or the jars are missing, or the broker does not come up; names its log.
        """
        if self.pid is not None:
            return self
        self._forget_child()
        first = not self._identity_file.exists()
        program, libraries = java(), jars()
        for tries_left in reversed(range(_TRIES if first else 1)):
            if first:
                self._choose_ports()
            identity = self._identity()
            write_settings(self.directory, identity["port"], identity["controller_port"], self._more_settings)
            if not (self.directory / "data" / "meta.properties").exists():
                self._format(program, libraries, identity["cluster_id"])
            log_start = self._log.stat().st_size if self._log.exists() else 0
            command = java_command(
                program, libraries, self._settings_file, self._heap_mb, "kafka.Kafka", str(self._settings_file)
            )
            self._child = Child(command, self._log, detached=self._detached)
            self._pid_file.write_text(str(self._child.pid), encoding="ascii")
            if self._wait_until_ready(self._child, identity):
                return self
            said = self._log.read_bytes()[log_start:].decode("utf-8", "replace")
            self.kill()
            if not (tries_left and "Address already in use" in said):
                raise self._no_start(said)
        raise AssertionError("unreachable: the last try returns or raises")

    def stop(self) -> None:
        """Ends the broker in good order, or by SIGKILL if that takes too long; nothing to do if none runs."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Ends the broker by SIGKILL, as a crash would; what it had written stays in the system's cache."""
        self._end(signal.SIGKILL)

    def restart(self) -> Self:
        """Stops and starts the broker on the same ports and messages."""
        self.stop()
        return self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def _settings_file(self) -> Path:
        return self.directory / "server.properties"

    @property
    def _identity_file(self) -> Path:
        return self.directory / "broker.json"

    @property
    def _pid_file(self) -> Path:
        return self.directory / "pid"

    @property
    def _log(self) -> Path:
        return self.directory / "server.log"

    def _identity(self) -> dict:
        try:
            identity = json.loads(self._identity_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise BrokerError(
                f"{self.directory}: no broker was started in this directory. Start one: "
                f"python -m tools.kafka_broker start --dir {self.directory}"
            ) from None
        if identity["version"] != KAFKA_VERSION:
            raise BrokerError(
                f"{self._identity_file}: made by Kafka {identity['version']}, but this is {KAFKA_VERSION}. "
                "Take another directory, or delete this one."
            )
        return identity

    def _choose_ports(self) -> None:
        """Gives the broker ports, other ones than before, and its cluster an identity, once."""
        self.directory.mkdir(parents=True, exist_ok=True)
        cluster_id = self._identity()["cluster_id"] if self._identity_file.exists() else _random_id()
        port, controller_port = free_ports(2)
        identity = {
            "version": KAFKA_VERSION,
            "cluster_id": cluster_id,
            "port": port,
            "controller_port": controller_port,
        }
        with replacing(self._identity_file) as partial:
            partial.write_text(json.dumps(identity, indent=1), encoding="utf-8")

    def _format(self, program: str, libraries: Path, cluster_id: str) -> None:
        command = java_command(
            program, libraries, self._settings_file, self._heap_mb, "kafka.tools.StorageTool", "format",
            "--cluster-id", cluster_id, "--config", str(self._settings_file), "--ignore-formatted",
        )  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise self._no_start(f"{done.stdout}\n{done.stderr}")

    def _wait_until_ready(self, child: Child, identity: dict) -> bool:
        """Waits until the broker says that it is a member of its cluster; False if it ended or time ran out."""
        deadline = time.monotonic() + self._start_timeout
        if not wait_until_it_listens(identity["port"], child, deadline):
            return False
        while time.monotonic() < deadline and child.returncode() is None:
            with contextlib.suppress(KafkaError):
                # A second, for it may be somebody else who listens there, while the child is about to end of that.
                admin = KafkaAdminClient(bootstrap_servers=self.bootstrap, bootstrap_timeout_ms=1000)
                try:
                    cluster = admin.describe_cluster()
                finally:
                    admin.close()
                if cluster["brokers"] and cluster["cluster_id"] == identity["cluster_id"]:
                    return True
        return False

    def _no_start(self, said: str) -> BrokerError:
        lines = [line for line in said.splitlines() if "ERROR" in line or "FATAL" in line or "Exception" in line]
        reasons = "\n".join((lines or said.strip().splitlines())[-10:])
        hint = " Java is too old: install 11 or newer." if "UnsupportedClassVersionError" in said else ""
        return BrokerError(
            f"{self._log}: the broker did not start in {self._start_timeout:g} seconds.{hint} It said:\n{reasons}"
        )

    def _end(self, how: signal.Signals) -> None:
        child, argument = self._child, str(self._settings_file)
        pid = child.pid if child is not None and child.returncode() is None else self.pid
        if pid is not None and not end(pid, argument, how, _STOP_SECONDS, child):
            end(pid, argument, signal.SIGKILL, _STOP_SECONDS, child)
        self._forget_child()
        self._pid_file.unlink(missing_ok=True)

    def _forget_child(self) -> None:
        if self._child is not None:
            self._child.reap(_STOP_SECONDS)
            self._child = None


def existing_broker() -> Cluster | None:
    """The broker that EASYREC_LITE_KAFKA names, if it names one."""
    address = os.environ.get(BROKER_VARIABLE)
    return Cluster(address) if address else None


@contextlib.contextmanager
def any_broker(directory: str | os.PathLike[str]) -> Iterator[Cluster]:
    """The broker that EASYREC_LITE_KAFKA names, or one of our own in the directory, stopped in the end."""
    existing = existing_broker()
    if existing is not None:
        yield existing
        return
    with KafkaBroker(directory) as broker:
        yield broker


def _random_id() -> str:
    """A Kafka Uuid: 16 random bytes in 22 characters. None begins with "-", which would look like an option."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode("ascii").rstrip("=")
        if not text.startswith("-"):
            return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.kafka_broker",
        description="Runs a real Apache Kafka broker on this machine, on the loopback interface.",
        epilog=f"With {BROKER_VARIABLE}=host:port in the environment that broker is used instead.",
    )
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument("--dir", default="runs/kafka", help="where the broker keeps everything (default: %(default)s)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, does in _COMMANDS.items():
        command = commands.add_parser(name, help=does, description=does, parents=[where])
        if name in ("start", "restart"):
            command.add_argument("--heap_mb", type=int, default=256, help="Java's heap in MiB (default: %(default)s)")
    topics = commands.add_parser("topics", help="list, make, describe and delete topics")
    actions = topics.add_subparsers(dest="action", required=True, metavar="ACTION")
    which = argparse.ArgumentParser(add_help=False, parents=[where])
    which.add_argument("--broker", help="host:port of another broker than that of --dir")
    named = argparse.ArgumentParser(add_help=False, parents=[which])
    named.add_argument("topic")
    actions.add_parser("list", help="print the names", parents=[which])
    actions.add_parser("describe", help="print the partitions with their offsets", parents=[named])
    actions.add_parser("delete", help="delete a topic", parents=[named])
    create = actions.add_parser("create", help="make a topic", parents=[named])
    create.add_argument("--partitions", type=int, default=1, help="(default: %(default)s)")
    create.add_argument(
        "--config", action="append", default=[], metavar="KEY=VALUE", help="a setting of the topic; may be repeated"
    )
    return parser


_COMMANDS = {
    "start": "start the broker and print its address",
    "stop": "stop it in good order",
    "kill": "end it by SIGKILL, as a crash would",
    "restart": "stop it and start it on the same port and messages",
    "status": "print whether it runs; exit code 1 if it does not",
}


def _run(command: str, options: argparse.Namespace) -> int:
    existing = existing_broker()
    if existing is not None:
        if command in ("kill", "restart"):
            raise BrokerError(
                f"{BROKER_VARIABLE} names {existing.bootstrap}, which this tool did not start and can't {command}. "
                f"Unset {BROKER_VARIABLE} to work on the broker of {options.dir}."
            )
        existing.cluster_id()  # raises if nobody answers
        print(f"{existing.bootstrap} ({BROKER_VARIABLE}; not ours to start or stop)")
        return 0
    broker = KafkaBroker(options.dir, heap_mb=getattr(options, "heap_mb", 256), detached=True)
    began = time.monotonic()
    if command == "status":
        pid = broker.pid
        print(f"{broker.bootstrap} runs, process {pid}" if pid else f"{broker.directory}: no broker runs")
        return 0 if pid else 1
    if command in ("stop", "kill"):
        ran = broker.pid is not None
        broker.stop() if command == "stop" else broker.kill()
        print(f"{broker.directory}: {'ended' if ran else 'no broker ran'}")
        return 0
    broker.start() if command == "start" else broker.restart()
    print(broker.bootstrap)
    print(f"ready after {time.monotonic() - began:.1f} s, process {broker.pid}", file=sys.stderr)
    return 0


def _cluster(options: argparse.Namespace) -> Cluster:
    if options.broker:
        return Cluster(options.broker)
    return existing_broker() or KafkaBroker(options.dir)


def _topics(options: argparse.Namespace) -> int:
    cluster = _cluster(options)
    if options.action == "create":
        configs = dict(_setting(text) for text in options.config)
        cluster.create_topic(options.topic, options.partitions, configs)
    elif options.action == "delete":
        cluster.delete_topic(options.topic)
    elif options.action == "list":
        print("\n".join(cluster.topics()))
    else:
        rows = [(partition, *between) for partition, between in cluster.offsets(options.topic).items()]
        table(f"{options.topic} {cluster.topic_id(options.topic)}", ("partition", "first offset", "next offset"), rows)
    return 0


def _setting(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not (key and separator):
        raise BrokerError(f"--config: expected KEY=VALUE, such as retention.ms=60000. Received: {text!r}")
    return key, value


@main_guard
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    return _topics(options) if options.command == "topics" else _run(options.command, options)


if __name__ == "__main__":
    sys.exit(main())
