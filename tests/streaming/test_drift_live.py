"""Decisions on a live stream: what the ledger has is made again, row for row, and nothing is read twice."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from kafka_streams import Log
from memory_stream import START, WATCHED, config, send, topic, train
from scripted_drift import alarms, script
from training_runs import KillAt, Killed, left_behind, tensors

from easyrec_lite import _runs, _sources
from easyrec_lite.checkpoints import Checkpoint, checkpoint_paths, find, latest
from easyrec_lite.config import ConfigError
from easyrec_lite.errors import DriftAlarm, UserError
from easyrec_lite.inputs.kafka import StreamPosition
from easyrec_lite.inputs.kafka.ledger import Ledger

CLICK = ("label_mean", "click")
ROWS = 1920


def position(checkpoint: Checkpoint) -> StreamPosition:
    return StreamPosition.from_json(checkpoint.state["position"])


def of_step(model_dir: Path, step: int) -> Checkpoint:
    return Checkpoint(checkpoint_paths(model_dir)[step])


def offsets(of: StreamPosition) -> dict[int, int]:
    return {number: place.offset for number, place in of.partitions.items()}


def unwatched(model_dir: Path, ledger: Path, rows: int) -> Path:
    """A run of the same batches, which nobody watches."""
    shutil.copytree(ledger, model_dir / "ledger")
    train(config(model_dir), rows=rows)
    return model_dir


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    return topic(monkeypatch, 3000)


@pytest.fixture
def stopped(log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A live run that its fourth window stopped."""
    script(monkeypatch, {CLICK: [1280]})
    with pytest.raises(DriftAlarm):
        train(config(tmp_path / "m", WATCHED))
    return tmp_path / "m"


def test_accept(stopped: Path, tmp_path: Path) -> None:
    alarm = alarms(stopped)[0]
    end = StreamPosition.from_json(alarm["position"])
    assert sum(end for _, end in alarm["offsets"].values()) == 1280
    assert {int(number): end for number, (_, end) in alarm["offsets"].items()} == offsets(end)
    assert sum(end - start for start, end in alarm["offsets"].values()) == 320
    ledger = {path.name: path.read_bytes() for path in (stopped / "ledger").iterdir()}
    train(config(stopped, WATCHED), "accept", rows=ROWS)
    for name, data in ledger.items():
        assert (stopped / "ledger" / name).read_bytes().startswith(data)
    same = unwatched(tmp_path / "same", stopped / "ledger", ROWS)
    assert tensors(latest(stopped)) == tensors(latest(same))


