"""The broker's process: its settings, how it is started, found again and ended."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

HOST = "127.0.0.1"
MAX_MESSAGE_BYTES = 16 * 2**20

_POLL_SECONDS = 0.02
# Below the ports that systems hand out to outgoing connections (from 32768 or 49152 on): while the broker is down
# nobody else is given its ports, and a client that tries to reach it can't be connected to itself.
_PORTS = range(20_000, 32_000)
_FOREVER = str(2**63 - 1)

_LOG4J = """\
log4j.rootLogger=INFO, out
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.layout=org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern=[%d] %p %m (%c)%n
"""


def free_ports(count: int) -> list[int]:
    """Different ports of the loopback interface that nobody listens on."""
    found: list[int] = []
    with contextlib.ExitStack() as held:
        while len(found) < count:
            port = random.SystemRandom().choice(_PORTS)
            probe = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind((HOST, port))
                found.append(port)
    return found


def write_settings(directory: Path, port: int, controller_port: int, more: Mapping[str, str]) -> Path:
    """Writes server.properties and the logging's settings; returns the path of the former.

    In `more`, `{port}` and `{controller_port}` stand for the two ports.
    """
    ports = {"{port}": str(port), "{controller_port}": str(controller_port)}
    settings = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{HOST}:{controller_port}",
        "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "log.dirs": str(directory / "data"),
        "auto.create.topics.enable": "false",
        "num.partitions": "2",
        "offsets.topic.num.partitions": "1",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.num.partitions": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
        # Times are those of events, which may be years old or of any order: nothing may go by them.
        "log.message.timestamp.type": "CreateTime",
        "log.message.timestamp.before.max.ms": _FOREVER,
        "log.message.timestamp.after.max.ms": _FOREVER,
        "log.retention.ms": "-1",
        "log.retention.bytes": "-1",
        "log.roll.ms": _FOREVER,
        # By the times of its messages a broker that restarts also judges which producers it still knows, and one that
        # it doesn't know may repeat a batch unnoticed. The longest that can be said is 25 days.
        "producer.id.expiration.ms": str(2**31 - 1),
        # The limit is for a batch of records, which is a little longer than the one value in it.
        "message.max.bytes": str(MAX_MESSAGE_BYTES + 2**16),
        "replica.fetch.max.bytes": str(MAX_MESSAGE_BYTES + 2**16),
        # After a crash the broker is let in again when its old session has ended: 9 seconds by default.
        "broker.session.timeout.ms": "2000",
        "broker.heartbeat.interval.ms": "500",
        # A small process: few threads, and not the 128 MB that compaction takes by default.
        "num.network.threads": "2",
        "num.io.threads": "4",
        "background.threads": "2",
        "log.cleaner.dedupe.buffer.size": str(8 * 2**20),
        "log.cleaner.io.buffer.size": str(2**19),
        "log.cleaner.backoff.ms": "500",
        **{key: functools.reduce(lambda text, name: text.replace(name, ports[name]), ports, more[key]) for key in more},
    }
    (directory / "log4j.properties").write_text(_LOG4J, encoding="utf-8")
    path = directory / "server.properties"
    path.write_text("".join(f"{key}={value}\n" for key, value in settings.items()), encoding="utf-8")
    return path


def java_command(java: str, jars: Path, settings: Path, heap_mb: int, main: str, *arguments: str) -> list[str]:
    """The command line of one of Kafka's main classes."""
    # The first compiler tier and the serial collector: half the start-up of the defaults, which pay off in hours.
    flags = ["-Xms64m", f"-Xmx{heap_mb}m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Djava.awt.headless=true"]
    logging = f"-Dlog4j.configuration=file:{settings.with_name('log4j.properties')}"
    return [java, *flags, logging, "-cp", f"{jars}/*", main, *arguments]


class Child:
    """A process in a session of its own (Ctrl-C in a terminal doesn't reach it) that ends with this one if asked to.

    Args:
        command: What to run.
        log: The file that its output is appended to.
        detached: It outlives this process.
    """

    def __init__(self, command: Sequence[str], log: Path, *, detached: bool):
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        # A shell that waits for the end of a pipe, whose other end closes with this process, however it dies. (The
        # death signal of Linux would go by the thread that called, and tests restart brokers in threads.)
        self._guard = None if detached else _guard(self._process.pid)

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def returncode(self) -> int | None:
        """Its exit status; None while it runs."""
        return self._process.poll()

    def reap(self, timeout: float) -> None:
        """Waits for the end of the process, which a signal was sent to."""
        if self._guard is not None:  # first: once the process is reaped, its number may become another's
            self._guard.kill()
            self._guard.communicate()
            self._guard = None
        self._process.wait(timeout)


def _guard(pid: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["/bin/sh", "-c", 'read -r _; kill -KILL "$1"', "guard", str(pid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def is_process(pid: int, argument: str) -> bool:
    """True if the process runs and was started with that argument (numbers of processes are used again)."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        if Path("/proc/self").exists():
            return False
        asked = subprocess.run(["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, check=False)
        return argument.encode() in asked.stdout
    return argument.encode() in command.split(b"\0")  # empty for one that ended and waits for its parent


def end(pid: int, argument: str, how: signal.Signals, timeout: float, child: Child | None = None) -> bool:
    """Sends a signal and waits for the end of the process; False if it still runs after `timeout` seconds."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, how)
    if child is not None and child.pid == pid:
        try:
            child.reap(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True
    deadline = time.monotonic() + timeout
    while is_process(pid, argument):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def listens(port: int) -> bool:
    """True if something accepts connections at a port of the loopback interface."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def wait_until_it_listens(port: int, child: Child, deadline: float) -> bool:
    """Waits until the port accepts connections; False if the process ended, or time ran out (`time.monotonic`)."""
    while time.monotonic() < deadline and child.returncode() is None:
        if listens(port):
            return True
        time.sleep(_POLL_SECONDS)
    return False
