"""The numbers of a run, what the source is told, and how Prometheus gets to see them."""

from __future__ import annotations

import dataclasses
import math
import socket
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from easyrec_lite.checkpoints import Checkpoint, prune, save
from easyrec_lite.errors import UserError
from easyrec_lite.inputs import BadRows
from easyrec_lite.inputs.position import Tally
from easyrec_lite.streaming import PrometheusExporter, StreamMonitor
from easyrec_lite.training import StepsResult

NOW = 1_700_000_000.0


class Source:
    """A stream of two partitions."""

    def __init__(self) -> None:
        self.bad_rows = BadRows()
        self.lost = 0
        self.told: list[tuple[str, str]] = []

    def lag(self) -> dict[int, int]:
        return {1: 7, 0: 3}

    def commit(self, position: str) -> None:
        self.told.append(("commit", position))

    def forget_before(self, position: str) -> None:
        self.told.append(("forget before", position))


@dataclasses.dataclass
class Run:
    """As much of a trainer as the monitor looks at."""

    model_dir: Path = Path()
    step: int = 0
    event_time: float = -math.inf
    checkpoint: Checkpoint | None = None


class Clock:
    """A clock that is put forward by hand."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def steps(count: int, rows: int, event_time: float = -math.inf) -> StepsResult:
    losses = {"loss": np.linspace(0.5, 0.3, count).astype(np.float32)} if count else {}
    return StepsResult(count, rows, losses, "position", event_time)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def started(clock: Callable[[], float], source: Source | None = None, **run: Any) -> tuple[StreamMonitor, Any]:
    monitor, trainer = StreamMonitor(source, clock), Run(**run)
    monitor.on_start(trainer)  # type: ignore[arg-type]
    return monitor, trainer


def test_numbers(clock: Clock) -> None:
    source = Source()
    monitor, trainer = started(clock, source)
    empty = monitor.snapshot()
    assert (empty.rows, empty.rows_per_second, empty.event_time, empty.seconds_behind) == (0, 0.0, None, None)
    clock.now += 2
    trainer.step = 3
    source.bad_rows.tally, source.lost = Tally(rows=100, bad=4), 2
    monitor.on_steps(trainer, steps(3, 90, NOW - 60))
    numbers = monitor.snapshot()
    assert (numbers.step, numbers.rows, numbers.rows_per_second) == (3, 90, 45.0)
    assert (numbers.bad_rows, numbers.lost_messages, numbers.lag) == (4, 2, {0: 3, 1: 7})
    assert numbers.losses == pytest.approx({"loss": 0.4})
    assert (numbers.event_time, numbers.seconds_behind) == (NOW - 60, 62.0)
    assert numbers.seconds_since_checkpoint == 2.0


def test_an_idle_stream(clock: Clock) -> None:
    """Nothing comes: the rate goes to 0, time goes on, losses and event time stay."""
    monitor, trainer = started(clock)
    clock.now += 4
    monitor.on_steps(trainer, steps(1, 400, NOW))
    for _ in range(12):
        clock.now += 1
        monitor.on_steps(trainer, steps(0, 0))
    numbers = monitor.snapshot()
    assert numbers.rows_per_second == 0.0
    assert numbers.losses == pytest.approx({"loss": 0.5})
    assert (numbers.rows, numbers.event_time, numbers.seconds_behind) == (400, NOW, 16.0)


def test_the_rate_is_of_ten_seconds(clock: Clock) -> None:
    monitor, trainer = started(clock)
    for rows in [1000] * 20 + [100] * 10:
        clock.now += 1
        monitor.on_steps(trainer, steps(1, rows))
    assert monitor.snapshot().rows_per_second == 100.0
    clock.now += 5  # a step that takes long
    assert monitor.snapshot().rows_per_second == 50.0


def test_counts_begin_with_the_process(clock: Clock, tmp_path: Path) -> None:
    """What the run before counted belongs to it: else each restart would look like a burst of bad rows."""
    source = Source()
    checkpoint = save(tmp_path, 5, [], state={"position": "p"})
    monitor, trainer = started(clock, source, step=5, checkpoint=checkpoint, event_time=NOW - 5)
    source.bad_rows.tally = Tally(rows=1000, bad=50)  # it has begun to read where the other one stopped
    monitor.on_steps(trainer, steps(1, 10))
    source.bad_rows.tally = Tally(rows=1010, bad=53)
    assert (monitor.snapshot().bad_rows, monitor.snapshot().event_time) == (3, NOW - 5)
    clock.now = 2_000_000_000.0  # long after the checkpoint was written, whoever did
    assert 1_000_000 < monitor.snapshot().seconds_since_checkpoint < 300_000_000


def test_the_source_is_told_what_is_safe(clock: Clock, tmp_path: Path) -> None:
    source = Source()
    monitor, trainer = started(clock, source, model_dir=tmp_path)
    for step in (4, 8, 12, 16):
        checkpoint = save(tmp_path, step, [], state={"position": f"position {step}"})
        prune(tmp_path, 2, [4] if step < 16 else [])
        clock.now += 7
        monitor.on_checkpoint(trainer, checkpoint)
    assert source.told == [
        ("commit", "position 4"),
        ("forget before", "position 4"),
        ("commit", "position 8"),
        ("forget before", "position 4"),
        ("commit", "position 12"),
        ("forget before", "position 4"),  # protected: the best one
        ("commit", "position 16"),
        ("forget before", "position 12"),
    ]
    clock.now += 3
    assert monitor.snapshot().seconds_since_checkpoint == 3.0


def test_a_damaged_checkpoint_keeps_the_ledger(clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = Source()
    monitor, trainer = started(clock, source, model_dir=tmp_path)
    old, new = (save(tmp_path, step, [], state={"position": str(step)}) for step in (1, 2))
    (old.path / "manifest.json").write_text("{}")
    monitor.on_checkpoint(trainer, new)
    assert source.told == [("commit", "2")]
    assert "ledger is kept as it is" in caplog.text


# ---- Prometheus


class Evaluated:
    """A prequential evaluation with a window behind it."""

    def __init__(self) -> None:
        self.window = {"auc": 0.75, "logloss": math.nan}
        self.running = {"auc": 0.7}


def scraped(exporter: PrometheusExporter) -> dict[str, Any]:
    """Samples by name and labels, as Prometheus reads them."""
    with urllib.request.urlopen(f"http://127.0.0.1:{exporter.port}/metrics", timeout=10) as response:
        families = list(text_string_to_metric_families(response.read().decode()))
    assert all(family.documentation for family in families)
    return {
        sample.name + "".join(f"|{value}" for _, value in sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def test_what_prometheus_sees(clock: Clock) -> None:
    source = Source()
    monitor, trainer = started(clock, source)
    exporter = PrometheusExporter(monitor, Evaluated(), address="127.0.0.1")  # type: ignore[arg-type]
    threads = set(threading.enumerate())
    exporter.on_start(trainer)
    assert "easyrec_event_time_seconds" not in scraped(exporter)  # not known yet
    clock.now += 2
    source.bad_rows.tally, source.lost = Tally(rows=100, bad=4), 2
    monitor.on_steps(trainer, steps(3, 90, NOW))
    samples = scraped(exporter)
    assert math.isnan(samples.pop("easyrec_prequential|window|logloss"))
    assert samples.pop("easyrec_loss|loss") == pytest.approx(0.4)
    assert samples == {
        "easyrec_rows_total": 90,
        "easyrec_rows_per_second": 45,
        "easyrec_lag_messages|0": 3,
        "easyrec_lag_messages|1": 7,
        "easyrec_bad_rows_total": 4,
        "easyrec_lost_messages_total": 2,
        "easyrec_seconds_since_checkpoint": 2,
        "easyrec_event_time_seconds": NOW,
        "easyrec_prequential|window|auc": 0.75,
        "easyrec_prequential|running|auc": 0.7,
    }
    exporter.on_end(trainer, {})
    exporter.close()  # a second time does no harm
    assert {thread for thread in threading.enumerate() if "serve_forever" in thread.name} <= threads
    with pytest.raises(OSError, match="refused"):
        scraped(exporter)


def test_a_port_in_use(clock: Clock) -> None:
    monitor, trainer = started(clock)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=rf"stream_config\.prometheus_port: found {port}.*Address already in use"):
            PrometheusExporter(monitor, port=port, address="127.0.0.1").on_start(trainer)
