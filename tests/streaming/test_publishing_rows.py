"""Versions that a training publishes are compared with the trainer, and warm servers up."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from memory_stream import config as on_stream
from memory_stream import topic, train
from tensorflow.python.eager.polymorphic_function import polymorphic_function
from tensorflow_serving.apis import prediction_log_pb2
from tiny import rows
from training_runs import config, left_behind, run

from easyrec_lite import _exporters, _training
from easyrec_lite.serving import export as exporting
from easyrec_lite.serving import exported_step, versions
from easyrec_lite.serving.warmup import WARMUP

PUBLISH = "stream_config.publish={every_rows: 96 keep: 0}"


def parity(version: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((version / "assets" / "parity.json").read_text())
    return found


def warm_up(version: Path) -> list[dict[str, np.ndarray]]:
    """The inputs of the requests."""
    records = tf.data.TFRecordDataset(str(version / WARMUP)).as_numpy_iterator()
    logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in records]
    return [{name: tf.make_ndarray(tensor) for name, tensor in log.predict_log.request.inputs.items()} for log in logs]


def test_on_files(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What other tests of this process traced doesn't count.
    detectors = polymorphic_function._FrequentTracingDetectorManager()
    monkeypatch.setattr(polymorphic_function, "_frequent_tracing_detector_manager", detectors)
    caplog.set_level(logging.WARNING, "tensorflow")
    every = "stream_config.publish={every_rows: 32 keep: 0}"
    run(config(data, tmp_path / "m", every))
    published = versions(tmp_path / "m" / "published")
    assert len(published) == 9
    for version in published:
        assert parity(version)["passed"]
        assert parity(version)["rows"] == 50  # those of the evaluation file
        assert warm_up(version)
    # A process that publishes often traces the same code often.
    assert not [record for record in caplog.records if "retracing" in record.getMessage()]


def test_on_frames(tmp_path: Path, data: Path) -> None:
    frame = rows(70, seed=3)
    edits = (PUBLISH, "train_input_path=", "eval_input_path=")
    _training.train(config(data, tmp_path / "m", *edits), _training.TrainOptions(rows=frame))
    published = versions(tmp_path / "m" / "published")
    assert [parity(version)["rows"] for version in published] == [70] * len(published)


def test_a_version_that_differs_is_dropped(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compare, reports = exporting.compare, []

    def differing(*arguments: Any, **more: Any) -> Any:
        reports.append(compare(*arguments, **more))
        if len(reports) == 2:
            reports[1].differences[0].excess, reports[1].differences[0].absolute = 3.0, 0.25
        return reports[-1]

    monkeypatch.setattr(exporting, "compare", differing)
    run(config(data, tmp_path / "m", PUBLISH))
    assert [exported_step(version) for version in versions(tmp_path / "m" / "published")] == [6, 18]
    assert not list((tmp_path / "m" / "published").glob(".*"))
    records = [json.loads(line) for line in (tmp_path / "m" / "metrics.jsonl").read_text().splitlines()]
    (dropped,) = [record for record in records if "dropped" in record]
    assert dropped["checkpoint_step"] == 12
    assert "does not predict what the trainer predicts on 50 rows" in dropped["dropped"]
    assert "differs by 0.25" in dropped["dropped"]
    log = [json.loads(line)["step"] for line in (tmp_path / "m" / "published.jsonl").read_text().splitlines()]
    assert log == [6, 18]


def test_on_a_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first rows that came are kept, and no more; what is trained is the same without."""
    monkeypatch.setattr(_exporters, "_ROWS", 80)
    taken = []
    keep = _exporters._FirstRows._keep

    def counted(self: Any, count: np.int64, *arrays: np.ndarray) -> np.bool_:
        taken.append(int(count))
        return keep(self, count, *arrays)

    monkeypatch.setattr(_exporters._FirstRows, "_keep", counted)
    topic(monkeypatch, 640)
    publish = "stream_config.publish={every_rows: 320 keep: 0}"
    train(on_stream(tmp_path / "m", publish, bounded=True))
    first, second = versions(tmp_path / "m" / "published")
    assert taken == [32, 32, 32]
    for version in (first, second):
        assert parity(version)["passed"]
        assert parity(version)["rows"] == 80
        requests = warm_up(version)
        assert requests
        assert {user for request in requests for user in request["user"].tolist()} == {0}  # private
        assert len({age for request in requests for age in request["age"].tolist()}) > 70
    train(on_stream(tmp_path / "other", bounded=True))
    assert left_behind(tmp_path / "other")["tensors"] == left_behind(tmp_path / "m")["tensors"]


def test_a_stream_that_has_brought_no_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    topic(monkeypatch, 64)
    parsed = on_stream(tmp_path / "m", "export_config.exporter_type=latest", bounded=True)
    train(parsed)
    for version in versions(tmp_path / "m" / "export" / "latest"):
        _exporters.keep_newest(version.parent, 1)
        version.rename(tmp_path / "gone")
    told: list[str] = []
    monkeypatch.setattr(_training, "warn", told.append)
    train(parsed, resume=True)  # what a kill prevented is made up for
    (version,) = versions(tmp_path / "m" / "export" / "latest")
    assert not (version / "assets" / "parity.json").exists()
    assert told == ["exports are not compared with the trainer, for want of rows: there are none yet"]
