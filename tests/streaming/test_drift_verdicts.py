"""Patience, holding and release, what is cleared, what is masked; and the log of it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from easyrec_lite.protos.stream_pb2 import HOLD, STOP, WARN
from easyrec_lite.streaming.alarms import AlarmLog, describe
from easyrec_lite.streaming.drift import Contribution, Measurement
from easyrec_lite.streaming.verdicts import Judge, Window

RATE, SHIFT, MEAN = ("row_rate", ""), ("distribution", "age"), ("label_mean", "click")
ACTIONS = {"row_rate": WARN, "distribution": HOLD, "label_mean": STOP}


def judge(release: int = 2, private: tuple[str, ...] = (), ignored: tuple[str, ...] = (), **patience: int) -> Judge:
    rules = {
        name: SimpleNamespace(
            enabled=True, patience=patience.get(name, 1), action=action, watches=lambda subject: subject not in ignored
        )
        for name, action in ACTIONS.items()
    }
    return Judge(rules, release, private)


def window(number: int, **more: Any) -> Window:
    """The windows are of 100 rows and 10 steps; partition 0 gives 60 messages to each, partition 1 gives 40."""
    offsets = ({0: 60 * place, 1: 40 * place} for place in (number, number + 1))
    start, end = offsets
    times = (1000.0 * number, 1000.0 * number + 900.0)
    rows, steps = (100 * number, 100 * number + 100), (10 * number, 10 * number + 10)
    return Window(*rows, *steps, times, start, end, f"position {number + 1}", **more)


def measured(key: tuple[str, str], breached: bool, **more: Any) -> Measurement:
    return Measurement(*key, 0.75, 0.5, 0.1, 7.0, breached, **more)


def run(one: Judge, *breaches: dict[tuple[str, str], bool]) -> list[list[tuple[str, str, int]]]:
    """(kind, check, step) of what each window's measurements led to."""
    found = []
    for number, keys in enumerate(breaches):
        records = one.judge([measured(key, breached) for key, breached in keys.items()], window(number))
        found.append([(record["kind"], record["check"], record["step"]) for record in records])
    return found


def test_patience_is_of_windows_in_a_row() -> None:
    one = judge(distribution=3)
    yes, no = {SHIFT: True}, {SHIFT: False}
    found = run(one, yes, yes, no, yes, yes, yes, yes, yes)
    assert found == [[], [], [], [], [], [("alarm", "distribution", 60)], [], []]


def test_a_check_that_was_not_made_changes_nothing() -> None:
    one = judge(distribution=2, release=1)
    found = run(one, {SHIFT: True}, {}, {SHIFT: True}, {}, {SHIFT: False})
    assert found == [[], [], [("alarm", "distribution", 30)], [], [("release", "distribution", 50)]]


def test_subjects_are_counted_apart() -> None:
    one = judge(distribution=2)
    other = ("distribution", "user")
    found = run(one, {SHIFT: True, other: False}, {SHIFT: False, other: True}, {SHIFT: True, other: True})
    assert found == [[], [], [("alarm", "distribution", 30)]]


def test_hold_and_release() -> None:
    one = judge(release=2)
    yes, no = {SHIFT: True}, {SHIFT: False}
    holding = []
    for number, keys in enumerate((no, yes, yes, no, yes, no, no, no)):
        one.judge([measured(key, breached) for key, breached in keys.items()], window(number))
        holding.append(one.holding)
    assert holding == [False, True, True, True, True, True, False, False]


def test_what_is_only_told_holds_nothing() -> None:
    one = judge()
    run(one, {RATE: False}, {RATE: True}, {RATE: True})
    assert (one.holding, one.cleared_row(300), one.sound_step(30)) == (False, 200, 20)


def test_rows_are_cleared_when_the_next_window_is_judged() -> None:
    one = judge()
    assert (one.cleared_row(0), one.sound_step(0)) == (0, 0)
    run(one, {SHIFT: False})
    assert (one.cleared_row(100), one.sound_step(10)) == (0, 0)
    one.judge([], window(1))
    assert (one.cleared_row(200), one.sound_step(20)) == (100, 10)


