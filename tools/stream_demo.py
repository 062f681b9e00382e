"""A stream from start to end: broker, base model, live training, a kill, a resume, a drift, an alarm, a rollback.

    python -m tools.stream_demo [--out runs/stream-demo] [--rate 4000]

Starts an Apache Kafka of its own, trains a base model on files, sends later rows of the same users to a topic at a
steady rate with some messages damaged, and trains on them as they come: each row is scored before it is trained on. In
the middle the trainer is killed (-9) and started again.

Then something upstream breaks: clicks are counted that were none. The drift monitor raises an alarm, the trainer goes
back to the weights from before and ends with exit code 3. What there is to go back to is listed, the rows of the alarm
are skipped, and training goes on; models are published all the while, but none of the alarmed rows. At the end the rows
are counted, and the report is drawn.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from easyrec_lite.checkpoints import Checkpoint, latest
from easyrec_lite.errors import UserError
from easyrec_lite.terminal import main_guard, table
from tools._kafka_rows import Files
from tools._kafka_server import free_ports
from tools.data import taobao_like
from tools.drift import Drift, inject
from tools.kafka_broker import any_broker
from tools.kafka_replay import Replay, replay

CONFIG = "samples/configs/multi_tower_taobao_stream.config"
BASE_ROWS, USERS, ITEMS = 180_000, 20_000, 10_000  # a week's rows, so that hours and days are known
STREAM_ROWS, BROKEN_ROWS, MENDED_ROWS = 50_000, 25_000, 25_000  # of the broken ones as many as come until the alarm
TOPIC = "stream-demo"

_CHUNK_ROWS = 1024  # of broken rows: each chunk is trained before the next one is sent
_LOOK_SECONDS = 0.25
_PATIENCE_SECONDS = 300.0


def _command(module: str, *arguments: object) -> list[str]:
    """A command of easyrec_lite, which is shown."""
    words = ["-m", f"easyrec_lite.{module}", *map(str, arguments)]
    print("$", shlex.join(["python", *words]), flush=True)
    return [sys.executable, *words]


def _run(module: str, *arguments: object) -> None:
    if subprocess.run(_command(module, *arguments), env=_environment(), check=False).returncode:
        raise UserError(f"easyrec_lite.{module} failed; see above")


def _environment() -> dict[str, str]:
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}


class _Trainer:
    """A training process, and its numbers as Prometheus sees them."""

    def __init__(self, *arguments: object) -> None:
        self._port = free_ports(1)[0]
        port = f"stream_config.prometheus_port={self._port}"
        command = _command("train", "--config", CONFIG, *arguments, "--edit", port)
        self._process = subprocess.Popen(command, env=_environment())

    def wait_for_rows(self, rows: int) -> None:
        """Waits until this process has trained so many rows.

        Raises:
            UserError: it ended before.
        """
        if not self.trains(rows):
            raise UserError(f"the training ended before it had trained {rows:,} rows; see above")

    def trains(self, rows: int) -> bool:
        """Waits until this process has trained so many rows; False if it ended before.

        Raises:
            UserError: it stands still.
        """
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while self._trained() < rows:
            if self._process.poll() is not None:
                return False
            if time.monotonic() > deadline:
                self.end(signal.SIGKILL)
                raise UserError(f"the training stood still before it had trained {rows:,} rows; see above")
            time.sleep(_LOOK_SECONDS)
        return True

    def _trained(self) -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=5) as page:
                found = re.search(r"^easyrec_rows_total (\S+)$", page.read().decode(), re.MULTILINE)
        except (urllib.error.URLError, ConnectionError):
            return 0  # it has not begun yet
        return int(float(found[1])) if found else 0

    def end(self, how: signal.Signals) -> int:
        """Sends a signal and waits for the end."""
        self._process.send_signal(how)
        return self._process.wait()

    def wait_for_end(self) -> int:
        """Waits until it ends by itself; returns its exit code."""
        try:
            return self._process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.end(signal.SIGKILL)
            raise UserError("the training should have ended by itself, and went on; see above") from None


@dataclass
class _Upstream:
    """What sends rows: those of the evaluation files, in their order, and broken ones among them."""

    broker: str
    files: str
    rate: float
    sent: list[Replay] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Sound rows sent."""
        return sum(replay.rows for replay in self.sent)

    @property
    def damaged(self) -> int:
        """Messages that can't be read."""
        return sum(len(replay.damaged) for replay in self.sent)

    def send(self, rows: int, *, malformed: float = 0.0) -> None:
        """Sends the next rows."""
        self._replay(self.files, self.rows, rows, malformed)

    def send_broken(self, folder: Path, goes_on: Callable[[], bool]) -> None:
        """Sends the next rows with a drift in them, some at a time, while something goes on."""
        first, files = self.rows, Files(self.files)
        rows = pa.concat_tables(files.chunks(files.columns, first, BROKEN_ROWS))
        folder.mkdir()
        pq.write_table(inject(rows, Drift("label_rate_up", size=0.4, column="clk")), folder / "broken.parquet")
        while goes_on():
            if self.rows - first >= BROKEN_ROWS:
                raise UserError(f"{BROKEN_ROWS:,} broken rows were sent, and there was no alarm")
            self._replay(str(folder / "*.parquet"), self.rows - first, _CHUNK_ROWS)

    def _replay(self, files: str, skip: int, rows: int, malformed: float = 0.0) -> None:
        self.sent.append(
            replay(
                self.broker, TOPIC, files, skip_rows=skip, rows=rows, partitions=4, weights=[4, 3, 2, 1],
                rate=self.rate, malformed=malformed,
            )
        )  # fmt: skip


