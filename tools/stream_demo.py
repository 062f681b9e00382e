"""A stream from start to end: broker, base model, live training, a kill, a resume at the exact row.

    python -m tools.stream_demo [--out runs/stream-demo] [--rate 4000]

Starts an Apache Kafka of its own, trains a base model on files, sends later rows of the same users to a topic at a
steady rate with some messages damaged, and trains on them as they come: each row is scored before it is trained on. In
the middle the trainer is killed (-9) and started again. At the end the rows are counted.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from easyrec_lite.checkpoints import latest
from easyrec_lite.errors import UserError
from easyrec_lite.terminal import main_guard, table
from tools._kafka_server import free_ports
from tools.data import taobao_like
from tools.kafka_broker import any_broker
from tools.kafka_replay import Replay, replay

CONFIG = "samples/configs/multi_tower_taobao_stream.config"
BASE_ROWS, STREAM_ROWS, USERS, ITEMS = 150_000, 80_000, 20_000, 10_000
TOPIC = "stream-demo"

_LOOK_SECONDS = 0.25
_PATIENCE_SECONDS = 300.0


class _Trainer:
    """A training process, and its numbers as Prometheus sees them."""

    def __init__(self, arguments: Sequence[str], port: int) -> None:
        command = [sys.executable, "-m", "easyrec_lite.train", "--config", CONFIG, *arguments]
        command += ["--edit", f"stream_config.prometheus_port={port}"]
        print("$", *("python", *command[1:]), flush=True)
        self._port = port
        self._process = subprocess.Popen(command, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})

    def wait_for_rows(self, rows: int) -> None:
        """Waits until this process has trained so many rows.

        Raises:
            UserError: it ended before.
        """
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while self._trained() < rows:
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.end(signal.SIGKILL)
                raise UserError(f"the training ended, or stood still, before it had trained {rows:,} rows; see above")
            time.sleep(_LOOK_SECONDS)

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


def demo(out: Path, rate: float) -> None:
    """All of it; `out` is made anew."""
    shutil.rmtree(out, ignore_errors=True)
    data, base, stream = out / "data", out / "base", out / "stream"
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"\n[{time.monotonic() - began:5.1f} s] {text}", flush=True)

    say(f"generating {BASE_ROWS:,} rows for the base model, and {STREAM_ROWS:,} later ones for the stream")
    sizes = ["--rows", BASE_ROWS, "--eval_rows", STREAM_ROWS, "--users", USERS, "--items", ITEMS]
    if taobao_like.main(["--out", str(data), *map(str, sizes)]):
        raise UserError("no rows, no demo; see above")
    say("starting Apache Kafka")
    with any_broker(out / "kafka") as broker:
        say(f"Kafka answers at {broker.bootstrap}; training the base model on files")
        train = f"--train_input_path={data}/train/*.parquet"
        _run(["--model_dir", str(base), train, "--edit", "export_config.exporter_type=none"])

        sent: list[Replay] = []
        failed: list[BaseException] = []

        def send() -> None:
            try:
                sent.append(
                    replay(
                        broker.bootstrap, TOPIC, f"{data}/eval/*.parquet", partitions=4, weights=[4, 3, 2, 1],
                        rate=rate, malformed=0.001,
                    )
                )  # fmt: skip
            except BaseException as error:
                failed.append(error)

        if TOPIC in broker.topics():
            broker.delete_topic(TOPIC)
        broker.create_topic(TOPIC, 4)
        say(f"sending {rate:,.0f} rows a second to the topic {TOPIC!r}; training on them")
        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        kafka = [f"kafka_train_input.server={broker.bootstrap}", f"kafka_train_input.topic={TOPIC}"]
        edits = [*kafka, "train_config.save_checkpoints_rows=15000", "export_config.exporter_type=none"]
        shared = ["--model_dir", str(stream), *(part for edit in edits for part in ("--edit", edit))]
        trainer = _Trainer([*shared, "--fine_tune_checkpoint", str(base)], free_ports(1)[0])
        trainer.wait_for_rows(STREAM_ROWS // 2)
        trainer.end(signal.SIGKILL)
        kept = latest(stream)
        if kept is None:
            raise UserError(f"{stream}: no checkpoint was written")
        say(f"killed it (-9); the newest checkpoint has {kept.state['rows']:,} rows. Starting it again")
        trainer = _Trainer([*shared, "--continue_train"], free_ports(1)[0])
        trainer.wait_for_rows(STREAM_ROWS - kept.state["rows"])
        sender.join()
        if failed:
            raise failed[0]
        say("every row is trained; asking it to stop (SIGTERM)")
        trainer.end(signal.SIGTERM)
    _report(stream, sent[0], kept.step, time.monotonic() - began)


def _run(arguments: Sequence[str]) -> None:
    command = [sys.executable, "-m", "easyrec_lite.train", "--config", CONFIG, *arguments]
    print("$", *("python", *command[1:]), flush=True)
    if subprocess.run(command, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}, check=False).returncode:
        raise UserError("the base model could not be trained; see above")


def _report(stream: Path, sent: Replay, resumed: int, seconds: float) -> None:
    last = latest(stream)
    assert last is not None, "there was one before"
    records = [json.loads(line) for line in (stream / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    names = ("auc", "running_auc", "logloss", "calibration")
    windows = [
        (record["step"], record["window"]["to_row"], *(round(record[name], 4) for name in names))
        for record in records
        if record["kind"] == "prequential"
    ]
    print()
    table(f"Rows scored before they were trained on (resumed at step {resumed})", ("step", "rows", *names), windows)
    bad = len((stream / "bad_rows.jsonl").read_text(encoding="utf-8").splitlines())
    rows = [
        ("rows sent / trained", f"{sent.rows:,} / {last.state['rows']:,}"),
        ("damaged messages sent / kept aside", f"{len(sent.damaged):,} / {bad:,}"),
        ("model", str(stream)),
        ("seconds", f"{seconds:.0f}"),
    ]
    table("\nEvery row once", ("what", "value"), rows)
    if last.state["rows"] != sent.rows or bad != len(sent.damaged):
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
