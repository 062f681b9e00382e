"""A training on files that publishes: real exports, killed and resumed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from training_runs import KillAt, Killed, config, left_behind, run

from easyrec_lite.checkpoints import Checkpoint, checkpoint_paths
from easyrec_lite.errors import DriftAlarm
from easyrec_lite.serving import Predictor, description, export_model, exported_step, versions
from easyrec_lite.streaming import publishing
from easyrec_lite.streaming.publishing import roll_back

# 300 rows in batches of 16: 19 steps.
PUBLISH = (
    "stream_config.prequential.window_rows=48",
    "stream_config.publish.every_rows=64",
    "stream_config.publish.keep=3",
    'stream_config.publish.conditions=[{metric: "calibration" at_least: 0.01}]',
    "train_config.save_checkpoints_steps=50",
)


def records(model_dir: Path) -> list[dict[str, Any]]:
    """What metrics.jsonl says of publishing."""
    lines = map(json.loads, (model_dir / "metrics.jsonl").read_text().splitlines())
    return [record for record in lines if record["kind"] == "publish"]


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model_dir of a run that nobody killed."""
    model_dir = tmp_path_factory.mktemp("whole") / "m"
    run(config(data, model_dir, *PUBLISH))
    return model_dir


def test_versions_are_the_checkpoints(data: Path, whole: Path) -> None:
    found = versions(whole / "published")
    log = [json.loads(line) for line in (whole / "published.jsonl").read_text().splitlines()]
    assert [record["rows"] for record in log] == [64, 128, 192, 256]
    assert [exported_step(path) for path in found] == [record["step"] for record in log[-3:]]
    assert [record["version"] for record in records(whole)] == [record["version"] for record in log]
    assert all(isinstance(record["calibration"], float) for record in records(whole))
    # The checkpoints of the two newest are there, and say the same.
    frame = pd.read_csv(data / "eval.csv")
    for record, path in zip(log[-2:], found[-2:], strict=True):
        checkpoint = Checkpoint(checkpoint_paths(whole)[record["step"]])
        facts = description(path)["published"]
        assert facts | {"path": record["path"]} == record
        assert (facts["fingerprint"], facts["position"]) == (checkpoint.fingerprint, checkpoint.state["position"])
        served = Predictor(path).predict(frame)["probs"]
        assert np.isfinite(served).all()
        assert served.shape == (len(frame),)
    first, last = (Predictor(path).predict(frame)["probs"] for path in found[-2:])
    assert not np.array_equal(first, last)


def test_killed_and_resumed(data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before an export, behind one and in between: in the end there is the same as without any of it."""
    killed = tmp_path / "killed"
    for instant in ("before", "after"):

        def write(*arguments: Any, instant: str = instant, **more: Any) -> Path:
            if instant == "after":
                export_model(*arguments, **more)
            raise Killed

        monkeypatch.setattr("easyrec_lite._exporters.export_model", write)
        with pytest.raises(Killed):
            run(config(data, killed, *PUBLISH), resume=killed.exists())
        monkeypatch.setattr("easyrec_lite._exporters.export_model", export_model)
        with pytest.raises(Killed):
            run(config(data, killed, *PUBLISH), resume=True, callbacks=[KillAt(7 if instant == "before" else 16)])
    run(config(data, killed, *PUBLISH), resume=True)

    def told(model_dir: Path) -> list[Mapping[str, Any]]:
        lines = map(json.loads, (model_dir / "published.jsonl").read_text().splitlines())
        return [{k: v for k, v in record.items() if k not in ("version", "path", "time")} for record in lines]

    assert told(killed) == told(whole)
    ends = [left_behind(model_dir) for model_dir in (whole, killed)]
    for end in ends:
        for record in end["journal"]:
            record.pop("version", None)
    assert ends[0] == ends[1]


def test_publishing_changes_no_weight(data: Path, whole: Path, tmp_path: Path) -> None:
    run(config(data, tmp_path, *PUBLISH, "stream_config={}"))
    assert left_behind(tmp_path)["tensors"] == left_behind(whole)["tensors"]


def test_nothing_of_an_alarmed_span(data: Path, tmp_path: Path) -> None:
    """The labels of a good part of the rows change: what is published was trained on none of them."""
    frame = pd.read_csv(data / "train.csv")
    many = pd.concat([frame] * 40, ignore_index=True)
    many.loc[3000:, "click"] = 1
    many.to_csv(tmp_path / "train.csv", index=False)
    (tmp_path / "eval.csv").write_bytes((data / "eval.csv").read_bytes())
    watched = [
        "data_config.shuffle=false",
        "data_config.num_epochs=1",
        "stream_config.drift={window_rows: 400 reference_first_windows: 4 distribution { enabled: false }}",
        "stream_config.publish={every_rows: 160 keep: 0}",
        "train_config.save_checkpoints_steps=20",
    ]
    with pytest.raises(DriftAlarm):
        run(config(tmp_path, tmp_path / "m", *watched))
    log = [json.loads(line) for line in (tmp_path / "m" / "published.jsonl").read_text().splitlines()]
    alarms = [json.loads(line) for line in (tmp_path / "m" / "alarms.jsonl").read_text().splitlines()]
    (first,) = {alarm["windows"][0]["from_row"] for alarm in alarms if alarm["action"] == "STOP"}
    assert 2000 <= first <= 3000
    # What was due in a window is published when the window is cleared; the newest, if several were.
    published = [record["rows"] for record in log]
    assert len(published) >= 4
    assert published == sorted({rows for rows in published if rows % 160 == 0})
    assert published[-1] <= first
    assert [exported_step(path) for path in versions(tmp_path / "m" / "published")] == [row // 16 for row in published]
    result = roll_back(tmp_path / "m" / publishing.PUBLISHED_DIR)
    assert (result.step, result.now_step) == (log[-1]["step"], log[-2]["step"])
