"""A STOP: what is left of the run, what people can decide, and that nothing of it is lost by a kill."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from publishing_runs import Writer
from scripted_drift import alarms, script, train, watched, windows
from training_runs import KillAt, Killed, config, journal, run, tensors

from easyrec_lite import _training
from easyrec_lite._drift_report import DriftReport
from easyrec_lite.checkpoints import Checkpoint, Files, latest, list_checkpoints
from easyrec_lite.errors import DriftAlarm, UserError

CLICK = ("label_mean", "click")  # stops, unless the config says otherwise
AGE = ("distribution", "age")  # holds


def steps(model_dir: Path) -> list[int]:
    return [checkpoint.step for checkpoint in list_checkpoints(model_dir)]


@pytest.fixture(scope="module")
def unwatched(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run without a monitor, with all its checkpoints."""
    model_dir = tmp_path_factory.mktemp("unwatched") / "m"
    edits = ["train_config.save_checkpoints_steps=1", "train_config.keep_checkpoint_max=0", "eval_input_path="]
    run(config(data, model_dir, *edits))
    return model_dir


def of_step(model_dir: Path, step: int) -> dict[str, bytes]:
    return tensors(Checkpoint(model_dir / "checkpoints" / f"step-{step:012d}"))


BREACHES = {CLICK: [192], AGE: [160, 192]}