def test_breaches_are_not_cleared_and_stay_restorable() -> None:
    one = judge(distribution=9, label_mean=9)
    run(one, {MEAN: False}, {MEAN: True, SHIFT: True}, {MEAN: True}, {MEAN: True, SHIFT: False})
    assert (one.cleared_row(400), one.sound_step(40)) == (0, 0)  # it may have begun in the window before
    one.judge([measured(MEAN, False)], window(4))
    assert (one.cleared_row(500), one.sound_step(50)) == (400, 40)
    one.judge([measured(SHIFT, True)], window(5))
    one.judge([measured(SHIFT, True)], window(6))
    assert (one.cleared_row(700), one.sound_step(70)) == (400, 60)  # a HOLD takes nothing back


def test_an_alarm_has_the_evidence() -> None:
    one = judge(label_mean=2)
    most = (Contribution("[1, 2)", 0.5, 0.25),)
    one.judge([measured(MEAN, False)], window(0))
    one.judge([measured(MEAN, True)], window(1))
    [alarm] = one.judge([measured(MEAN, True, contributions=most)], window(2))
    assert alarm == {
        "kind": "alarm", "step": 30, "check": "label_mean", "subject": "click", "action": "STOP",
        "value": 0.75, "reference": 0.5, "threshold": 0.1, "sigmas": 7.0,
        "windows": [
            {"from_row": 100, "to_row": 200, "event_time": [1000.0, 1900.0]},
            {"from_row": 200, "to_row": 300, "event_time": [2000.0, 2900.0]},
        ],
        "contributions": [["[1, 2)", 0.5, 0.25]],
        "offsets": {"0": [60, 180], "1": [40, 120]},
        "event_time": [1000.0, 2900.0],
        "position": "position 3",
    }  # fmt: skip
    assert describe(alarm) == "label_mean of click 0.75, reference 0.5, threshold 0.1"


@pytest.mark.parametrize("subject", ["age", "age/length"])
def test_private_values_are_masked(subject: str) -> None:
    one = judge(private=("age",))
    most = (Contribution("[1, 2)", 0.5, 0.25),)
    key = ("distribution", subject)
    [alarm] = one.judge([measured(key, True, contributions=most)], window(0))
    assert alarm["contributions"] == [["***", 0.5, 0.25]]
    assert "[1, 2)" not in json.dumps(alarm)
    [alarm] = one.judge([measured(("distribution", "user"), True, contributions=most)], window(0))
    assert alarm["contributions"] == [["[1, 2)", 0.5, 0.25]]


def test_a_judge_goes_on_where_another_stopped() -> None:
    yes, no = {SHIFT: True, MEAN: True}, {SHIFT: False, MEAN: True}
    windows = [yes, no, yes, yes, no, no, yes]
    one = judge(label_mean=5, distribution=2)
    expected = run(one, *windows)
    for cut in range(len(windows)):
        first, second = judge(label_mean=5, distribution=2), judge(label_mean=5, distribution=2)
        found = run(first, *windows[:cut])
        second.restore(json.loads(json.dumps(first.state())))
        for number in range(cut, len(windows)):
            records = second.judge([measured(*item) for item in windows[number].items()], window(number))
            found.append([(record["kind"], record["check"], record["step"]) for record in records])
        assert found == expected
        assert second.state() == one.state()


def test_checks_that_are_no_longer_made_are_forgotten() -> None:
    one, other = judge(), judge()
    run(one, {SHIFT: True, MEAN: True})
    other._rules.pop("distribution")
    other.restore(one.state())
    assert not other.holding
    assert other.sound_step(10) == 0


def test_subjects_that_are_no_longer_watched_are_forgotten() -> None:
    """What held them holds no longer, and what was about to stop the run won't."""
    one = judge(label_mean=2)
    run(one, {SHIFT: True, MEAN: True, ("distribution", "user"): True})
    other = judge(ignored=("age", "click"))
    other.restore(json.loads(json.dumps(one.state())))
    assert other.holding  # user
    other.judge([measured(("distribution", "user"), False)], window(1))
    assert other.judge([measured(("distribution", "user"), False)], window(2)) != []
    assert not other.holding
    assert (other.cleared_row(300), other.sound_step(30)) == (200, 20)


# ---- the log


