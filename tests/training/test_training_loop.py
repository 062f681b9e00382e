"""The loop: when things happen, how a run ends, what it keeps."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tiny import rows
from training_runs import TRAIN_ROWS, KillAt, Killed, config, journal, left_behind, run, tensors

from easyrec_lite.checkpoints import latest, list_checkpoints
from easyrec_lite.errors import UserError
from easyrec_lite.training import Callback, StepsResult, Trainer


class Log(Callback):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []
        self.rows = 0

    def on_start(self, trainer: Trainer) -> None:
        self.events.append(("start", trainer.step))

    def on_steps(self, trainer: Trainer, result: StepsResult) -> None:
        self.events.append(("steps", trainer.step))
        self.rows += result.rows

    def on_evaluation(self, trainer: Trainer, metrics: Any) -> None:
        self.events.append(("evaluation", trainer.step))

    def on_checkpoint(self, trainer: Trainer, checkpoint: Any) -> None:
        assert checkpoint.step == trainer.step
        self.events.append(("checkpoint", trainer.step))

    def on_end(self, trainer: Trainer, metrics: Any) -> None:
        self.events.append(("end", trainer.step))

    def at(self, kind: str) -> list[int]:
        return [step for event, step in self.events if event == kind]


@pytest.fixture(scope="module")
def plain_run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without anything special."""
    model_dir = tmp_path_factory.mktemp("plain") / "model"
    run(config(data, model_dir))
    return model_dir


@pytest.mark.parametrize("steps_per_call", [1, 3])
def test_events_are_at_their_multiples_whatever_the_steps_a_call(
    data: Path, tmp_path: Path, plain_run: Path, steps_per_call: int
) -> None:
    log = Log()
    result = run(config(data, tmp_path / "m", f"train_config.steps_per_call={steps_per_call}"), callbacks=[log])
    # 300 rows in batches of 16: batches run on from epoch to epoch.
    assert result.step == 19
    assert result.stopped_by == "end of data"
    assert log.at("checkpoint") == log.at("evaluation") == [4, 8, 12, 16, 19]
    assert set(log.at("steps")) >= {2, 4, 6, 8, 10, 12, 14, 16, 18, 19}
    assert log.events[0] == ("start", 0)
    assert log.events[-1] == ("end", 19)
    assert log.rows == result.rows == 3 * TRAIN_ROWS
    ours, theirs = left_behind(tmp_path / "m"), left_behind(plain_run)
    assert ours["tensors"] == theirs["tensors"]
    assert ours["statistics"] == theirs["statistics"]
    assert [(r["step"], r["kind"]) for r in ours["journal"]] == [(r["step"], r["kind"]) for r in theirs["journal"]]
    for mine, other in zip(ours["journal"], theirs["journal"], strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], rel=1e-6)


def test_the_journal(plain_run: Path) -> None:
    records = journal(plain_run)
    trained = [record for record in records if record["kind"] == "train"]
    assert [record["step"] for record in trained] == list(range(2, 19, 2))
    assert set(trained[0]) == {"step", "kind", "loss", "cross_entropy_loss", "regularization_loss"}
    assert trained[0]["loss"] == pytest.approx(trained[0]["cross_entropy_loss"] + trained[0]["regularization_loss"])
    evaluated = [record for record in records if record["kind"] == "evaluation"]
    assert [record["step"] for record in evaluated] == [4, 8, 12, 16, 19]
    assert set(evaluated[0]) == {"step", "kind", "auc", "loss", "rows"}
    assert evaluated[0]["rows"] == 50
    assert latest(plain_run).metrics == {k: v for k, v in evaluated[-1].items() if k not in ("step", "kind")}


def test_losses_in_the_journal_are_means_since_the_record_before(data: Path, tmp_path: Path, plain_run: Path) -> None:
    run(config(data, tmp_path / "m", "train_config.log_step_count_steps=6", "train_config.steps_per_call=4"))
    by_two = {r["step"]: r["loss"] for r in journal(plain_run) if r["kind"] == "train"}
    by_six = {r["step"]: r["loss"] for r in journal(tmp_path / "m") if r["kind"] == "train"}
    assert list(by_six) == [6, 12, 18]
    for step, loss in by_six.items():
        assert loss == pytest.approx(np.mean([by_two[step - 4], by_two[step - 2], by_two[step]]), rel=1e-6)


def test_num_steps_ends_a_run(data: Path, tmp_path: Path) -> None:
    result = run(config(data, tmp_path / "m", "train_config.num_steps=6"))
    assert (result.step, result.stopped_by, result.rows) == (6, "num_steps", 96)
    assert [c.step for c in list_checkpoints(tmp_path / "m")] == [4, 6]
    assert result.checkpoint.step == 6
    assert result.metrics == latest(tmp_path / "m").metrics


