"""What `stream_config` asks for, and what can be wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from scored_rows import recommender
from tiny import MODELS, load

from easyrec_lite.config import ConfigError, to_text
from easyrec_lite.protos import stream_pb2
from easyrec_lite.streaming import AlarmLog, DriftMonitor, Surroundings, Window, check, stream_callbacks
from easyrec_lite.streaming.drift import Contribution, Measurement
from easyrec_lite.training import TrainedBatches

KAFKA = 'kafka_train_input={server: "a:1" topic: "t" group: "g"}'
MINUTES = "stream_config.prequential.window_event_minutes=5"


def problems(*edits: str) -> list[str]:
    return [str(problem) for problem in check(load(MODELS["multi_tower"], *edits).message)]


@pytest.mark.parametrize(
    "edits",
    [
        (),
        ("stream_config.prequential={}",),
        ("stream_config.prequential.window_rows=1", "stream_config.prometheus_port=65535"),
        (MINUTES, KAFKA),
        (MINUTES, "data_config.event_time_field=price"),
    ],
)
def test_good_ones(edits: tuple[str, ...]) -> None:
    assert problems(*edits) == []


def test_bad_ones_all_at_once() -> None:
    found = problems(
        "stream_config.prometheus_port=70000",
        "stream_config.prequential.every_n_batches=0",
        "stream_config.prequential.window_rows=0",
        "stream_config.prequential.half_life_rows=0",
        "stream_config.prequential.window_event_minutes=-2",
    )
    path = "stream_config.prequential"
    assert found == [
        "stream_config.prometheus_port: found 70000, expected a port up to 65535, or 0 for none",
        f"{path}.every_n_batches: found 0, expected at least 1 (leave prequential out for no prequential evaluation)",
        f"{path}.window_rows: found 0, expected at least 1",
        f"{path}.half_life_rows: found 0, expected at least 1",
        f"{path}.window_event_minutes: found -2, expected minutes above 0 (leave it out for windows of window_rows)",
        f"{path}.window_event_minutes: found -2, with window_rows 0,"
        " expected one of the two: a window is of rows or of event time",
        f"{path}.window_event_minutes: found -2, and rows without an event time, expected data_config.event_time_field"
        " (name the column of the time, or use window_rows)",
    ]


def test_callbacks(tmp_path: Path) -> None:
    around = Surroundings(tmp_path, TrainedBatches({}), AlarmLog(tmp_path / "alarms.jsonl"))
    plain = stream_callbacks(load(MODELS["multi_tower"]).message, recommender(MODELS["multi_tower"]), around)
    assert (plain.prequential, plain.exporter, list(plain)) == (None, None, [plain.monitor])
    edits = ["stream_config.prequential={}", "stream_config.prometheus_port=9", "stream_config.drift={}"]
    message = load(MODELS["multi_tower"], *edits).message
    full = stream_callbacks(message, recommender(MODELS["multi_tower"]), around)
    assert list(full) == [full.prequential, full.drift, full.monitor, full.exporter]
    assert full.exporter is not None
    assert full.exporter.port == 9


def monitor(directory: Path, *edits: str) -> DriftMonitor:
    message = load(MODELS["multi_tower"], *edits).message
    around = Surroundings(directory, TrainedBatches({}), AlarmLog(directory / "alarms.jsonl"))
    drift = stream_callbacks(message, recommender(MODELS["multi_tower"]), around).drift
    assert drift is not None
    return drift


@pytest.mark.parametrize(("subject", "masked"), [("user", True), ("user/length", True), ("item", False)])
def test_private_columns_are_masked(tmp_path: Path, subject: str, masked: bool) -> None:
    drift = monitor(tmp_path, "stream_config.drift={}")
    found = Measurement("distribution", subject, 0.5, 0.0, 0.1, 9.0, True, (Contribution("7", 0.5, 0.1),))
    [alarm] = drift._judge.judge([found], Window(0, 10, 0, 1))
    assert alarm["contributions"] == [["***" if masked else "7", 0.5, 0.1]]


def test_the_url_of_alarms_is_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edits = ["stream_config.drift={}", "stream_config.drift.alarm_url=env:ALARM_URL"]
    with pytest.raises(ConfigError, match=r"alarm_url: found env:ALARM_URL, which is not set"):
        monitor(tmp_path, *edits)
    monkeypatch.setenv("ALARM_URL", "file:///s3cret")
    with pytest.raises(ConfigError, match=r"alarm_url: found something else, expected .*https://") as caught:
        monitor(tmp_path, *edits)
    assert "s3cret" not in str(caught.value)
    monkeypatch.setenv("ALARM_URL", "https://example.org/s3cret")
    monitor(tmp_path, *edits).close()
    assert "s3cret" not in to_text(load(MODELS["multi_tower"], *edits).message)
    with pytest.raises(ConfigError, match="a literal secret"):
        load(MODELS["multi_tower"], edits[0], "stream_config.drift.alarm_url=https://example.org/s3cret")


def test_what_checks_need() -> None:
    found = problems("stream_config.drift={calibration {} label_mean { patience: 0 } missing_rate { only: 'usr' }}")
    assert len(found) == 3
    assert all("stream_config.drift." in text for text in found)
    assert stream_pb2.DriftConfig().window_rows == 10000
