"""Load on the server while versions change: every answer is checked against the version that it comes from.

    python -m tools.bench.serving_load                  # makes two exports, then one minute
    python -m tools.bench.serving_load --minutes 10 --swap_seconds 60 --exports runs/a/1 runs/b/1

Three processes: `python -m easyrec_lite.serve`, the clients, and this one, which puts a new version into the server's
directory every so often. Requests are due at a fixed rate whether or not answers come (an open loop); a request's time
counts from when it was due. With one in five versions the newest is taken back in place of a new one being put there.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from easyrec_lite.terminal import main_guard, table
from tools.bench import _common
from tools.bench._common import BenchError
from tools.bench._serving_traffic import Answer, Traffic, send

_MODEL = "load"
_AROUND = 2.0  # seconds before a swap and after its first answer that count to it
_GROWTH = 1.15  # of memory, from the second period between swaps to the last, that counts as none
_TAKEN_BACK = 5  # every so many changes one is a version taken back


@dataclasses.dataclass(frozen=True)
class Times:
    """Of requests, in milliseconds."""

    count: int
    p50: float
    p99: float
    most: float

    @classmethod
    def of(cls, answers: Sequence[Answer]) -> Times:
        """NaN without any."""
        if not answers:
            return cls(0, float("nan"), float("nan"), float("nan"))
        seconds = np.array([answer.seconds for answer in answers]) * 1e3
        return cls(len(seconds), float(np.median(seconds)), float(np.quantile(seconds, 0.99)), float(seconds.max()))


@dataclasses.dataclass(frozen=True)
class Swap:
    """A change of the version that serves.

    Attributes:
        at: when it was made in the directory, seconds since 1970.
        version: that is the newest from then on.
        taken_back: whether it served before, and a newer one was taken away.
    """

    at: float
    version: int
    taken_back: bool = False


class Publisher:
    """Puts two exports into a directory in turn, under growing numbers: even ones the first, odd ones the second."""

    def __init__(self, model_dir: Path, exports: tuple[Path, Path]) -> None:
        self._model_dir, self._exports = model_dir, exports
        self._number, self._live = 1, list[int]()
        self.swaps: list[Swap] = []

    def change(self) -> None:
        """The next version, or, now and then, the one before it back."""
        if len(self.swaps) % _TAKEN_BACK == _TAKEN_BACK - 1 and len(self._live) > 1:
            self._remove(self._live.pop())
            self.swaps.append(Swap(time.time(), self._live[-1], taken_back=True))
            return
        self._number += 1
        temporary = self._model_dir / f".{self._number}.tmp"
        shutil.copytree(self._exports[self._number % 2], temporary)
        temporary.rename(self._model_dir / str(self._number))
        self.swaps.append(Swap(time.time(), self._number))
        self._live.append(self._number)
        while len(self._live) > 2:
            self._remove(self._live.pop(0))

    def _remove(self, version: int) -> None:
        gone = (self._model_dir / str(version)).rename(self._model_dir / f".{version}.gone")
        shutil.rmtree(gone)


class Server:
    """The server as a process.

    Attributes:
        grpc_port: where it listens.
        rest_port: where it listens.
        lines: what it wrote.
    """

    def __init__(self, model_dir: Path, flags: Sequence[str]) -> None:
        command = [sys.executable, "-m", "easyrec_lite.serve", "--model_dir", str(model_dir), "--model_name", _MODEL]
        self._process = subprocess.Popen(
            [*command, "--grpc_port", "0", "--rest_port", "0", *flags],
            cwd=_common.ROOT,
            env=_common.environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.lines: list[str] = []
        self._serves = threading.Event()
        pattern = re.compile(r"gRPC at \S+:(\d+), REST at http://[^/]+:(\d+)/")
        found = None
        for line in self._process.stdout:
            self.lines.append(line)
            if found := pattern.search(line):
                break
        if found is None:
            raise BenchError(f"The server did not start: {''.join(self.lines)}")
        self.grpc_port, self.rest_port = int(found[1]), int(found[2])
        threading.Thread(target=self._read, daemon=True).start()
        if not self._serves.wait(120):
            raise BenchError(f"No version serves after two minutes: {''.join(self.lines)}")

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line)
            if ": serves" in line:
                self._serves.set()

    def resident_bytes(self) -> int:
        """Memory of the process, now."""
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def stop(self) -> int:
        """Asks it to stop; returns its exit code."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