def test_drop_remainder(data: Path, tmp_path: Path) -> None:
    result = run(config(data, tmp_path / "m", "data_config.drop_remainder=true"))
    assert (result.step, result.rows) == (18, 18 * 16)


def test_data_that_makes_no_batch(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no batch of rows"):
        run(config(data, tmp_path / "m", "data_config.drop_remainder=true", "data_config.batch_size=1000"))
    assert latest(tmp_path / "m") is None


def test_without_evaluation(data: Path, tmp_path: Path) -> None:
    log = Log()
    result = run(config(data, tmp_path / "m", "eval_input_path=", "train_config.num_steps=6"), callbacks=[log])
    assert result.metrics == {}
    assert log.at("checkpoint") == [4, 6]
    assert {record["kind"] for record in journal(tmp_path / "m")} == {"train"}


def test_checkpoints_by_the_clock_change_nothing_but_their_number(data: Path, tmp_path: Path, plain_run: Path) -> None:
    log = Log()
    clock = Clock()
    edits = [
        "train_config.save_checkpoints_secs=5",
        "train_config.steps_per_call=1",
        "export_config.enable_early_stop=true",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("easyrec_lite.training.loop.time.monotonic", clock)
        run(config(data, tmp_path / "m", *edits), callbacks=[log, clock])
    assert log.at("evaluation") == [4, 8, 12, 16, 19]
    assert set(log.at("checkpoint")) > {4, 8, 12, 16, 19}
    ours, theirs = left_behind(tmp_path / "m"), left_behind(plain_run)
    assert ours["tensors"] == theirs["tensors"]
    assert ours["statistics"] == theirs["statistics"]
    assert [(r["step"], r["kind"]) for r in ours["journal"]] == [(r["step"], r["kind"]) for r in theirs["journal"]]


class Clock(Callback):
    """Three seconds a step."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def on_steps(self, trainer: Trainer, result: StepsResult) -> None:
        self.now += 3.0 * result.steps


def test_a_checkpoint_by_the_clock_at_the_very_end_is_still_evaluated(data: Path, tmp_path: Path) -> None:
    clock, log = Clock(), Log()
    edits = ["train_config.save_checkpoints_secs=1", "train_config.steps_per_call=1", "data_config.num_epochs=1"]
    edits += ["data_config.drop_remainder=true", "train_config.save_checkpoints_steps=100"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("easyrec_lite.training.loop.time.monotonic", clock)
        result = run(config(data, tmp_path / "m", *edits), callbacks=[log, clock])
    assert log.at("checkpoint") == [1, 2, 3, 4, 5, 6]
    assert log.at("evaluation") == [6]
    assert result.metrics["rows"] == 50
    again = run(config(data, tmp_path / "m", *edits), resume=True)
    assert again.metrics == result.metrics
    assert [r["step"] for r in journal(tmp_path / "m") if r["kind"] == "evaluation"] == [6]


def test_checkpoints_by_rows(data: Path, tmp_path: Path, plain_run: Path) -> None:
    log = Log()
    edits = ["train_config.save_checkpoints_steps=0", "train_config.save_checkpoints_rows=50"]
    run(config(data, tmp_path / "m", *edits), callbacks=[log])
    # 16 rows a step, 300 in all: at 64, 112, 160, 208, 256, 300.
    assert log.at("evaluation") == log.at("checkpoint") == [4, 7, 10, 13, 16, 19]
    assert [c.state["rows"] for c in list_checkpoints(tmp_path / "m")] == [64, 112, 160, 208, 256, 300]
    assert left_behind(tmp_path / "m")["tensors"] == left_behind(plain_run)["tensors"]
    with pytest.raises(Killed):
        run(config(data, tmp_path / "killed", *edits), callbacks=[KillAt(9)])
    log = Log()
    run(config(data, tmp_path / "killed", *edits), resume=True, callbacks=[log])
    assert log.at("checkpoint") == [10, 13, 16, 19]  # rows are counted on


def test_checkpoints_by_event_time(data: Path, tmp_path: Path) -> None:
    rows = pd.read_csv(data / "train.csv")
    rows.assign(at=1_700_000_100 + 10 * rows.index).to_csv(tmp_path / "train.csv", index=False)
    (tmp_path / "eval.csv").write_bytes((data / "eval.csv").read_bytes())
    edits = ["train_config.save_checkpoints_steps=0", "train_config.save_checkpoints_event_minutes=5"]
    edits += ["data_config.event_time_field=at", "data_config.shuffle=false", "data_config.num_epochs=1"]
    log = Log()
    run(config(tmp_path, tmp_path / "m", *edits), callbacks=[log])
    # 160 seconds a step; 1,700,000,100 is a multiple of 300, the next ones are passed in steps 2, 4, 6; then the end.
    assert 1_700_000_100 % 300 == 0
    assert log.at("evaluation") == log.at("checkpoint") == [2, 4, 6, 7]
    assert list_checkpoints(tmp_path / "m")[0].state["event_time"] == 1_700_000_100 + 310


def test_keeps_the_newest_and_the_best(data: Path, tmp_path: Path) -> None:
    result = run(
        config(data, tmp_path / "m", "train_config.keep_checkpoint_max=2", "train_config.save_checkpoints_steps=2")
    )
    evaluated = {r["step"]: r["auc"] for r in journal(tmp_path / "m") if r["kind"] == "evaluation"}
    best = max(evaluated, key=lambda step: (evaluated[step], -step))
    assert [c.step for c in list_checkpoints(tmp_path / "m")] == sorted({best, 18, result.step})


def test_early_stop(data: Path, tmp_path: Path) -> None:
    edits = ["export_config.enable_early_stop=true", "export_config.max_check_steps=4", "data_config.num_epochs=50"]
    edits += ["export_config.best_exporter_metric=loss", "export_config.metric_bigger=false"]
    edits += ["train_config.save_checkpoints_steps=2"]
    result = run(config(data, tmp_path / "m", *edits))
    assert result.stopped_by.startswith("loss has not been better than")
    assert "for 4 steps" in result.stopped_by
    best = int(result.stopped_by.split("(step ")[1].split(")")[0])
    assert result.step == best + 4
    again = run(config(data, tmp_path / "m", *edits), resume=True)
    assert (again.step, again.rows, again.stopped_by) == (result.step, 0, result.stopped_by)


def test_a_metric_that_no_evaluation_reports(data: Path, tmp_path: Path) -> None:
    edits = ["export_config.exporter_type=best", "export_config.best_exporter_metric=loss/loss"]
    with pytest.raises(
        UserError, match=r"export_config.best_exporter_metric: found 'loss/loss', expected .*auc or loss"
    ):
        run(config(data, tmp_path / "m", *edits))
    assert not (tmp_path / "m").exists()


def test_statistics_are_those_of_the_rows_trained(data: Path, tmp_path: Path) -> None:
    """The input reads ahead; what was not trained must not count."""
    run(config(data, tmp_path / "m", "train_config.num_steps=4", "data_config.shuffle=false"))
    seen = rows(TRAIN_ROWS, seed=11).iloc[: 4 * 16]
    profile = json.loads((tmp_path / "m" / "statistics.json").read_text())
    assert profile["rows"] == 64
    assert profile["labels"]["click"]["mean"] == pytest.approx(seen["click"].mean())
    users = profile["features"]["user"]["ids"]
    assert users["count"] == 64
    assert users["distinct"] == pytest.approx(seen["user"].where(seen["user"] < 12, 0).nunique(), abs=0.5)
    ages = profile["features"]["age"]["numbers"][0]
    assert ages["mean"] == pytest.approx(seen["age"].mean(), rel=1e-5)
    tags = Counter(len(t.split("|")) if t else 0 for t in seen["tags"])
    assert profile["features"]["tags"]["missing"] >= tags[0]


def test_event_times_are_in_the_statistics(data: Path, tmp_path: Path) -> None:
    frame = rows(TRAIN_ROWS, seed=11).assign(at=np.arange(1_000, 1_000 + TRAIN_ROWS))
    frame.to_csv(tmp_path / "train.csv", index=False)
    edits = [
        f"train_input_path={tmp_path / 'train.csv'}",
        "data_config.event_time_field=at",
        "data_config.shuffle=false",
    ]
    run(config(data, tmp_path / "m", *edits, "train_config.num_steps=4"))
    profile = json.loads((tmp_path / "m" / "statistics.json").read_text())
    assert [value for key, value in profile.items() if "event" in key] == [1000.0, 1063.0]


def test_tensorboard(plain_run: Path, data: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(config(data, tmp_path / "m", "train_config.save_summary_steps=3", "train_config.num_steps=9"))
    events = EventAccumulator(str(tmp_path / "m" / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {
        "learning_rate",
        *("loss/loss", "loss/cross_entropy_loss", "loss/regularization_loss"),
        *("evaluation/auc", "evaluation/loss", "evaluation/rows"),
    }
    assert [event.step for event in events.Scalars("loss/loss")] == [3, 6, 9]
    assert [event.step for event in events.Scalars("evaluation/auc")] == [4, 8, 9]
    assert {event.value for event in events.Scalars("learning_rate")} == {np.float32(0.01)}


def test_seeds(data: Path, tmp_path: Path, plain_run: Path) -> None:
    run(config(data, tmp_path / "same"))
    run(config(data, tmp_path / "other", "train_config.seed=2"))
    assert left_behind(tmp_path / "same") == left_behind(plain_run)
    assert tensors(latest(tmp_path / "other")) != tensors(latest(plain_run))