@pytest.fixture(scope="module")
def stopped_once(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped by its sixth window, steps 11 and 12."""
    model_dir = tmp_path_factory.mktemp("stopped") / "m"
    with pytest.MonkeyPatch.context() as patch:
        script(patch, BREACHES)
        with pytest.raises(DriftAlarm):
            train(watched(data, model_dir))
    return model_dir


@pytest.fixture
def stopped(stopped_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, and the same verdicts for what follows."""
    script(monkeypatch, BREACHES)
    shutil.copytree(stopped_once, tmp_path / "m")
    return tmp_path / "m"


def test_the_model_is_that_of_the_checkpoint_before(stopped: Path, unwatched: Path) -> None:
    newest = latest(stopped)
    assert newest.step == 8
    assert tensors(newest) == of_step(unwatched, 8)
    assert steps(stopped) == [4, 8]


def test_the_evidence(stopped: Path) -> None:
    hold, stop = alarms(stopped)
    assert (hold["action"], hold["check"], hold["step"], hold["windows"]) == (
        "HOLD", "distribution", 10, [{"from_row": 128, "to_row": 160}],
    )  # fmt: skip
    assert hold["contributions"] == [["user 7", 0.5, 0.1]]
    assert "position" not in hold
    assert stop["id"] == "12-label_mean-click"
    assert (stop["action"], stop["subject"], stop["value"], stop["reference"], stop["threshold"]) == (
        "STOP", "click", 0.75, 0.5, 0.1,
    )  # fmt: skip
    assert stop["windows"] == [{"from_row": 160, "to_row": 192}]
    assert stop["restored_step"] == 8
    assert stop["restored"].endswith("/m/checkpoints/step-000000000008")
    assert [window["window"]["to_row"] for window in windows(stopped)] == [32, 64, 96, 128, 160, 192]
    assert windows(stopped)[-1]["measurements"] == [
        ["label_mean", "click", 0.75, 0.5, 0.1, True],
        ["distribution", "age", 0.75, 0.5, 0.1, True],
    ]


def test_the_message_says_how_to_decide(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, {CLICK: [64]})
    with pytest.raises(DriftAlarm) as caught:
        train(watched(data, tmp_path / "a model"))
    text = str(caught.value)
    assert "label_mean of click 0.75, reference 0.5, threshold 0.1 (step 4, rows 32 to 64)" in text
    assert f"{tmp_path / 'a model' / 'alarms.jsonl'}" in text
    command = f"python -m easyrec_lite.train --model_dir '{tmp_path / 'a model'}'"
    for flag in ("--on_alarm accept", "--on_alarm skip", "--replay_from 0"):
        assert f"{command} {flag}" in text
    assert latest(tmp_path / "a model").step == 0


@pytest.mark.parametrize("rows", [32, 64])
def test_a_stop_before_the_first_checkpoint(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, unwatched: Path
) -> None:
    """The run goes back to its very start, and comes to the end as if nothing had been."""
    script(monkeypatch, {CLICK: [rows]})
    with pytest.raises(DriftAlarm):
        train(watched(data, tmp_path / "m"))
    assert steps(tmp_path / "m") == [0]
    with pytest.raises(UserError, match="holds a trained model already"):
        train(watched(data, tmp_path / "m"))
    train(watched(data, tmp_path / "m"), "accept")
    assert tensors(latest(tmp_path / "m")) == of_step(unwatched, 19)


def test_a_start_that_never_came_to_a_step_is_begun_anew(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unwatched: Path
) -> None:
    script(monkeypatch, {})
    settings = watched(data, tmp_path / "m", "export_config.exporter_type=latest")
    with pytest.raises(Killed):
        train(settings, callbacks=[KillAt(1)])
    assert steps(tmp_path / "m") == [0]
    assert not (tmp_path / "m" / "export").exists()  # of a model that has learned nothing
    train(watched(data, tmp_path / "m"))
    assert tensors(latest(tmp_path / "m")) == of_step(unwatched, 19)


def test_going_on_needs_a_decision(data: Path, stopped: Path) -> None:
    before = alarms(stopped)
    with pytest.raises(UserError) as caught:
        train(watched(data, stopped), resume=True)
    assert "Nobody has decided" in str(caught.value)
    assert "--on_alarm skip" in str(caught.value)
    with pytest.raises(UserError, match="holds a trained model already"):
        train(watched(data, stopped))
    assert (alarms(stopped), steps(stopped)) == (before, [4, 8])


def test_accept_trains_the_very_same_rows(data: Path, stopped: Path, unwatched: Path) -> None:
    train(watched(data, stopped), "accept")
    assert tensors(latest(stopped)) == of_step(unwatched, 19)
    records = alarms(stopped)
    decision = records[2]
    assert (decision["kind"], decision["decision"], decision["step"]) == ("decision", "accept", 8)
    assert decision["alarms"] == ["10-distribution-age", "12-label_mean-click"]
    assert decision["keys"] == [["distribution", "age"], ["label_mean", "click"]]
    # What held is found again, and not written again: its window comes before the alarmed ones. Then it is normal.
    assert len(records) == 3
    judge = latest(stopped).state["callbacks"]["DriftMonitor"]["judge"]
    assert (judge["breaches"], judge["held"]) == ([], [])
    train(watched(data, stopped), resume=True)  # it has ended, and is not asked again


def test_what_is_accepted_survives_kills(
    data: Path, stopped: Path, unwatched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Killed):
        train(watched(data, stopped), "accept", callbacks=[KillAt(11)])
    for step in (11, 14):
        with pytest.raises(Killed):
            train(watched(data, stopped), resume=True, callbacks=[KillAt(step)])
    train(watched(data, stopped), resume=True)
    assert tensors(latest(stopped)) == of_step(unwatched, 19)
    assert len(alarms(stopped)) == 3


def test_another_alarm_after_accept(data: Path, stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, {CLICK: [192, 224], ("missing_rate", "age"): [256]})
    with pytest.raises(DriftAlarm):
        train(watched(data, stopped), "accept")
    assert [record.get("id") for record in alarms(stopped)][-1] == "16-missing_rate-age"
    assert latest(stopped).step == 12


def test_skip_trains_the_rows_before_and_goes_on_behind(
    data: Path, stopped: Path, unwatched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = script(monkeypatch, {})
    for _ in range(2):
        with pytest.raises(Killed):  # before the alarmed rows: nothing is decided yet
            train(watched(data, stopped), "skip", callbacks=[KillAt(9)])
        assert (len(alarms(stopped)), steps(stopped)[-1]) == (2, 8)
    with pytest.raises(Killed):  # the jump itself is in a checkpoint
        train(watched(data, stopped), "skip", callbacks=[KillAt(12)])
    assert steps(stopped)[-2:] == [10, 11]
    moved, sound = latest(stopped), of_step(unwatched, 10)
    assert of_step(stopped, 10) == sound
    assert tensors(moved) | {"training/step": b""} == sound | {"training/step": b""}
    stop = alarms(stopped)[1]
    assert moved.state["position"] == stop["position"]
    decision = alarms(stopped)[-1]
    assert (decision["decision"], decision["step"], decision["skipped_rows"]) == ("skip", 11, 32)
    result = train(watched(data, stopped), resume=True)
    assert (latest(stopped).step, latest(stopped).state["rows"]) == (19 - 2 + 1, 300 - 32)
    assert result.rows == 300 - 192
    assert [facts.from_row for facts in detector.facts][:2] == [128, 160]
    assert [(record["step"], record["kind"]) for record in journal(stopped)].count((11, "train")) == 0


def test_a_skip_that_was_killed_can_go_back_again(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoints of the sound rows don't push out the one from which these are trained."""
    script(monkeypatch, {CLICK: [192]})
    model = tmp_path / "m"
    seldom, often = (
        watched(data, model, "train_config.keep_checkpoint_max=1", f"train_config.save_checkpoints_steps={every}")
        for every in (0, 2)
    )
    with pytest.raises(DriftAlarm):
        train(seldom)
    assert steps(model) == [0]
    with pytest.raises(Killed):
        train(often, "skip", callbacks=[KillAt(9)])
    assert (steps(model)[0], steps(model)[-1]) == (0, 8)
    with pytest.raises(UserError, match="Nobody has decided"):
        train(often, resume=True)
    assert steps(model) == [0]
    script(monkeypatch, {})
    train(seldom, "skip")
    assert (latest(model).step, latest(model).state["rows"]) == (19 - 2 + 1, 300 - 32)


def test_nothing_is_discarded_for_a_checkpoint_that_is_gone(data: Path, stopped: Path, unwatched: Path) -> None:
    (stopped / "checkpoints" / "step-000000000008").rename(stopped / "elsewhere")
    for decision in ("", "accept", "skip"):
        with pytest.raises(UserError, match=r"checkpoint of step 8, .* is gone; found those of 4\. .*--replay_from"):
            train(watched(data, stopped), decision, resume=True)
    with pytest.raises(DriftAlarm):
        train(watched(data, stopped), "replay", "4")
    assert tensors(latest(stopped)) == of_step(unwatched, 8)


# 19 steps with a checkpoint every third one, of which the newest is kept.
NEWEST = ("train_config.keep_checkpoint_max=1", "train_config.save_checkpoints_steps=3")
PATIENT = (*NEWEST, "stream_config.drift.label_mean.patience=2")


@pytest.fixture
def too_late(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run in which checks only warned, and that is then stopped by rows which its one checkpoint has seen."""
    model = tmp_path / "m"
    script(monkeypatch, {CLICK: [128, 160]})
    told = [f"stream_config.drift.{check}.action=WARN" for check in ("label_mean", "missing_rate")]
    train(watched(data, model, *PATIENT, *told, "train_config.num_steps=9"))
    assert steps(model) == [9]
    with pytest.raises(DriftAlarm, match=r"step 9 again, the oldest there is: rows that may be bad changed it already"):
        train(watched(data, model, *PATIENT), resume=True)
    return model


def test_a_stop_without_an_old_checkpoint_goes_back_to_the_oldest(too_late: Path) -> None:
    [alarm] = alarms(too_late)
    assert (alarm["action"], alarm["restored_step"], alarm["windows"]) == (
        "STOP", 9, [{"from_row": 96, "to_row": 128}, {"from_row": 128, "to_row": 160}],
    )  # fmt: skip
    assert steps(too_late) == [9]


@pytest.mark.parametrize(("decision", "rows"), [("accept", 300), ("skip", 300 - 16)])
def test_decisions_on_such_a_stop(data: Path, too_late: Path, unwatched: Path, decision: str, rows: int) -> None:
    if decision == "skip":  # all but the last of the alarmed rows were trained
        assert latest(too_late).state["rows"] == 144
    train(watched(data, too_late, *PATIENT), decision)
    assert latest(too_late).state["rows"] == rows
    if decision == "accept":
        assert tensors(latest(too_late)) == of_step(unwatched, 19)


def test_a_replay_that_is_stopped_earlier(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a tighter threshold: its breach began before the oldest checkpoint."""
    model = tmp_path / "m"
    script(monkeypatch, {CLICK: [256]})
    with pytest.raises(DriftAlarm):
        train(watched(data, model, *NEWEST))
    oldest = steps(model)[0]
    script(monkeypatch, {CLICK: [(oldest // 2 + 1) * 32, 256]})
    with pytest.raises(DriftAlarm, match=rf"step {oldest} again, the oldest there is"):
        train(watched(data, model, *NEWEST), "replay", str(oldest))
    assert (alarms(model)[-1]["restored_step"], steps(model)) == (oldest, [oldest])


def test_no_version_of_rows_next_to_skipped_ones(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A candidate of row 144: the window behind its own, with which that is judged, is jumped over."""
    monkeypatch.setattr(_training, "model_writer", lambda config, text, directory, rows: Writer(directory))
    script(monkeypatch, {CLICK: [192]})
    settings = watched(data, tmp_path / "m", "stream_config.publish.every_rows=48")
    with pytest.raises(DriftAlarm):
        train(settings)
    script(monkeypatch, {})
    train(settings, "skip")
    log = [json.loads(line) for line in (tmp_path / "m" / "published.jsonl").read_text().splitlines()]
    assert [record["rows"] for record in log] == [48, 96, 192]
    dropped = [record for record in journal(tmp_path / "m") if "dropped" in record]
    assert [(record["step"], record["rows"], record["checkpoint_step"]) for record in dropped] == [(10, 144, 9)]


def test_replay_gives_the_same_bits(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a step, from a path; statistics and journals go back, too."""
    script(monkeypatch, {AGE: [96]})
    settings = watched(data, tmp_path / "m", "train_config.keep_checkpoint_max=0")
    train(settings)
    path = tmp_path / "m"

    def left() -> tuple[object, ...]:
        newest = latest(path)
        arrays = {name: array.tobytes() for name, array in newest.arrays().items()}
        return tensors(newest), arrays, newest.state, journal(path), (path / "statistics.json").read_text()

    first = left()
    train(settings, "replay", "8")
    assert left() == first
    train(settings, "replay", str(path / "checkpoints" / "step-000000000004"))
    assert left() == first
    assert steps(path) == [0, 4, 8, 12, 16, 19]
    kinds = [record.get("decision", record["kind"]) for record in alarms(path)]
    # What is found again behind a replay is written again, as it was taken back; the alarm is before step 8.
    assert kinds == ["alarm", "release", "replay", "release", "replay", "alarm", "release"]
    assert DriftReport(path).state == ("no alarm holds", "good")


def test_replay_comes_to_the_stop_again(data: Path, stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DriftAlarm):
        train(watched(data, stopped), "replay", "4")
    kinds = [record.get("decision") or record["id"] for record in alarms(stopped)]
    assert kinds == [
        "10-distribution-age", "12-label_mean-click", "replay", "10-distribution-age#2", "12-label_mean-click#2",
    ]  # fmt: skip
    with pytest.raises(UserError, match="Nobody has decided"):
        train(watched(data, stopped), resume=True)


def test_what_holds_after_a_replay_is_in_the_report(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(monkeypatch, {AGE: range(96, 1000)})
    settings = watched(data, tmp_path / "m", "train_config.keep_checkpoint_max=0")
    train(settings)
    with pytest.raises(Killed):
        train(settings, "replay", "4", callbacks=[KillAt(7)])
    train(settings, resume=True)  # finds it once more, and writes it no more
    ids = [record.get("decision") or record["id"] for record in alarms(tmp_path / "m")]
    assert ids == ["6-distribution-age", "replay", "6-distribution-age#2"]
    assert latest(tmp_path / "m").state["callbacks"]["DriftMonitor"]["judge"]["held"] == [[*AGE, 0]]
    assert DriftReport(tmp_path / "m").state == (
        "training goes on, nothing is published: distribution age", "bad",
    )  # fmt: skip


def test_what_holds_can_be_accepted(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = script(monkeypatch, {AGE: range(96, 1000)})
    train(watched(data, tmp_path / "m", "train_config.num_steps=12"))
    assert [record["kind"] for record in alarms(tmp_path / "m")] == ["alarm"]
    train(watched(data, tmp_path / "m", "train_config.num_steps=16"), "accept")
    decision = alarms(tmp_path / "m")[-1]
    assert (decision["keys"], decision["from_row"], decision["alarms"]) == (
        [["distribution", "age"]], 192, ["6-distribution-age"],
    )  # fmt: skip
    train(watched(data, tmp_path / "m"), resume=True)
    assert latest(tmp_path / "m").state["callbacks"]["DriftMonitor"]["judge"]["held"] == []
    assert len(alarms(tmp_path / "m")) == 2
    assert detector.instances[-1].accepted == {AGE}
    with pytest.raises(UserError, match="no alarm stops or holds"):
        train(watched(data, tmp_path / "m"), "accept")


@pytest.mark.parametrize(
    ("kind", "place", "message"),
    [
        ("replay", "7", r"no checkpoint of step 7; it has those of 4, 8"),
        ("replay", "{other}", r"is not a checkpoint of .*--rebase"),
        ("rebase", "{other}", r"trains on files"),
        ("replay", "published", r"holds no published version"),
    ],
)
def test_places_that_do_not_fit(
    data: Path, stopped: Path, unwatched: Path, kind: str, place: str, message: str
) -> None:
    other = unwatched / "checkpoints" / "step-000000000008"
    with pytest.raises(UserError, match=message):
        train(watched(data, stopped), kind, place.format(other=other))
    assert steps(stopped) == [4, 8]


def test_decisions_without_an_alarm(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, {})
    with pytest.raises(UserError, match="holds no checkpoint to go on from"):
        train(watched(data, tmp_path / "m"), "accept")
    train(watched(data, tmp_path / "m"))
    with pytest.raises(UserError, match=r"no alarm stopped the run .* --continue_train"):
        train(watched(data, tmp_path / "m"), "skip")
    with pytest.raises(UserError, match="no alarm stops or holds"):
        train(watched(data, tmp_path / "m"), "accept")


def test_a_stop_that_was_killed_is_finished(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the alarm is written and before the checkpoints are gone."""
    script(monkeypatch, {CLICK: [160, 192]})
    edits = ["train_config.save_checkpoints_steps=1", "stream_config.drift.label_mean.patience=2"]
    settings = watched(data, tmp_path / "m", *edits)

    def kill(operation: str, path: Path) -> None:
        # What goes back at a STOP is renamed first; keep-2 removes older ones long before.
        if operation == "rename" and path.name in ("step-000000000010", "step-000000000011"):
            raise Killed

    with pytest.raises(Killed):
        _training.train(settings, _training.TrainOptions(files=Files(kill)))
    # The first breached window is of steps 9 and 10; what shows there may have begun in the one before.
    assert alarms(tmp_path / "m")[-1]["restored_step"] == 6
    assert steps(tmp_path / "m")[-1] > 6
    with pytest.raises(UserError, match="Nobody has decided"):
        train(settings, resume=True)
    assert steps(tmp_path / "m")[-1] == 6


def test_a_killed_run_gives_the_same_verdicts(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    breaches = {AGE: [64, 96, 128], CLICK: [160, 192, 224, 256]}
    edits = ["stream_config.drift.distribution.patience=2", "stream_config.drift.label_mean.patience=4"]
    found = []
    for name, kills in (("one", []), ("other", [3, 7, 9, 13, 14])):
        script(monkeypatch, breaches)
        settings = watched(data, tmp_path / name, *edits)
        for place, step in enumerate(kills):
            with pytest.raises(Killed):
                train(settings, resume=place > 0, callbacks=[KillAt(step)])
        with pytest.raises(DriftAlarm):
            train(settings, resume=bool(kills))
        records = alarms(tmp_path / name)
        changing = ("time", "restored")
        found.append([{key: value for key, value in record.items() if key not in changing} for record in records])
        assert latest(tmp_path / name).step == 4  # from before the window before the first breached one
    assert found[0] == found[1]
    assert [(record["kind"], record["step"]) for record in found[0]] == [("alarm", 6), ("release", 14), ("alarm", 16)]
