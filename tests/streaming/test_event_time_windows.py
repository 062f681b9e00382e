"""Prequential windows by event time, in metrics.jsonl, through kills."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import rows
from training_runs import SMALL, KillAt, Killed, config, left_behind, run

from easyrec_lite.config import PipelineConfig

TIME = 'input_fields { input_name: "time" input_type: INT64 } event_time_field: "time"'
START = 1_699_999_800  # a multiple of 300


@pytest.fixture
def timed(tmp_path: Path) -> Path:
    """A row each ten seconds: a batch of 16 is 160 seconds."""
    frame = rows(200, seed=4)
    frame["time"] = START + 10 * frame.index
    (tmp_path / "data").mkdir()
    for name in ("train", "eval"):
        frame.to_csv(tmp_path / "data" / f"{name}.csv", index=False)
    return tmp_path / "data"


def test_one_time_in_milliseconds_ends_no_windows(timed: Path, tmp_path: Path) -> None:
    file = timed / "train.csv"
    file.write_text(file.read_text().replace(str(START + 400), f"{START + 400}000"))
    ours = ["data_config.shuffle=false", "data_config.num_epochs=1", "stream_config.prequential.window_event_minutes=5"]
    run(config(timed, tmp_path / "run", *ours, text=SMALL.replace("data_config {", f"data_config {{ {TIME}", 1)))
    windows = [one["window"] for one in left_behind(tmp_path / "run")["journal"] if one["kind"] == "prequential"]
    assert len(windows) == 6
    assert all(time < START + 2000 for one in windows for time in one["event_time"])


def test_windows_of_five_minutes(timed: Path, tmp_path: Path) -> None:
    def pipeline(name: str, *edits: str) -> PipelineConfig:
        ours = ["data_config.shuffle=false", "data_config.num_epochs=1"]
        ours += ["stream_config.prequential.window_event_minutes=5", "stream_config.prequential.every_n_batches=2"]
        text = SMALL.replace("data_config {", f"data_config {{ {TIME}", 1)
        return config(timed, tmp_path / name, *ours, *edits, text=text)

    run(pipeline("whole"))
    for place, step in enumerate((3, 6, 10)):
        with pytest.raises(Killed):
            run(pipeline("killed", "train_config.steps_per_call=1"), resume=place > 0, callbacks=[KillAt(step)])
    run(pipeline("killed"), resume=True)
    whole, killed = left_behind(tmp_path / "whole"), left_behind(tmp_path / "killed")
    assert whole == killed
    windows = [record for record in whole["journal"] if record["kind"] == "prequential"]
    # Batches 0, 2, 4, ... end at 150, 470, 790, 1110, ... seconds, in the windows 0, 1, 2, 3, ...
    assert [record["window"]["event_time"] for record in windows[:2]] == [[START + 150] * 2, [START + 470] * 2]
    assert [record["step"] for record in windows] == [3, 5, 7, 9, 11, 13]
    steps = [record["step"] for record in whole["journal"]]
    assert steps == sorted(steps)
