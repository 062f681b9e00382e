"""A trainer on a stream, killed with SIGKILL at any instant, trains every row once: its bits say so."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from stream_runs import COLUMNS, write_rows
from training_runs import left_behind

from easyrec_lite.checkpoints import latest
from tools.kafka_broker import Cluster, KafkaBroker
from tools.kafka_replay import replay

DRIVER = Path(__file__).parent / "stream_kill_driver.py"
ROOT = DRIVER.parents[2]
ROWS = 24_000

# In turn with kills at random instants.
AT_POINTS: list[dict[str, Any]] = [
    {"disk": ["append", "torn", 3]},
    {"file": {"operation": "write", "name": ".tmp/", "skip": 9, "torn": True}},
    {"poll": 5},
    {"disk": ["append", "before", 40]},
    {"file": {"operation": "rename", "name": "/.step-"}},
    {"checkpoint": True},
    {"disk": ["append", "after", 11]},
    {"disk": ["create", "torn", 0]},
    {"file": {"operation": "write", "name": "metrics.jsonl", "torn": True}},
    {"disk": ["create", "after", 0]},
    {"poll": 0},
    {"disk": ["remove", "before", 0]},
    {"file": {"operation": "remove", "name": ".trash", "skip": 1}},
    {"disk": ["remove", "after", 0]},
    {"file": {"operation": "sync", "name": "manifest.json"}},
]


def train(server: str, topic: str, model: Path, **order: Any) -> int:
    """Runs the driver; returns its exit code."""
    text = json.dumps({"server": server, "topic": topic, "model": str(model), "bounded": False, **order})
    folders = [ROOT, ROOT / "tests" / "models", ROOT / "tests" / "training"]
    done = subprocess.run(
        [sys.executable, str(DRIVER), text],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr[-3000:]
    return done.returncode


def kills(seed: int, count: int, bounded: bool) -> list[dict[str, Any]]:
    """Half at random instants, half at chosen points."""
    rng = random.Random(seed)
    # A run with an end has no ledger.
    points = [point for point in AT_POINTS if not (bounded and "disk" in point)]
    chosen = rng.sample(points, len(points)) * 2
    return [chosen[n // 2] if n % 2 else {"in": rng.uniform(0.0, 2.5)} for n in range(count)]


def outcome(model: Path) -> dict[str, Any]:
    """All that a run leaves, but for which of its checkpoints the clock made."""
    found = left_behind(model)
    del found["checkpoints"]
    # The last checkpoint may be that of a run which was killed after it: whose callbacks did what is the driver's.
    for name in ("KillIn", "KillAtCheckpoint", "StopAt", "Watch"):
        found["state"]["callbacks"].pop(name, None)
    bad_rows = model / "bad_rows.jsonl"
    found["bad rows"] = bad_rows.read_text() if bad_rows.exists() else ""
    return found


def whole_ledger(model: Path) -> list[Path]:
    """The files of the ledger, and those that were deleted because no checkpoint needed them any more."""
    forgotten = {path.name: path for path in (model / "forgotten").glob("*.jsonl")}
    files = forgotten | {path.name: path for path in (model / "ledger").glob("*.jsonl")}
    return [files[name] for name in sorted(files)]


def read_once(model: Path, sent: dict[int, int]) -> None:
    """Checks that the ledger's batches are these partitions: every offset once, from 0 to the last."""
    ends: dict[int, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for path in whole_ledger(model):
        for line in path.read_text().splitlines()[1:]:
            for partition, offset, row, to_offset, to_row in json.loads(line.partition(" ")[2])["segments"]:
                assert ends[partition] == (offset, row), (path, line)
                ends[partition] = to_offset, to_row
    assert {number: offset for number, (offset, _) in ends.items()} == {n: end for n, end in sent.items() if end}


def send(broker: KafkaBroker, topic: str, rows: Path) -> dict[int, int]:
    """Fills a topic: partitions of unequal size, one falls silent half way; gives the end of each partition."""
    half = ROWS // 2
    settings: dict[str, Any] = {"rows_per_message": 7, "columns": COLUMNS, "label": "click", "event_time_field": "at"}
    for start, weights, rate in ((0, [6, 3, 2, 1], 600), (half, [6, 3, 0, 1], 600)):
        replay(
            broker.bootstrap, topic, str(rows), rows=half, skip_rows=start, weights=weights, rate=rate,
            malformed=0.01, seed=start, partitions=4, **settings,
        )  # fmt: skip
    return {number: end for number, (_, end) in broker.offsets(topic).items()}


@pytest.mark.slow
@pytest.mark.broker
@pytest.mark.timeout(1800)
def test_fifty_kills(own_kafka: KafkaBroker, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.parquet", ROWS)
    own_kafka.create_topic("clicks", 4)
    server = own_kafka.bootstrap
    restart = threading.Lock()

    def chain(name: str, orders: list[dict[str, Any]], bounded: bool, before: Callable[[int], None]) -> Path:
        model = tmp_path / name
        for number, order in enumerate(orders):
            before(number)
            code = train(server, "clicks", model, bounded=bounded, **order)
            # A run to the end of the topic may reach it.
            assert code == -signal.SIGKILL or bounded, f"not killed: {order}"
        return model

    def upset(number: int) -> None:
        """The broker dies and comes back, at the beginning of two of the runs."""
        if number in (3, 8):
            with restart:
                threading.Timer(4.0, lambda: (own_kafka.kill(), own_kafka.restart())).start()

    with ThreadPoolExecutor(3) as pool:
        sending = pool.submit(send, own_kafka, "clicks", tmp_path / "rows.parquet")
        jobs = [
            pool.submit(chain, f"live {seed}", kills(seed, 10, False), False, upset if seed == 0 else lambda _: None)
            for seed in range(3)
        ]
        live = [job.result() for job in jobs]
        ends = sending.result()
        for model in live:
            pool.submit(train, server, "clicks", model, rows=ROWS).result()
            read_once(model, ends)

        # The same ledger, without a kill.
        jobs = []
        for model in live:
            again = model.with_name(f"{model.name} again")
            (again / "ledger").mkdir(parents=True)
            for path in whole_ledger(model):
                shutil.copy(path, again / "ledger")
            jobs.append(pool.submit(train, server, "clicks", again, rows=ROWS))
        jobs += [
            pool.submit(chain, f"bounded {seed}", kills(seed + 3, 10, True), True, lambda _: None) for seed in range(2)
        ]
        jobs.append(pool.submit(train, server, "clicks", tmp_path / "bounded", bounded=True))
        for job in jobs:
            job.result()
    for model in live:
        again = outcome(model.with_name(f"{model.name} again"))
        assert again["state"]["rows"] == ROWS
        assert outcome(model) == again, model
    expected = outcome(tmp_path / "bounded")
    assert expected["state"]["rows"] == ROWS
    for seed in range(2):
        train(server, "clicks", tmp_path / f"bounded {seed}", bounded=True)
        assert outcome(tmp_path / f"bounded {seed}") == expected, seed


@pytest.mark.slow
@pytest.mark.broker
@pytest.mark.timeout(900)
def test_two_workers_share_a_topic(kafka: Cluster, make_topic: Callable[..., str], tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.parquet", ROWS // 4)
    topic = make_topic(4)
    sent = replay(
        kafka.bootstrap, topic, str(tmp_path / "rows.parquet"), rows_per_message=7, columns=COLUMNS,
        event_time_field="at", weights=[4, 3, 2, 1],
    )  # fmt: skip
    ends = {number: end for number, (_, end) in kafka.offsets(topic).items()}

    def worker(number: int, model: Path, rows: int, orders: list[dict[str, Any]]) -> None:
        edits = [f"kafka_train_input.worker={number}", "kafka_train_input.workers=2"]
        for order in orders:
            assert train(kafka.bootstrap, topic, model, edits=edits, **order) == -signal.SIGKILL
        assert train(kafka.bootstrap, topic, model, edits=edits, rows=rows) == 0

    shares = [sum(sent.partitions[number].rows for number in (first, first + 2)) for first in (0, 1)]
    assert sum(shares) == ROWS // 4
    models = [tmp_path / "first", tmp_path / "second"]
    with ThreadPoolExecutor(2) as pool:
        killed = [{"disk": ["append", "after", 30]}, {"disk": ["append", "torn", 25]}]
        jobs = [pool.submit(worker, 0, models[0], shares[0], []), pool.submit(worker, 1, models[1], shares[1], killed)]
        for job in jobs:
            job.result()
        for number, model in enumerate(models):
            read_once(model, {partition: ends[partition] for partition in (number, number + 2)})
            assert latest(model).state["rows"] == shares[number]
        again = tmp_path / "second again"
        (again / "ledger").mkdir(parents=True)
        for path in whole_ledger(models[1]):
            shutil.copy(path, again / "ledger")
        worker(1, again, shares[1], [])
    assert outcome(models[1]) == outcome(again)