@dataclasses.dataclass
class Result:
    """What was seen.

    Attributes:
        answers: of all requests.
        swaps: in order.
        memory: (seconds since 1970, bytes) of the server.
        exit_code: of the server after SIGTERM.
    """

    answers: list[Answer]
    swaps: list[Swap]
    memory: list[tuple[float, int]]
    exit_code: int

    def problems(self) -> list[Answer]:
        """Answers that are wrong or failed."""
        return [answer for answer in self.answers if answer.problem]

    def around(self, swap: Swap) -> Times:
        """Of the requests from just before a swap to just after its first answer: loading takes its time, too."""
        return Times.of([answer for answer in self.answers if self._is_near(answer, swap)])

    def away(self) -> Times:
        """Of those that are near to none."""
        return Times.of([a for a in self.answers if not any(self._is_near(a, swap) for swap in self.swaps)])

    def _is_near(self, answer: Answer, swap: Swap) -> bool:
        delay = self.delays.get(swap.at, float("inf"))  # a swap that nobody saw is near to all that follows
        return swap.at - _AROUND <= answer.at <= swap.at + delay + _AROUND

    @functools.cached_property
    def delays(self) -> dict[float, float]:
        """Seconds from a change in the directory, by its time, to the first request that its version answered."""
        result: dict[float, float] = {}
        for swap in self.swaps:
            seen = [a.at + a.seconds - swap.at for a in self.answers if a.version == swap.version and a.at >= swap.at]
            if seen:
                result[swap.at] = min(seen)
        return result

    def periods(self) -> list[float]:
        """The median memory between swaps, in MB."""
        edges = [swap.at for swap in self.swaps] + [float("inf")]
        parts = [[size for at, size in self.memory if a < at <= b] for a, b in itertools.pairwise(edges)]
        return [float(np.median(part)) / 1e6 for part in parts if part]

    def bounded(self) -> bool:
        """Whether memory stays where it was after the first swaps."""
        periods = self.periods()
        return len(periods) < 3 or periods[-1] <= _GROWTH * max(periods[:2])


def run(options: argparse.Namespace, exports: tuple[Path, Path], folder: Path) -> Result:
    """Serves, sends, swaps."""
    model_dir = folder / "served"
    model_dir.mkdir()
    publisher = Publisher(model_dir, exports)
    publisher.change()
    publisher.swaps.clear()
    server = Server(model_dir, options.flags)
    memory: list[tuple[float, int]] = []
    try:
        with (
            multiprocessing.Manager() as manager,
            ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool,
        ):
            ready = manager.Event()
            seconds = options.minutes * 60
            traffic = Traffic(
                exports, _MODEL, server.grpc_port, server.rest_port, 0.0, seconds, options.rate, options.connections,
                options.rest_connections, options.requests, (options.items[0], options.items[1]),
            )  # fmt: skip
            sending = pool.submit(_send_from_now, traffic, ready)
            while not ready.wait(0.2):
                if sending.done():
                    sending.result()
            _watch(server, publisher, sending, options.swap_seconds, memory)
            answers = sending.result()
    finally:
        exit_code = server.stop()
    return Result(answers, publisher.swaps, memory, exit_code)


def _send_from_now(traffic: Traffic, ready: Any) -> list[Answer]:
    class _Starts:
        """Sets the start when everything is prepared."""

        def set(self) -> None:
            object.__setattr__(traffic, "start", time.time() + 1.0)
            ready.set()

    return send(traffic, _Starts())


def _watch(
    server: Server, publisher: Publisher, sending: Future[Any], swap_seconds: float, memory: list[tuple[float, int]]
) -> None:
    """Swaps versions and samples memory until the last answer."""
    next_swap = time.time() + 1.0 + swap_seconds / 2
    while not sending.done():
        memory.append((time.time(), server.resident_bytes()))
        if time.time() >= next_swap:
            publisher.change()
            next_swap += swap_seconds
        time.sleep(0.25)


