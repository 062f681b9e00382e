"""A drift alarm as people meet it at the command line: exit codes, texts, decisions, rollback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_runs import EASYREC, ROOT, Workspace, command, refused, workspace

from easyrec_lite.checkpoints import list_checkpoints

DRIFT = """
stream_config {
  drift {
    window_rows: 64
    reference_first_windows: 2
    distribution { enabled: false }
    unseen_rate { enabled: false }
    duplicates { enabled: false }
    missing_rate { enabled: false }
  }
}
"""
FLAGS = [
    "--data_config.num_epochs=1",
    "--data_config.shuffle=false",
    "--train_config.num_steps=0",
    "--train_config.save_checkpoints_steps=2",
    "--edit",
    "eval_input_path=",
    "--edit",
    'export_config={exporter_type: "none"}',
]


def steps(model_dir: Path) -> list[int]:
    return [checkpoint.step for checkpoint in list_checkpoints(model_dir)]


@pytest.fixture
def drifting(tmp_path: Path) -> Workspace:
    """Rows of which the last third are all clicked."""
    work = workspace(tmp_path / "work", EASYREC + DRIFT)
    lines = (work.path / "train.txt").read_text().splitlines()
    times = lines * 4
    clicked = ["1" + line[1:] for line in times[512:]]
    (work.path / "train.txt").write_text("\n".join(times[:512] + clicked) + "\n")
    return work


def test_from_the_alarm_to_the_end(drifting: Workspace) -> None:
    run = drifting.run("train", *FLAGS)
    model = drifting.model_dir
    assert run.code == 3, run.err
    assert "Traceback" not in run.err
    assert "warning: drift: STOP at step 18: label_mean of clk 1" in run.err
    assert "error: the drift monitor stopped the training: label_mean of clk 1" in run.err
    assert "rows 512 to 576" in run.err
    [accept, _, _, listing] = [line.strip() for line in run.err.splitlines() if line.startswith("  python")]
    assert accept.startswith(f"python -m easyrec_lite.train --model_dir {model} --on_alarm accept")
    assert steps(model)[-1] == 14
    assert listing.startswith(f"python -m easyrec_lite.checkpoints {model}")

    text = refused(drifting.run("train", *FLAGS, "--continue_train"))
    assert "Nobody has decided" in text
    assert "--on_alarm accept" in text

    # As the message says: no config is needed, what the run left there is enough.
    run = command("train", "--model_dir", model, "--on_alarm", "accept")
    assert run.code == 0, run.err
    assert "accepted: label_mean of clk" in run.err
    assert steps(model)[-1] == 25
    decision = json.loads((model / "alarms.jsonl").read_text().splitlines()[-1])
    assert decision["decision"] == "accept"


def test_one_decision_at_a_time(drifting: Workspace) -> None:
    run = drifting.run("train", "--on_alarm", "accept", "--replay_from", "4")
    assert run.code == 2
    assert "not allowed with" in run.err
    run = drifting.run("train", "--on_alarm", "forget")
    assert run.code == 2
    assert "invalid choice" in run.err
    assert "nothing" not in refused(command("train", "--model_dir", drifting.model_dir, "--on_alarm", "skip"))


def test_nothing_to_roll_back(drifting: Workspace) -> None:
    text = refused(drifting.run("train", *FLAGS, "--rollback_published"))
    assert "found no version; expected two or more" in text


@pytest.mark.slow
def test_a_stop_that_is_killed_is_finished_at_the_next_start(drifting: Workspace) -> None:
    """SIGKILL between the alarm and the removal of the checkpoints behind it."""
    program = (
        "import os, signal, sys\n"
        "from easyrec_lite import _training, train\n"
        "_training.discard_after = lambda *a: os.kill(os.getpid(), signal.SIGKILL) if a[1] >= 0 else None\n"
        "sys.exit(train.main(sys.argv[1:]))\n"
    )
    paths = [("train_input_path", "train.txt"), ("model_dir", "model")]
    edits = [flag for field, file in paths for flag in ("--edit", f"{field}={drifting.path / file}")]
    arguments = ["--config", str(drifting.path / "easyrec.config"), *edits, *FLAGS]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False
    )
    assert done.returncode == -signal.SIGKILL
    model = drifting.model_dir
    assert steps(model)[-1] == 16
    assert len((model / "alarms.jsonl").read_text().splitlines()) == 1
    assert "Nobody has decided" in refused(drifting.run("train", *FLAGS, "--continue_train"))
    assert steps(model)[-1] == 14
    run = drifting.run("train", *FLAGS, "--on_alarm", "skip")
    assert "training the 64 rows between step-000000000014 and the alarmed ones" in run.err
    assert "skipped 64 rows" in run.err
    assert run.code == 3, run.err  # the rows behind them are no better
    assert "Now decide" in run.err