def demo(out: Path, rate: float) -> None:
    """All of it; `out` is made anew."""
    shutil.rmtree(out, ignore_errors=True)
    data, base, stream = out / "data", out / "base", out / "stream"
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"\n[{time.monotonic() - began:5.1f} s] {text}", flush=True)

    later = STREAM_ROWS + BROKEN_ROWS + MENDED_ROWS
    say(f"generating {BASE_ROWS:,} rows for the base model, and {later:,} later ones for the stream")
    sizes = ["--rows", BASE_ROWS, "--eval_rows", later, "--users", USERS, "--items", ITEMS]
    if taobao_like.main(["--out", str(data), *map(str, sizes)]):
        raise UserError("no rows, no demo; see above")
    say("starting Apache Kafka")
    with any_broker(out / "kafka") as broker:
        say(f"Kafka answers at {broker.bootstrap}; training the base model on files, which need no watch")
        files = f"--train_input_path={data}/train/*.parquet"
        no_export = ["--edit", "export_config.exporter_type=none"]
        _run("train", "--config", CONFIG, "--model_dir", base, files, "--edit", "stream_config={}", *no_export)

        if TOPIC in broker.topics():
            broker.delete_topic(TOPIC)
        broker.create_topic(TOPIC, 4)
        upstream = _Upstream(broker.bootstrap, f"{data}/eval/*.parquet", rate)
        edits = [
            f"kafka_train_input.server={broker.bootstrap}",
            f"kafka_train_input.topic={TOPIC}",
            "kafka_train_input.max_wait_ms=200",
            f"stream_config.drift.reference_statistics={base}",
            "stream_config.publish.every_rows=20000",
            "train_config.save_checkpoints_rows=10000",
        ]
        shared = ["--model_dir", stream, *(part for edit in edits for part in ("--edit", edit)), *no_export]

        say(f"sending {rate:,.0f} rows a second to the topic {TOPIC!r}; training on them")
        with _Sending(lambda: upstream.send(STREAM_ROWS, malformed=0.001)):
            trainer = _Trainer(*shared, "--fine_tune_checkpoint", base)
            trainer.wait_for_rows(STREAM_ROWS // 2)
            trainer.end(signal.SIGKILL)
            killed = _newest(stream)
            say(f"killed it (-9); the newest checkpoint has {killed.state['rows']:,} rows. Starting it again")
            trainer = _Trainer(*shared, "--continue_train")
            trainer.wait_for_rows(STREAM_ROWS - killed.state["rows"])

        say("every row is trained. Now something upstream breaks: two more clicks for every five that were made")
        upstream.send_broken(out / "broken", lambda: trainer.trains(upstream.rows - killed.state["rows"]))
        if (code := trainer.wait_for_end()) != 3:
            raise UserError(f"exit code {code}; expected 3, for an alarm. See above")
        stop = _stop(stream)
        restored = _newest(stream)
        say("it ended by itself, with exit code 3. The newest checkpoint is the one from before those rows:")
        _run("checkpoints", stream)
        print(f"restored: {restored.state['rows']:,} rows; alarmed: rows {_begin(stop):,} to {_end(stop):,}")

        say("upstream is mended, and somebody decides: jump over the rows of the alarm, and go on")
        trainer = _Trainer(*shared, "--on_alarm", "skip")
        upstream.send(MENDED_ROWS)
        trainer.wait_for_rows(upstream.rows - _end(stop))
        say("every row is trained; asking it to stop (SIGTERM)")
        trainer.end(signal.SIGTERM)
    say("the checkpoints that there are now, and the report of the drift monitor")
    _run("checkpoints", stream)
    _run("drift", stream)
    _report(stream, upstream, _end(stop) - _begin(stop), [killed.step, restored.step])
    print(f"seconds: {time.monotonic() - began:.0f}")


class _Sending:
    """Does something in a thread while the block runs; leaving the block well waits for it."""

    def __init__(self, send: Callable[[], None]) -> None:
        self._failed: list[BaseException] = []
        self._thread = threading.Thread(target=self._send, args=(send,), daemon=True)

    def _send(self, send: Callable[[], None]) -> None:
        try:
            send()
        except BaseException as error:
            self._failed.append(error)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._thread.join()
        if self._failed:
            raise self._failed[0]


def _newest(model_dir: Path) -> Checkpoint:
    checkpoint = latest(model_dir)
    if checkpoint is None:
        raise UserError(f"{model_dir}: no checkpoint was written")
    return checkpoint


def _records(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def _stop(stream: Path) -> dict[str, Any]:
    """The alarm that stopped the training."""
    return [record for record in _records(stream / "alarms.jsonl") if record.get("action") == "STOP"][-1]


def _begin(alarm: Mapping[str, Any]) -> int:
    """The first row of an alarm."""
    begin: int = alarm["windows"][0]["from_row"]
    return begin


def _end(alarm: Mapping[str, Any]) -> int:
    """The first row behind those of an alarm."""
    end: int = alarm["windows"][-1]["to_row"]
    return end


def _report(stream: Path, upstream: _Upstream, skipped: int, resumed: Sequence[int]) -> None:
    last = _newest(stream)
    names = ("auc", "running_auc", "logloss", "calibration")
    windows = [
        (record["step"], record["window"]["to_row"], *(round(record[name], 4) for name in names))
        for record in _records(stream / "metrics.jsonl")
        if record["kind"] == "prequential"
    ]
    steps = " and ".join(map(str, resumed))
    print()
    table(f"Rows scored before they were trained on (resumed at steps {steps})", ("step", "rows", *names), windows)
    versions = [
        (str(record["version"]), record["step"], record["rows"], round(record["metrics"]["auc"], 4))
        for record in _records(stream / "published.jsonl")
    ]
    print()
    table("Published", ("version", "step", "rows", "auc"), versions)
    bad = len(_records(stream / "bad_rows.jsonl"))
    trained = last.state["rows"]
    shown = [
        ("rows sent", f"{upstream.rows:,}"),
        ("trained / skipped", f"{trained:,} / {skipped:,}"),
        ("damaged messages sent / kept aside", f"{upstream.damaged:,} / {bad:,}"),
        ("model", str(stream)),
        ("report", str(stream / "drift.html")),
    ]
    print()
    table("Every row once", ("what", "value"), shown)
    if trained + skipped != upstream.rows or bad != upstream.damaged:
        raise UserError("the counts differ: this is a fault of easyrec_lite")


@main_guard
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.stream_demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/stream-demo"), help="made anew")
    parser.add_argument("--rate", type=float, default=4000, help="rows a second")
    options = parser.parse_args(argv)
    demo(options.out, options.rate)
    return 0


if __name__ == "__main__":
    sys.exit(main())