def test_skip_and_a_kill(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alarm = alarms(stopped)[0]
    script(monkeypatch, {})
    with pytest.raises(Killed):
        train(config(stopped, WATCHED), "skip", callbacks=(KillAt(33),))
    moved = latest(stopped)
    before = of_step(stopped, moved.step - 1)
    assert (before.state["rows"], moved.state["rows"]) == (960, 960)  # the sound rows were trained first
    assert moved.state["position"] == alarm["position"]
    train(config(stopped, WATCHED), resume=True, rows=1600)
    last = latest(stopped)
    assert last.state["rows"] == 1600
    assert sum(offsets(position(last)).values()) == 1600 + 320  # what was skipped was neither trained nor read twice
    decision = alarms(stopped)[-1]
    assert (decision["decision"], decision["skipped_rows"], decision["rows"]) == ("skip", 320, 960)
    # Whoever goes back to before the jump makes the batches of the ledger again, the skipped ones too.
    train(config(stopped, WATCHED), "replay", str(before.step), rows=1280)
    assert latest(stopped).state["position"] == alarm["position"]


def test_replay_gives_the_same_bits(log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, {})
    model = tmp_path / "m"
    train(config(model, WATCHED), rows=ROWS)
    first, ledger = left_behind(model), [path.read_bytes() for path in sorted((model / "ledger").iterdir())]
    send(log, 500, first=3000)  # what came since changes nothing
    for place in ("30", checkpoint_paths(model)[10]):
        train(config(model, WATCHED), "replay", place, rows=ROWS)
        assert left_behind(model) == first
        for path, data in zip(sorted((model / "ledger").iterdir()), ledger, strict=True):
            assert path.read_bytes().startswith(data)


def test_the_start_of_a_bounded_run(log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is fixed by the first start, and so is the end, though more rows come before the decision."""
    plain = tmp_path / "plain"
    train(config(plain, bounded=True))
    script(monkeypatch, {CLICK: [320]})
    with pytest.raises(DriftAlarm):
        train(config(tmp_path / "m", WATCHED, bounded=True))
    assert latest(tmp_path / "m").step == 0
    send(log, 700, first=3000)
    train(config(tmp_path / "m", WATCHED, bounded=True), "accept")
    assert latest(tmp_path / "m").state["rows"] == 3000
    assert tensors(latest(tmp_path / "m")) == tensors(latest(plain))


# ---- base models


@pytest.fixture
def base(log: Log, tmp_path: Path) -> Path:
    """A model of the rows up to second 100, 1,000 rows."""
    path = tmp_path / "base"
    train(config(path, f"kafka_train_input.end_offset_time={START + 100}"))
    assert latest(path).state["event_time"] == START + 99
    return path


def test_a_stream_starts_behind_its_base(base: Path, tmp_path: Path) -> None:
    edits = [f"train_config.fine_tune_checkpoint={base}", "kafka_train_input.start_after_base=true"]
    model = tmp_path / "m"
    train(config(model, *edits), rows=64)
    assert sum(offsets(position(latest(model))).values()) == 1000 + 64
    shutil.rmtree(base)  # not needed again
    train(config(model, *edits), resume=True, rows=96)
    assert latest(model).state["rows"] == 96


def test_a_base_that_does_not_know_when_it_ended(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(Checkpoint):
        """As one of a run without event times."""

        @property
        def state(self) -> dict[str, object]:
            return {name: value for name, value in super().state.items() if name != "event_time"}

    monkeypatch.setattr(_sources, "find", lambda path: Silent(find(path).path))
    edits = [f"train_config.fine_tune_checkpoint={base}", "kafka_train_input.start_after_base=true"]
    train(config(tmp_path / "m", *edits), rows=64)  # the statistics beside it know
    assert sum(offsets(position(latest(tmp_path / "m"))).values()) == 1000 + 64
    (base / "statistics.json").unlink()
    with pytest.raises(UserError, match=r"found no event time.*event_time_field.*offset_time"):
        train(config(tmp_path / "other", *edits), rows=64)


def test_rebase(log: Log, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, {})
    model = tmp_path / "m"
    train(config(model, WATCHED), rows=640)
    old = latest(model)
    with pytest.raises(Killed):
        train(config(model, WATCHED), "rebase", base, callbacks=(KillAt(old.step + 3),))
    new = latest(model)
    assert (new.step, new.state["rows"]) == (old.step + 1, 640)
    weights = tensors(latest(base))
    weights.pop("training/step")
    assert {name: data for name, data in tensors(new).items() if name != "training/step"} == weights
    start = position(new)
    assert sum(offsets(start).values()) == 1000
    assert start.batch > position(old).batch
    train(config(model, WATCHED), resume=True, rows=1280)
    assert sum(offsets(position(latest(model))).values()) == 1000 + 640
    decision = alarms(model)[-1]
    assert (decision["decision"], decision["event_time"], decision["rows"]) == ("rebase", START + 99, 640)
    # Back to before: the old batches again, and what follows them is the stream's, not the base's.
    train(config(model, WATCHED), "replay", str(old.step - 10), rows=960)
    assert sum(offsets(position(latest(model))).values()) == 960
    assert len(Ledger(model / "ledger").entries(position(old))) > 0


def test_rebase_on_oneself(log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(config(tmp_path / "m"), rows=64)
    with pytest.raises(UserError, match=r"of this very run.*--replay_from 2"):
        train(config(tmp_path / "m"), "rebase", tmp_path / "m")
    assert latest(tmp_path / "m").step == 2


def test_a_start_behind_no_base(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"start_after_base.*no base model"):
        config(tmp_path / "m", "kafka_train_input.start_after_base=true")
    with pytest.raises(ConfigError, match=r"kafka_eval_input\.start_after_base"):
        _runs.load(
            tmp_path / "m.config",
            ['kafka_eval_input={server: "a:1" topic: "t" group: "g" start_after_base: true}'],
        )