def make_exports(folder: Path) -> tuple[Path, Path]:
    """Two exports of MultiTower, after 8 and after 16 steps on generated data."""
    data, model_dir = folder / "data", folder / "model"
    _common.python(["-m", "tools.data.taobao_like", "--rows", "20000", "--out", data])
    edits = ["train_config.num_steps=16", "train_config.save_checkpoints_steps=8"]
    config = _common.SAMPLES / "multi_tower_taobao.config"
    _common.train(config, model_dir, str(data / "train" / "*.parquet"), str(data / "eval" / "*.parquet"), edits)
    exports = []
    for checkpoint in sorted((model_dir / "checkpoints").iterdir()):
        export_dir = folder / "exports" / checkpoint.name
        command = ["-m", "easyrec_lite.export", "--model_dir", str(model_dir), "--checkpoint_path", str(checkpoint)]
        _common.python([*command, "--export_dir", str(export_dir)])
        exports += [path for path in export_dir.iterdir() if path.name.isdigit()]
    first, second = exports
    return first, second


def show(result: Result) -> None:
    """Prints the figures."""
    rows: list[Sequence[Any]] = []
    for name, times in (
        ("all", Times.of(result.answers)),
        *((f"{p}", Times.of([a for a in result.answers if a.protocol == p])) for p in ("grpc", "rest")),
        ("away from swaps", result.away()),
    ):
        rows.append((name, times.count, *(f"{x:.1f}" for x in (times.p50, times.p99, times.most)), ""))
    for swap in result.swaps:
        times = result.around(swap)
        what = f"{'back to' if swap.taken_back else 'new'} version {swap.version}"
        figures = (f"{x:.1f}" for x in (times.p50, times.p99, times.most))
        rows.append((what, times.count, *figures, f"{result.delays.get(swap.at, float('nan')):.1f}"))
    columns = ("requests", "count", "p50 ms", "p99 ms", "most ms", "first answer after s")
    table("Time from when a request was due to its answer", columns, rows)
    sizes = [size / 1e6 for _, size in result.memory]
    print()
    for line in (
        f"wrong answers   {sum(a.problem.startswith('wrong') for a in result.answers)}",
        f"failed requests {sum(a.problem.startswith('failed') for a in result.answers)}",
        f"swaps           {len(result.swaps)}",
        f"memory MB       {sizes[0]:.0f} at the start, {max(sizes):.0f} at most, {sizes[-1]:.0f} at the end;"
        f" between swaps {', '.join(f'{size:.0f}' for size in result.periods())}",
        f"stopped with    exit code {result.exit_code}",
    ):
        print(line)
    for answer in result.problems()[:5]:
        print(json.dumps(dataclasses.asdict(answer)))


@main_guard
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 1 for a wrong answer, a failed request, or memory that grows."""
    arguments = _common.parser("serving_load", __doc__)
    add = arguments.add_argument
    add("--minutes", type=float, default=1.0, metavar="N", help="how long (%(default)s)")
    add("--rate", type=float, default=50.0, metavar="N", help="requests a second (%(default)s)")
    add("--connections", type=int, default=8, metavar="N", help="clients side by side (%(default)s)")
    add("--rest_connections", type=int, default=2, metavar="N", help="of them, that speak REST (%(default)s)")
    add("--swap_seconds", type=float, default=15.0, metavar="S", help="between two swaps (%(default)s)")
    add("--requests", type=int, default=200, metavar="N", help="different ones (%(default)s)")
    add("--items", type=int, nargs=2, default=[50, 500], metavar=("FROM", "TO"), help="of a request (%(default)s)")
    add("--exports", type=Path, nargs=2, metavar=("A", "B"), help="version folders; made if left out")
    add("--flags", nargs=argparse.REMAINDER, default=[], help="further flags of the server")
    options = arguments.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        exports = tuple(path.resolve() for path in options.exports) if options.exports else make_exports(Path(folder))
        result = run(options, (exports[0], exports[1]), Path(folder))
    show(result)
    _common.keep(options.json, "serving_load", dataclasses.asdict(result))
    return 1 if result.problems() or not result.bounded() or result.exit_code else 0


if __name__ == "__main__":
    sys.exit(main())