def alarm(step: int, check: str = "distribution", action: str = "HOLD", **more: Any) -> dict[str, Any]:
    windows = [{"from_row": step * 10 - 100, "to_row": step * 10}]
    stop = {"restored": "x", "restored_step": step - 20, "position": f"p{step}"} if action == "STOP" else {}
    return {
        "kind": "alarm", "step": step, "check": check, "subject": "age", "action": action, "value": 1 / 3,
        "reference": 0.1, "threshold": 0.1, "windows": windows, **stop, **more,
    }  # fmt: skip


def test_what_is_found_again_is_written_once(tmp_path: Path) -> None:
    log = AlarmLog(tmp_path / "alarms.jsonl")
    release = {"kind": "release", "step": 40, "check": "distribution", "subject": "age", "to_row": 400}
    assert [record["id"] for record in log.add([alarm(20), release])] == [
        "20-distribution-age", "40-distribution-age-release",
    ]  # fmt: skip
    log.close()
    log = AlarmLog(tmp_path / "alarms.jsonl")
    assert log.add([alarm(20), release]) == []
    assert [record["id"] for record in log.add([alarm(20, value=0.5)])] == ["20-distribution-age#2"]  # other rows
    assert len(AlarmLog(tmp_path / "alarms.jsonl").records) == 3


def test_a_torn_record_goes(tmp_path: Path) -> None:
    log = AlarmLog(tmp_path / "alarms.jsonl")
    log.add([alarm(20), alarm(30)])
    log.close()
    text = (tmp_path / "alarms.jsonl").read_bytes()
    (tmp_path / "alarms.jsonl").write_bytes(text[:-9])
    log = AlarmLog(tmp_path / "alarms.jsonl")
    assert [record["step"] for record in log.add([alarm(20), alarm(30)])] == [30]
    assert [record["step"] for record in AlarmLog(tmp_path / "alarms.jsonl").records] == [20, 30]


def test_a_stop_waits_for_a_decision(tmp_path: Path) -> None:
    log = AlarmLog(tmp_path / "alarms.jsonl")
    log.add([alarm(20), alarm(60)])
    assert log.stop() is None
    log.add([alarm(70, "label_mean", "STOP"), alarm(70, "missing_rate", "STOP"), alarm(70)])
    stop = AlarmLog(tmp_path / "alarms.jsonl").stop()
    assert stop is not None
    assert (stop.restored_step, stop.step, stop.from_row, stop.to_row, stop.position) == (50, 70, 600, 700, "p70")
    assert stop.ids == ["60-distribution-age", "70-label_mean-age", "70-missing_rate-age", "70-distribution-age"]
    assert stop.keys == [("distribution", "age"), ("label_mean", "age"), ("missing_rate", "age")]
    log.decide("accept", 50, stop.ids, keys=stop.keys, from_row=600)
    assert AlarmLog(tmp_path / "alarms.jsonl").stop() is None
    [accepted] = AlarmLog(tmp_path / "alarms.jsonl").acceptances()
    assert (accepted.row, accepted.keys) == (600, set(stop.keys))
    log.add([alarm(70, "label_mean", "STOP")])  # somebody went back
    assert log.stop() is not None


def test_what_was_accepted_of_rows_that_never_come_is_void(tmp_path: Path) -> None:
    log = AlarmLog(tmp_path / "alarms.jsonl")
    for row in (100, 500, 900):
        log.decide("accept", row // 10, keys=[["label_mean", "click"]], from_row=row)
    log.decide("replay", 30)
    assert [one.row for one in log.acceptances()] == [100, 500, 900]
    log.decide("skip", 60, rows=500)
    assert [one.row for one in log.acceptances()] == [100, 500]


def test_numbers_that_are_none(tmp_path: Path) -> None:
    one = judge()
    found = one.judge([Measurement(*SHIFT, math.inf, math.nan, 0.1, None, True)], window(0))
    log = AlarmLog(tmp_path / "alarms.jsonl")
    [record] = log.add(found)
    assert (record["value"], record["reference"], record["sigmas"]) == (None, None, None)
    assert "unknown" in describe(record)
    assert AlarmLog(tmp_path / "alarms.jsonl").add(found) == []
