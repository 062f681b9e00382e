"""Which rows make up a window, what is known of it, and what is kept for it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scored_rows import Records
from scripted_drift import ScriptedDetector

from easyrec_lite.checkpoints import save
from easyrec_lite.errors import DriftAlarm
from easyrec_lite.inputs.kafka import Place, StreamPosition
from easyrec_lite.protos import stream_pb2
from easyrec_lite.streaming import AlarmLog, DriftMonitor, Judge, StreamMonitor
from easyrec_lite.streaming.prometheus import RunCollector
from easyrec_lite.training import ObservedBatch, StepsResult, TrainedBatches

START = 1_700_000_000.0
NO_STEPS = StepsResult(0, 0, {}, "")
SHIFT, MEAN = ("distribution", "age"), ("label_mean", "click")
RULES = {
    "distribution": SimpleNamespace(enabled=True, patience=1, action=stream_pb2.HOLD),
    "label_mean": SimpleNamespace(enabled=True, patience=2, action=stream_pb2.STOP),
}


class Source:
    """A stream of two partitions."""

    def __init__(self) -> None:
        self.behind = {0: 0, 1: 0}

    def lag(self) -> Mapping[int, int]:
        return self.behind


def position(*offsets: int, ends: Mapping[int, int] | None = None) -> str:
    places = {number: Place(offset) for number, offset in enumerate(offsets)}
    return StreamPosition("c", "t", "i", partitions=places, ends=ends).to_json()


def batch(rows: int, newest: float = -math.inf, place: str = "", times: np.ndarray | None = None) -> ObservedBatch:
    return ObservedBatch(rows, {}, {"click": np.ones(rows)}, {}, times, newest, place)


@dataclasses.dataclass
class Run:
    """A monitor and what there is of a run around it."""

    directory: Path
    breaches: Mapping[tuple[str, str], list[int]] = dataclasses.field(default_factory=dict)
    source: Source | None = None
    config: dict[str, Any] = dataclasses.field(default_factory=lambda: {"window_rows": 100})
    rows: int = 0
    step: int = 0
    position: str | None = None
    checkpoint: object | None = None

    def __post_init__(self) -> None:
        self.recorded = Records()
        detector = type("Scripted", (ScriptedDetector,), {"script": self.breaches, "facts": [], "instances": []})
        self.facts = detector.facts
        self.log = AlarmLog(self.directory / "alarms.jsonl")
        self.monitor = DriftMonitor(
            stream_pb2.DriftConfig(**self.config), detector(None), Judge(RULES, 2), TrainedBatches({}), self.log,
            self.directory, source=self.source, recorders=[self.recorded], tell=lambda text: None,
        )  # fmt: skip
        if self.step:
            self.checkpoint = object()

    def start(self) -> Run:
        self.monitor.on_start(self)  # type: ignore[arg-type]
        return self

    def train(self, *batches: ObservedBatch) -> None:
        """One call of the graph."""
        for one in batches:
            self.monitor._take(one)
            self.rows, self.step, self.position = self.rows + one.rows, self.step + 1, one.position
        self.monitor.on_steps(self, NO_STEPS)  # type: ignore[arg-type]

    def spans(self) -> list[tuple[int, int]]:
        return [(facts.from_row, facts.to_row) for facts in self.facts]


def test_a_window_of_rows_ends_with_the_batch_that_fills_it(tmp_path: Path) -> None:
    run = Run(tmp_path).start()
    assert run.monitor.until(run).rows == 100  # type: ignore[arg-type]
    run.train(batch(60))
    assert (run.spans(), run.monitor.until(run).rows) == ([], 40)  # type: ignore[arg-type]
    run.train(batch(60))
    assert (run.spans(), run.monitor.until(run).rows) == ([(0, 120)], 100)  # type: ignore[arg-type]
    run.train(batch(100), batch(130), batch(10))  # a call that did not end in time
    assert run.spans() == [(0, 120), (120, 220), (220, 350)]
    assert [(facts.from_step, facts.to_step) for facts in run.facts] == [(0, 2), (2, 3), (3, 4)]
    assert run.monitor.until(run).rows == 90  # type: ignore[arg-type]
    records = run.recorded.kept
    assert [(record["step"], record["kind"], record["rows"]) for record in records] == [
        (2, "drift", 120), (3, "drift", 100), (4, "drift", 130),
    ]  # fmt: skip
    assert records[0]["window"] == {"from_row": 0, "to_row": 120}


def test_a_window_of_event_time_ends_before_the_batch_that_is_past_it(tmp_path: Path) -> None:
    run = Run(tmp_path, config={"window_event_minutes": 10.0}).start()
    first = START // 600 * 600
    assert run.monitor.until(run).steps == 1  # type: ignore[arg-type]
    run.train(batch(5, first + 100))
    assert run.monitor.until(run).event_time == first + 600  # type: ignore[arg-type]
    run.train(batch(5, first + 599), batch(5, first + 10), batch(5, -math.inf))
    assert run.spans() == []
    run.train(batch(5, first + 600))
    assert run.spans() == [(0, 20)]
    assert (run.facts[0].to_step, run.facts[0].event_time) == (4, (first + 10, first + 599))
    assert run.monitor.until(run).event_time == first + 1200  # type: ignore[arg-type]
    run.train(batch(5, first + 5000), batch(5, first + 9000))  # hours without a row
    assert run.spans() == [(0, 20), (20, 25), (25, 30)]
    assert run.monitor.until(run).event_time == first + 9600  # type: ignore[arg-type]


def test_event_times_of_rows(tmp_path: Path) -> None:
    run = Run(tmp_path).start()
    run.train(batch(3, 50.0, times=np.array([50, 0, 20])), batch(97, 40.0))
    assert run.facts[0].event_time == (20.0, 50.0)


def test_messages_and_silence_of_a_live_stream(tmp_path: Path) -> None:
    source = Source()
    run = Run(tmp_path, source=source, position=position(5, 7)).start()
    run.train(batch(60, place=position(45, 7)))
    source.behind = {0: 0, 1: 3}
    run.train(batch(60, place=position(95, 17)))
    run.train(batch(100, place=position(195, 17, 8)))
    assert [facts.messages for facts in run.facts] == [{0: 90, 1: 10}, {0: 100, 1: 0, 2: 8}]
    assert run.facts[0].waiting == {1}


def test_silence_at_the_end_means_nothing(tmp_path: Path) -> None:
    ends = {0: 200, 1: 17}
    run = Run(tmp_path, source=Source(), position=position(0, 0, ends=ends)).start()
    run.train(batch(100, place=position(90, 17, ends=ends)))
    run.train(batch(100, place=position(190, 17, ends=ends)))
    assert [facts.waiting for facts in run.facts] == [{1}, {1}]


def test_metrics_of_prequential_windows(tmp_path: Path) -> None:
    """The last one that ended in a window, though it be recorded at the first step of the next one."""
    run = Run(tmp_path).start()
    values = {"rows": 5, "window": {}, "running_auc": 0.7}
    run.monitor.record(1, "prequential", {**values, "auc": 0.5})
    run.monitor.record(1, "publish", {"auc": 0.1})
    run.train(batch(60))
    run.monitor.record(2, "prequential", {**values, "auc": 0.6})
    run.train(batch(60))
    run.train(batch(100))
    run.monitor.record(5, "prequential", {**values, "auc": 0.8})
    run.train(batch(50), batch(50))
    assert [dict(facts.metrics) for facts in run.facts] == [{"auc": 0.6}, {}, {"auc": 0.8}]

    timed = Run(tmp_path, config={"window_event_minutes": 10.0}).start()
    first = START // 600 * 600
    timed.train(batch(5, first))
    timed.monitor.record(2, "prequential", {**values, "auc": 0.9})  # its window is of event time, too
    timed.train(batch(5, first + 600))
    assert dict(timed.facts[0].metrics) == {"auc": 0.9}


def test_checkpoints_that_stay(tmp_path: Path) -> None:
    run = Run(tmp_path, {MEAN: [400, 500]}).start()
    assert run.monitor.wants_checkpoint()
    run.monitor.on_checkpoint(run, save(tmp_path, 0, []))  # type: ignore[arg-type]
    assert not run.monitor.wants_checkpoint()
    assert run.monitor.protected_steps() == (0,)
    for step in range(1, 5):  # two a window
        run.train(batch(50))
        save(tmp_path, step, [])
    assert (run.spans(), run.monitor.protected_steps()) == ([(0, 100), (100, 200)], (2,))
    for step in range(5, 9):
        run.train(batch(50))
        save(tmp_path, step, [])
    # The breach of the window up to row 400 may have begun at row 200, step 4.
    assert (run.rows, run.monitor.protected_steps(), run.monitor.cleared_rows) == (400, (4,), 200)
    run.train(batch(50))
    assert run.monitor.protected_steps() == (4,)
    with pytest.raises(DriftAlarm):
        run.train(batch(50))
    assert run.log.stop().restored_step == 4
    assert [record["windows"][0]["from_row"] for record in run.log.records] == [300]


def test_a_run_that_may_not_stop_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "label_mean", SimpleNamespace(enabled=False, patience=1, action=stream_pb2.STOP))
    run = Run(tmp_path).start()
    assert not run.monitor.wants_checkpoint()
    assert run.monitor.protected_steps() == ()


def test_what_is_cleared_and_what_holds(tmp_path: Path) -> None:
    run = Run(tmp_path, {SHIFT: [300]}).start()
    save(tmp_path, 0, [])
    cleared = []
    for _ in range(7):
        run.train(batch(100))
        cleared.append((run.monitor.cleared_rows, run.monitor.holding))
    # It ends when two windows went well; the window before the last one is cleared.
    assert cleared == [(0, False), (100, False), (100, True), (300, True), (400, False), (500, False), (600, False)]
    assert run.monitor.alarms == {("distribution", "HOLD"): 1}
    assert [record["kind"] for record in run.log.records] == ["alarm", "release"]


def test_a_monitor_goes_on_where_another_stopped(tmp_path: Path) -> None:
    """In the middle of a window, with prequential metrics that are not used yet."""
    whole = Run(tmp_path / "whole", {SHIFT: [200]}, Source(), position=position(0, 0)).start()
    batches = [batch(30, START + place, position(10 * place, 3 * place)) for place in range(1, 15)]
    for place, one in enumerate(batches):
        if place == 5:
            whole.monitor.record(6, "prequential", {"auc": 0.75})
        whole.train(one)
    for cut in (1, 4, 6, 8):
        first = Run(tmp_path / f"{cut}", {SHIFT: [200]}, Source(), position=position(0, 0)).start()
        for place, one in enumerate(batches[:cut]):
            if place == 5:
                first.monitor.record(6, "prequential", {"auc": 0.75})
            first.train(one)
        second = Run(
            tmp_path / f"{cut}", {SHIFT: [200]}, Source(), rows=first.rows, step=first.step,
            position=position(10 * cut, 3 * cut + 1),  # an idle stream had moved on over a gap
        )  # fmt: skip
        second.monitor.restore(*first.monitor.state())
        second.start()
        for place, one in enumerate(batches[cut:], start=cut):
            if place == 5:
                second.monitor.record(6, "prequential", {"auc": 0.75})
            second.train(one)
        assert first.facts + second.facts == whole.facts
        assert first.recorded.kept + second.recorded.kept == whole.recorded.kept
        ends = [one.monitor.state() for one in (second, whole)]
        assert ends[0][0] == ends[1][0]
        assert {n: a.tolist() for n, a in ends[0][1].items()} == {n: a.tolist() for n, a in ends[1][1].items()}


def test_a_run_that_moves_begins_a_window(tmp_path: Path) -> None:
    first = Run(tmp_path, source=Source(), position=position(0, 0)).start()
    first.train(batch(100, place=position(50, 50)))
    first.train(batch(30, place=position(70, 60)))
    first.monitor.on_move(first)  # type: ignore[arg-type]
    first.step, first.position = first.step + 1, position(500, 600)
    state = first.monitor.state()
    for run in (first, Run(tmp_path, source=Source(), rows=130, step=3, position=position(500, 600))):
        if run is not first:
            run.monitor.restore(*state)  # killed behind the jump
        run.start()
        assert (run.monitor.cleared_rows, run.monitor.until(run).rows) == (130, 100)  # type: ignore[arg-type]
        run.train(batch(100, place=position(570, 630)))
        facts = run.facts[-1]
        assert (facts.from_row, facts.to_row, facts.from_step) == (130, 230, 3)
        assert facts.messages == {0: 70, 1: 30}


def test_a_run_that_was_not_watched_before(tmp_path: Path) -> None:
    run = Run(tmp_path, rows=770, step=9, position=position(5, 7), source=Source()).start()
    assert not run.monitor.wants_checkpoint()
    run.train(batch(100, place=position(95, 17)))
    assert (run.spans(), run.facts[0].messages) == ([(770, 870)], {0: 90, 1: 10})


def test_a_narrower_window_than_before(tmp_path: Path) -> None:
    first = Run(tmp_path).start()
    first.train(batch(90))
    second = Run(tmp_path, config={"window_rows": 20}, rows=90, step=1)
    second.monitor.restore(*first.monitor.state())
    second.start()
    assert second.monitor.until(second).rows == 1  # type: ignore[arg-type]
    second.train(batch(10))
    assert second.spans() == [(0, 90)]


def test_what_goes_wrong_in_the_detector_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path).start()

    def fail(batch: object) -> None:
        raise ValueError("of the detector")

    monkeypatch.setattr(run.monitor._detector, "update", fail)
    with pytest.raises(ValueError, match="of the detector"):
        run.train(batch(100))
    run.monitor.close()


def test_what_prometheus_sees(tmp_path: Path) -> None:
    run = Run(tmp_path, {SHIFT: [200]}).start()
    save(tmp_path, 0, [])
    run.train(batch(100))
    run.train(batch(100))
    families = {family.name: family for family in RunCollector(StreamMonitor(), drift=run.monitor).collect()}
    [sample] = families["easyrec_drift_alarms"].samples
    assert (sample.name, sample.labels, sample.value) == (
        "easyrec_drift_alarms_total", {"check": "distribution", "action": "HOLD"}, 1,
    )  # fmt: skip
    values = [families[f"easyrec_drift_{name}"].samples[0].value for name in ("holding", "breaches")]
    assert values == [1, 1]
