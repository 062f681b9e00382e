"""Which ops the time of training goes to, by TensorFlow's profiler."""

from __future__ import annotations

import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

_OP = re.compile(r"^([\w./\-]+):(_?[A-Z]\w*)$")  # the events of kernels are named "path/of/op:OpType"


@dataclass
class OpTime:
    """What an op costs.

    Attributes:
        kind: the op's type.
        name: its name in the graph, without the loops and functions around it.
        seconds: kernel time in all; a kernel that uses several threads counts as long as it takes.
        calls: how often it ran.
    """

    kind: str
    name: str
    seconds: float = 0.0
    calls: float = 0


class Profiler:
    """Records the ops that run between `start` and `stop`."""

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def start(self) -> None:
        """Begins; one profiler can run at a time."""
        self._folder = tempfile.TemporaryDirectory()
        tf.profiler.experimental.start(self._folder.name, tf.profiler.experimental.ProfilerOptions(host_tracer_level=2))

    def stop(self) -> list[OpTime]:
        """Ends; returns what ran, the most expensive first.

        Raises:
            RuntimeError: it was not started.
        """
        if self._folder is None:
            raise RuntimeError("stop() comes after start().")
        tf.profiler.experimental.stop()
        with self._folder as folder:
            profiles = [path.read_bytes() for path in Path(folder).rglob("*.xplane.pb")]
        self._folder = None
        return read([xplane_pb2.XSpace.FromString(profile) for profile in profiles])


def read(spaces: Iterable[Any]) -> list[OpTime]:
    """The ops of profiles, the most expensive first; time in ops that call others counts once, in the inner ones."""
    ops: dict[tuple[str, str], OpTime] = {}
    for plane in (plane for space in spaces for plane in space.planes):
        for line in plane.lines:
            for kind, name, picoseconds in _own_times(line.events, plane.event_metadata):
                op = ops.setdefault((kind, name), OpTime(kind, name))
                op.seconds += picoseconds * 1e-12
                op.calls += 1
    return sorted(ops.values(), key=lambda op: -op.seconds)


def by_kind(ops: list[OpTime]) -> list[OpTime]:
    """Ops of one type added up; `name` is that of the most expensive one."""
    kinds: dict[str, list[OpTime]] = defaultdict(list)
    for op in ops:
        kinds[op.kind].append(op)
    sums = [
        OpTime(kind, members[0].name, sum(op.seconds for op in members), sum(op.calls for op in members))
        for kind, members in kinds.items()
    ]
    return sorted(sums, key=lambda op: -op.seconds)


def _own_times(events: Any, metadata: Any) -> Iterator[tuple[str, str, int]]:
    """Type, name and own time of each op of a thread; events of a thread are nested or apart."""
    open_events: list[list[Any]] = []  # [end, type, name, own picoseconds]

    def close(until: int) -> Iterator[tuple[str, str, int]]:
        while open_events and open_events[-1][0] <= until:
            _, kind, name, own = open_events.pop()
            yield kind, name, max(own, 0)

    timed = [
        (event.offset_ps, event.duration_ps, match)
        for event in events
        if (match := _OP.match(metadata[event.metadata_id].name))
    ]
    for start, duration, match in sorted(timed, key=lambda event: (event[0], -event[1])):
        yield from close(start)
        if open_events:
            open_events[-1][3] -= duration
        open_events.append([start + duration, match[2], _short(match[1]), duration])
    yield from close(2**63)


def _short(name: str) -> str:
    """Without the loops and branches that inlining leaves in names, such as `while/body/_1/while/cond/then/_33/`."""
    parts = [part for part in name.split("/") if not re.fullmatch(r"_\d+|body|then|else|(while|cond)(_\d+)?", part)]
    return "/".join(parts) or name
