"""When a model is published, and when it is not."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from publishing_runs import BATCH, NOW, Gate, Killed, Run

from easyrec_lite.checkpoints import checkpoint_paths
from easyrec_lite.errors import UserError
from easyrec_lite.serving import next_version
from easyrec_lite.streaming.publishing import roll_back

# ---- when it is due


def test_by_rows(tmp_path: Path) -> None:
    run = Run(tmp_path, "every_rows: 250 keep: 0")
    run.steps(10)  # the first batches at or past 250, 500, 750 and 1000 rows
    assert run.published == [3, 5, 8, 10]
    assert [record["rows"] for record in run.log] == [300, 500, 800, 1000]
    run.idle(9)
    run.steps(2)
    assert run.published == [3, 5, 8, 10]


def test_a_call_of_the_graph_ends_at_the_next_one(tmp_path: Path) -> None:
    run = Run(tmp_path, "every_rows: 250 every_event_minutes: 0.1")
    assert run.publisher.until(run).steps == 1  # type: ignore[arg-type]  # nobody knows the time yet
    run.steps(4)
    until = run.publisher.until(run)  # type: ignore[arg-type]
    assert (until.rows, until.event_time) == (100, NOW + 6)
    assert until.steps > 2**60


def test_by_event_time(tmp_path: Path) -> None:
    run = Run(tmp_path, "every_event_minutes: 0.1 keep: 0")  # NOW is a multiple of six seconds
    run.steps(14)
    assert run.published == [7, 13]  # the first step is at NOW
    assert [record["event_time"] for record in run.log] == [NOW + 6, NOW + 12]


def test_by_the_clock(tmp_path: Path) -> None:
    run = Run(tmp_path, "every_seconds: 60 keep: 0")
    run.steps(3, seconds=25)
    assert run.published == [3]
    run.idle(300)  # nothing new to publish since
    assert run.published == [3]
    run.steps(2, seconds=30)
    assert run.published == [3, 5]
    run.steps(1, seconds=1)
    run.idle(60)  # rows came, and then nothing
    assert run.published == [3, 5, 6]


def test_nothing_is_due_before_the_first_row(tmp_path: Path) -> None:
    run = Run(tmp_path, "every_seconds: 60")
    run.idle(100)
    assert not run.publisher.wants_checkpoint()


# ---- the gate


def test_it_waits_for_the_verdict(tmp_path: Path) -> None:
    gate = Gate()
    run = Run(tmp_path, "every_rows: 300", gate)
    run.steps(5)
    assert not run.directory.exists()
    gate.cleared_rows = 299
    run.steps(1)  # 600 rows: another candidate
    assert not run.directory.exists()
    gate.cleared_rows = 599
    run.steps(1)
    assert run.published == [3]
    gate.cleared_rows = 600
    run.idle(1)
    assert run.published == [3, 6]
    assert [record["step"] for record in run.records.kept] == [7, 7]  # steps never go back


def test_of_those_that_are_cleared_the_newest(tmp_path: Path) -> None:
    gate = Gate()
    run = Run(tmp_path, "every_rows: 100", gate, keep=1)
    run.steps(7)
    # The oldest and the two newest wait, and so do their checkpoints.
    assert list(checkpoint_paths(tmp_path)) == [1, 6, 7]
    gate.cleared_rows = 600
    run.idle(1)
    assert run.published == [6]
    gate.cleared_rows = 700
    run.steps(1)
    assert run.published == [6, 7]


def test_nothing_of_an_alarmed_span_is_published(tmp_path: Path) -> None:
    """Windows of 500 rows: the second is breached and makes an alarm that holds until three clean ones passed."""
    gate = Gate()
    run = Run(tmp_path, "every_rows: 200 keep: 0", gate)
    for step in range(1, 31):
        if step * BATCH % 500 == 0:
            window = step * BATCH // 500
            gate.holding = 2 <= window < 5
            gate.cleared_rows = 500 if gate.holding else step * BATCH
        run.steps(1)
    assert run.published == [4, 30]  # 26 and 28 were cleared together with 30
    assert run.dropped == [(step, "an alarm holds") for step in range(6, 25, 2)]
    assert run.shown[0] == "the model of step 6, 600 rows, is not published: an alarm holds"


def test_a_breach_without_an_alarm_only_delays(tmp_path: Path) -> None:
    """With a patience of two windows one breached window keeps its rows from being cleared until the next is clean."""
    gate = Gate()
    run = Run(tmp_path, "every_rows: 400 keep: 0", gate)
    for step, cleared in ((5, 500), (10, 500), (15, 1500)):
        run.steps(4)
        gate.cleared_rows = cleared
        run.steps(1)
        assert step == run.step
    assert run.published == [4, 12]
    assert run.dropped == []


# ---- conditions


def test_what_waits_when_the_run_jumps_is_dropped(tmp_path: Path) -> None:
    """After a move the gate clears rows of other windows."""
    gate = Gate()
    run = Run(tmp_path, "every_rows: 300", gate)
    run.steps(4)
    run.publisher.on_move(run)  # type: ignore[arg-type]
    gate.cleared_rows = 400
    run.steps()
    assert (run.published, run.dropped) == ([], [(3, "training goes on elsewhere, before its rows were cleared")])
    run.steps()
    gate.cleared_rows = 600
    run.steps()
    assert run.published == [6]


def test_conditions_are_on_the_last_window_that_ended(tmp_path: Path) -> None:
    run = Run(tmp_path, 'every_rows: 100 keep: 0 conditions { metric: "auc" at_least: 0.7 }')
    run.steps(1)
    for auc in (0.7, 0.69, math.nan, 0.8):
        run.window(auc=auc, logloss=0.5)
        run.steps(1)
    assert run.published == [2, 5]
    assert run.dropped == [
        (1, "no window with auc has ended yet, and there is a bound on it: at_least 0.7"),
        (3, "auc 0.69 is not at least 0.7"),
        (4, "auc nan is not at least 0.7"),
    ]
    assert run.shown[1] == "the model of step 3, 300 rows, is not published: auc 0.69 is not at least 0.7"
    last = run.records.kept[-1]
    assert last == {
        "step": 5,
        "kind": "publish",
        "rows": 500,
        "checkpoint_step": 5,
        "version": run.log[-1]["version"],
        "auc": 0.8,
    }
    assert run.log[-1]["metrics"] == {"auc": 0.8, "logloss": 0.5}
    # No checkpoint was written for those that failed.
    assert list(checkpoint_paths(tmp_path)) == [2, 5]


def test_a_candidate_is_judged_by_what_was_known_when_it_was_due(tmp_path: Path) -> None:
    """A window after it says more of later weights: it makes neither a bad one good nor a good one bad."""
    gate = Gate()
    run = Run(tmp_path, 'every_rows: 300 keep: 0 conditions { metric: "auc" at_least: 0.7 }', gate)
    run.window(auc=0.6)
    run.steps(3)
    run.window(auc=0.9)
    run.steps(3)
    run.window(auc=0.6)
    gate.cleared_rows = 600
    run.idle(1)
    assert run.published == [6]
    assert [record["metrics"]["auc"] for record in run.log] == [0.9]


@pytest.mark.parametrize(
    ("condition", "values", "published"),
    [
        ('metric: "auc" worse_by_at_most: 0.01', (0.7, 0.69, 0.67, 0.75, 0.7), [1, 2, 4]),
        ('metric: "logloss" worse_by_at_most: 0.01', (0.3, 0.31, 0.33, 0.25, 0.26), [1, 2, 4, 5]),
        ('metric: "running_logloss" worse_by_at_most: 0', (0.3, 0.3, 0.31), [1, 2]),
        ('metric: "calibration" worse_by_at_most: 0.02', (1.01, 0.98, 1.03, 0.9, 1.05, 1.06), [1, 2, 3, 5, 6]),
        ('metric: "auc_ctr" at_least: 0.6 at_most: 0.9', (0.5, 0.6, 0.9, 0.91), [2, 3]),
    ],
)
def test_bounds(tmp_path: Path, condition: str, values: tuple[float, ...], published: list[int]) -> None:
    run = Run(tmp_path, f"every_rows: 100 keep: 0 conditions {{ {condition} }}")
    name = condition.split('"')[1]
    for value in values:
        run.window(**{name: value})
        run.steps(1)
    assert run.published == published


def test_worse_than_what_is_served(tmp_path: Path) -> None:
    """A version that was taken back is no measure any more."""
    run = Run(tmp_path, 'every_rows: 100 conditions { metric: "auc" worse_by_at_most: 0.01 }')
    for auc in (0.7, 0.8):
        run.window(auc=auc)
        run.steps(1)
    roll_back(run.directory)
    run.window(auc=0.7)
    run.steps(1)
    assert run.published == [1, 3]
    run.window(auc=0.68)
    run.steps(1)
    assert run.dropped == [(4, "auc 0.68 is worse by more than 0.01 than 0.7, that of the version published last")]


# ---- versions


def test_keeps_the_newest(tmp_path: Path) -> None:
    run = Run(tmp_path, "every_rows: 100 keep: 2", keep=1)
    run.steps(5)
    assert run.published == [4, 5]
    numbers = [record["version"] for record in run.log]
    assert sorted(set(numbers)) == numbers
    assert [path.name for path in sorted(run.directory.iterdir())] == [str(number) for number in numbers[-2:]]
    assert run.log[-1]["path"] == f"published/{numbers[-1]}"


def test_the_checkpoints_of_what_is_served_stay(tmp_path: Path) -> None:
    run = Run(tmp_path, "every_rows: 1000", keep=1)
    run.steps(20)
    for _ in range(3):
        run.steps(1)
        run.save()
    assert list(checkpoint_paths(tmp_path)) == [10, 20, 23]


def test_going_back(tmp_path: Path) -> None:
    run = Run(tmp_path, "every_rows: 100")
    run.steps(2)
    first, second = (str(record["version"]) for record in run.log)
    result = roll_back(run.directory)
    assert (result.taken, result.step) == (run.directory / f"{second}.taken_back", 2)
    assert (result.now, result.now_step) == (run.directory / first, 1)
    assert run.published == [1]
    run.steps(1)
    assert run.log[-1]["version"] > int(second)
    # Also with the folder gone, and a clock that goes wrong.
    for path in (run.directory / f"{second}.taken_back" / "assets", run.directory / f"{second}.taken_back"):
        [file.unlink() for file in path.glob("*.json")]
        path.rmdir()
    assert next_version(run.directory) > int(second)
    roll_back(run.directory)
    third = run.directory / f"{run.log[-1]['version']}.taken_back"
    third.rename(tmp_path / "elsewhere")
    run.steps(1)
    assert run.log[-1]["version"] == int(third.name.split(".")[0]) + 1


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_to_go_back_to(tmp_path: Path, count: int) -> None:
    run = Run(tmp_path, "every_rows: 100")
    run.steps(count)
    found = ["no version", "only version"][count]
    with pytest.raises(UserError, match=rf"published: found {found}.*expected two or more.*Publish another first"):
        roll_back(run.directory)
    assert run.published == [1][:count]


@pytest.mark.parametrize("text", [None, '{"step": 3', "[1, 2]", "7", "{}", '{"step": null}', '{"step": "three"}'])
def test_versions_that_can_not_be_read(tmp_path: Path, text: str | None) -> None:
    run = Run(tmp_path, "every_rows: 300")
    run.steps(6)
    newest = run.directory / max(path.name for path in run.directory.glob("*"))
    file = newest / "assets" / "description.json"
    file.unlink() if text is None else file.write_text(text)
    with pytest.raises(UserError, match=f"{re.escape(str(file))}: found no description of an exported model"):
        roll_back(run.directory)
    assert newest.is_dir()
    run.steps(3)  # the trainer goes on
    assert len(run.log) == 3


# ---- killed


@pytest.mark.parametrize("instant", ["before", "after"])
def test_killed_while_it_publishes(tmp_path: Path, instant: str) -> None:
    """Between the checkpoint and the version, or between the version and its record."""
    run = Run(tmp_path, "every_rows: 300 keep: 0")
    run.steps(2)
    run.writer.killed = instant
    with pytest.raises(Killed):
        run.steps(1)
    assert not (tmp_path / "published.jsonl").exists()
    again = Run(tmp_path, "every_rows: 300 keep: 0", resume=True)
    assert (again.step, again.published) == (3, [3])
    assert [record["step"] for record in again.log] == [3]
    again.steps(3)
    assert again.published == [3, 6]


def test_the_same_candidates_again(tmp_path: Path) -> None:
    """What was published, and what was taken back, is not published a second time."""
    gate = Gate()
    run = Run(tmp_path, "every_rows: 300 keep: 0", gate)
    run.steps(3)
    before = run.publisher.state()[0]
    gate.cleared_rows = 400
    run.steps(1)
    (version,) = (record["version"] for record in run.log)
    (run.directory / str(version)).rename(run.directory / f"{version}.taken_back")
    # Killed here; the newest checkpoint is that of step 3, in which the candidate still waits.
    gate = Gate()
    again = Run(tmp_path, "every_rows: 300 keep: 0", gate, resume=True)
    assert again.publisher.state()[0] == before
    gate.cleared_rows = 400
    again.steps(1)
    assert (again.published, len(again.log)) == ([], 1)
    assert again.records.kept == run.records.kept  # metrics.jsonl was cut back, and gets its record again
    again.steps(2)
    gate.cleared_rows = 600
    again.idle(1)
    assert again.published == [6]


def test_other_weights_at_the_same_step_are_another_model(tmp_path: Path) -> None:
    """As after a replay that skips rows."""
    run = Run(tmp_path, "every_rows: 300 keep: 0")
    run.steps(3)
    assert run.checkpoint is not None
    other = run.checkpoint.fingerprint[::-1]
    lines = (tmp_path / "published.jsonl").read_text().replace(run.checkpoint.fingerprint, other)
    (tmp_path / "published.jsonl").write_text(lines)
    description = run.directory / str(run.log[0]["version"]) / "assets" / "description.json"
    description.write_text(description.read_text().replace(run.checkpoint.fingerprint, other))
    again = Run(tmp_path, "every_rows: 300 keep: 0")
    again.step = 0
    for path in checkpoint_paths(tmp_path).values():
        path.rename(tmp_path / "old")
    again.steps(3)
    assert again.published == [3, 3]


def test_the_clock_goes_on_while_nothing_runs(tmp_path: Path) -> None:
    run = Run(tmp_path, "every_seconds: 60 keep: 0")
    run.steps(2, seconds=25)
    run.save()
    again = Run(tmp_path, "every_seconds: 60 keep: 0", resume=True)
    again.now = NOW + 50
    again.steps(1, seconds=9)
    assert again.published == []
    again.steps(1, seconds=1)
    assert again.published == [4]


def test_a_checkpoint_that_is_gone(tmp_path: Path) -> None:
    gate = Gate()
    run = Run(tmp_path, "every_rows: 300", gate)
    run.steps(3)
    checkpoint_paths(tmp_path)[3].rename(tmp_path / "elsewhere")
    gate.cleared_rows = 300
    run.steps(1)
    ((step, reason),) = run.dropped
    assert step == 3
    assert "its checkpoint is not to be read" in reason


def test_leftovers_of_a_kill(tmp_path: Path) -> None:
    directory = tmp_path / "published"
    for name in (".12ab.tmp.17", ".16.trash", "15", "14.taken_back"):
        (directory / name).mkdir(parents=True)
    Run(tmp_path, "every_rows: 300")
    assert sorted(path.name for path in directory.iterdir()) == ["14.taken_back", "15"]
