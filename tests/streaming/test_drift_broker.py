"""A live stream of a real broker whose labels change: the process stops by itself, and does as it is told."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from memory_stream import StopAt
from stream_runs import COLUMNS, config, write_rows
from training_runs import tensors

from easyrec_lite import _decisions, _training
from easyrec_lite.checkpoints import latest
from tools.kafka_broker import Cluster
from tools.kafka_replay import replay

ROWS, CHANGED = 16_000, 9_000
EDITS = (
    "kafka_train_input.max_wait_ms=600000",
    "data_config.event_time_field=at",
    "train_config.save_checkpoints_secs=0",
    "train_config.save_checkpoints_rows=1500",
    "stream_config.drift={window_rows: 1000 reference_first_windows: 4 alarm_command: ['tee', '-a', '{file}']}",
)


@pytest.mark.slow
@pytest.mark.broker
def test_from_the_alarm_to_the_end(kafka: Cluster, make_topic: Callable[..., str], tmp_path: Path) -> None:
    rows, model = tmp_path / "rows.parquet", tmp_path / "m"
    write_rows(rows, ROWS)
    frame = pd.read_parquet(rows)
    frame.loc[CHANGED : CHANGED + 3000, "click"] = 1
    frame.to_parquet(rows)
    topic = make_topic(3)
    sent = {"columns": COLUMNS, "label": "click", "event_time_field": "at", "rows_per_message": 3}
    replay(kafka.bootstrap, topic, str(rows), **sent)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    edits = [edit.replace("{file}", str(tmp_path / "told")) for edit in EDITS]
    config(kafka.bootstrap, topic, model, *edits)  # writes the file
    flags = [flag for edit in [*edits, f"model_dir={model}"] for flag in ("--edit", edit)]
    command = [sys.executable, "-m", "easyrec_lite.train", "--config", str(model.with_suffix(".config")), *flags]
    command += ["--edit", f"stream_config.prometheus_port={port}"]
    done = subprocess.run(
        command, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}, capture_output=True, text=True, timeout=240,
        check=False,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr[-3000:]  # and it did not wait for more rows
    assert "Now decide" in done.stderr
    assert "Exception" not in done.stderr
    alarm = next(
        record
        for record in map(json.loads, (model / "alarms.jsonl").read_text().splitlines())
        if record.get("action") == "STOP"
    )
    assert alarm["id"] in (tmp_path / "told").read_text()
    assert alarm["check"] == "label_mean"
    restored = latest(model)
    assert restored.step == alarm["restored_step"]
    assert restored.state["rows"] <= CHANGED
    assert sum(end for _, end in alarm["offsets"].values()) * 3 >= alarm["windows"][-1]["to_row"]

    settings = config(kafka.bootstrap, topic, model, *edits)
    options = _training.TrainOptions(callbacks=[StopAt(12_000)], decision=_decisions.Decision("accept"))
    _training.train(settings, options)
    plain = tmp_path / "plain"
    shutil.copytree(model / "ledger", plain / "ledger")
    _training.train(
        config(kafka.bootstrap, topic, plain, *edits[:-1]), _training.TrainOptions(callbacks=[StopAt(12_000)])
    )
    assert tensors(latest(plain)) == tensors(latest(model))
